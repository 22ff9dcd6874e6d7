"""Testing installation: connect like a regular client, and undo what does not pass."""

from __future__ import annotations

from certrail.errors import ProbeFailed
from certrail.steps import installation, serving
from certrail.steps.installation import OpenTarget
from certrail.steps.outcome import Outcome, Work
from certrail.store import requests


def test_installation(work: Work, open_target: OpenTarget) -> Outcome:
    """Return once every address serves the certificate as clients want it.

    Raises:
        ProbeFailed: a client sees something wrong. The previous certificate
            was put back where that was better; a retry installs again.
    """
    chain = installation.issued(work).chain
    report = serving.settled(work.plan, chain)
    requests.keep_observed(work.request.endpoint_id, report.to_json())
    if report.ok:
        installation.accept(work, open_target)
        return Outcome.completed(report.detail)
    told = installation.undo(work, open_target)
    first = report.failures[0]
    raise ProbeFailed(f"{report.detail}; {told.line}", remedy=told.remedy or first.remedy)
