"""Certificate delivery."""

from __future__ import annotations

from certrail.steps import delivery
from certrail.steps.outcome import Outcome, Work
from certrail.tracker import Title
from tasks._connections import delivery_target
from tasks._step import step


@step(Title.CERTIFICATE_DELIVERY)
def deliver(work: Work) -> Outcome:
    """Store the certificate where it is wanted, and read it back."""
    return delivery.deliver(work, lambda: delivery_target(work.plan))
