"""Redeploy and rollback: the certificate is there already, so nothing is asked of a CA."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from certrail.model import Action
from certrail.steps.outcome import Outcome, Work
from certrail.store import certificates


def unless_redeployed(work_of: Callable[[Work], Outcome]) -> Callable[[Work], Outcome]:
    """Skip an obtaining step of a request that only installs again."""

    @wraps(work_of)
    def step(work: Work) -> Outcome:
        if not work.request.action.obtains and work.request.certificate_id:
            serial = certificates.get(work.request.certificate_id).serial
            how = "back to" if work.request.action is Action.ROLLBACK else "redeploy of"
            return Outcome.skipped(f"{how} serial {serial}: nothing is ordered")
        return work_of(work)

    return step
