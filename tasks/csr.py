"""CSR generation."""

from __future__ import annotations

from certrail.steps import csr
from certrail.steps.outcome import Outcome, Work
from certrail.steps.redeploy import unless_redeployed
from certrail.steps.restored import unless_served
from certrail.store import orders
from certrail.store.requests import Request
from certrail.tracker import Title
from tasks._connections import any_target
from tasks._step import step


def _is_done(request: Request) -> bool:
    return request.certificate_id is not None or orders.live(request.id) is not None


@step(Title.CSR_GENERATION, is_done=_is_done)
@unless_redeployed
@unless_served
def generate_csr(work: Work) -> Outcome:
    """Make key and CSR, on the target where it can."""
    return csr.generate_csr(work, lambda: any_target(work.plan))
