"""Certificate issued."""

from __future__ import annotations

from blocks._base import CaBlock
from certrail.steps import issuance
from certrail.steps.outcome import Outcome, Work
from certrail.steps.redeploy import unless_redeployed
from certrail.steps.restored import unless_served
from certrail.tracker import Title
from tasks._connections import any_target
from tasks._step import step


@step(Title.CERTIFICATE_ISSUED, is_done=lambda request: request.certificate_id is not None)
@unless_redeployed
@unless_served
def issue(work: Work) -> Outcome:
    """Send the CSR and keep the chain that the CA returns."""
    with CaBlock.named(work.plan.ca.reference).connect() as ca:
        return issuance.issue(work, ca, lambda: any_target(work.plan))
