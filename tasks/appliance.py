"""Certificate installation."""

from __future__ import annotations

from certrail.steps import installation
from certrail.steps.outcome import Outcome, Work
from certrail.tracker import Title
from tasks._connections import install_target
from tasks._step import step


@step(Title.CERTIFICATE_INSTALLATION, is_done=lambda request: request.staged is not None)
def install(work: Work) -> Outcome:
    """Install the certificate by the target's own interface."""
    return installation.install(work, lambda: install_target(work.plan))
