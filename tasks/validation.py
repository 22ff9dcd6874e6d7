"""Domain validated."""

from __future__ import annotations

from blocks._base import CaBlock
from certrail.steps import validation
from certrail.steps.outcome import Outcome, Work
from certrail.steps.redeploy import unless_redeployed
from certrail.steps.restored import unless_served
from certrail.store import orders
from certrail.store.requests import Request
from certrail.tracker import Title
from tasks._connections import responder
from tasks._step import step


def _is_done(request: Request) -> bool:
    return request.certificate_id is not None or orders.live(request.id) is not None


@step(Title.DOMAIN_VALIDATED, attempts=2, is_done=_is_done)
@unless_redeployed
@unless_served
def validate_domains(work: Work) -> Outcome:
    """Open the order and prove control of what the CA still asks for."""
    with CaBlock.named(work.plan.ca.reference).connect() as ca:
        return validation.validate(work, ca, responder)
