"""Issuing certificate."""

from __future__ import annotations

from blocks._base import CaBlock
from certrail.steps import issuing
from certrail.steps.outcome import Outcome, Work
from certrail.steps.redeploy import unless_redeployed
from certrail.steps.restored import unless_served
from certrail.tracker import Title
from tasks._connections import responder
from tasks._step import step


@step(Title.ISSUING_CERTIFICATE, is_done=lambda request: request.certificate_id is not None)
@unless_redeployed
@unless_served
def issue(work: Work) -> Outcome:
    """Order, prove control where asked, and keep the chain that the CA returns."""
    with CaBlock.named(work.plan.ca.reference).connect() as ca:
        return issuing.issue(work, ca, responder)
