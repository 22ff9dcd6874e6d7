"""Certificate installation."""

from __future__ import annotations

from certrail.steps import places
from certrail.steps.outcome import Outcome, Work
from certrail.tracker import Title
from tasks._connections import install_target
from tasks._step import step


@step(Title.CERTIFICATE_INSTALLATION, is_done=places.is_installed)
def install(work: Work) -> Outcome:
    """Install the certificate by the target's own interface."""
    return places.install(work, install_target, Title.CERTIFICATE_INSTALLATION)
