"""Testing installation."""

from __future__ import annotations

from certrail.steps import places
from certrail.steps.outcome import Outcome, Work
from certrail.tracker import Title
from tasks._connections import install_target
from tasks._step import step


@step(Title.TESTING_INSTALLATION, attempts=1)
def test_installation(work: Work) -> Outcome:
    """Connect to the endpoint like a regular client."""
    return places.test(work, install_target)
