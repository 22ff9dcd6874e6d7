"""ACME account created."""

from __future__ import annotations

from blocks._base import CaBlock
from certrail.steps import account
from certrail.steps.outcome import Outcome, Work
from certrail.steps.redeploy import unless_redeployed
from certrail.tracker import Title
from tasks._step import step


@step(Title.ACME_ACCOUNT_CREATED, is_done=lambda request: request.certificate_id is not None)
@unless_redeployed
def ensure_account(work: Work) -> Outcome:
    """Create the account, or find and verify the existing one."""
    with CaBlock.named(work.plan.ca.reference).connect() as ca:
        return account.ensure_account(work, ca)
