"""Testing installation: connect like a regular client, and undo what does not pass."""

from __future__ import annotations

from datetime import timedelta

from certrail.errors import ProbeFailed
from certrail.model import Action, Workflow
from certrail.steps import installation, observing, serving
from certrail.steps.installation import OpenTarget
from certrail.steps.outcome import Outcome, Work
from certrail.store import requests
from certrail.x509.findings import Finding


def test_installation(work: Work, open_target: OpenTarget) -> Outcome:
    """Return once every address serves the certificate as clients want it.

    A store without an address to connect to is read back instead, and the detail says so.

    Raises:
        ProbeFailed: a client sees something wrong. The previous certificate
            was put back where that was better; a retry installs again.
    """
    chain = installation.issued(work).chain
    within = timedelta(0)
    if work.plan.workflow is Workflow.APPLIANCE:
        with open_target() as (target, site):
            within = target.traits.settles_within
            is_read_back = observing.is_read_back(work, target)
            if is_read_back:
                wrong = observing.read_back(target, site, chain.fingerprint)
        if is_read_back:
            return _read_back(work, open_target, wrong)
    report = serving.settled(work.plan, chain, within)
    if work.place == 0 or not report.ok:
        requests.keep_observed(work.request.endpoint_id, report.to_json())
    if report.ok:
        installation.accept(work, open_target)
        return Outcome.completed(report.detail)
    if work.request.action is Action.ROLLBACK and observing.not_switched(report) is None:
        # It is what was there before, wanted in spite of what a client says of it.
        installation.accept(work, open_target)
        return Outcome.completed(f"served as before, though {report.detail}")
    told = installation.undo(work, open_target)
    first = report.failures[0]
    raise ProbeFailed(f"{report.detail}; {told.line}", remedy=told.remedy or first.remedy)


def _read_back(work: Work, open_target: OpenTarget, wrong: Finding | None) -> Outcome:
    if wrong is None:
        installation.accept(work, open_target)
        return Outcome.completed(
            "read back and compared; the endpoint has no address to connect to"
        )
    told = installation.undo(work, open_target)
    raise ProbeFailed(f"{wrong.message}; {told.line}", remedy=told.remedy or wrong.remedy)
