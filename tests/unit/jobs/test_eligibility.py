"""Who takes part in a job."""

from __future__ import annotations

import pytest

from certrail.jobs.eligibility import Candidate, judge
from certrail.model import Action
from certrail.tracker import Status

WHERE = "www.example.org:443"


@pytest.mark.parametrize(
    ("candidate", "action", "code"),
    [
        (Candidate(WHERE), None, "eligible"),
        (Candidate(WHERE), Action.RENEW, "eligible"),
        (Candidate(WHERE, known=False), None, "unknown-endpoint"),
        (Candidate(WHERE, problem="it has no profile"), None, "not-configured"),
        (Candidate(WHERE, active=Status.IN_PROGRESS), None, "active-request"),
        (Candidate(WHERE, active=Status.AUTOMATION_SCHEDULED), Action.RENEW, "active-request"),
        (Candidate(WHERE, problem="x", active=Status.IN_PROGRESS), None, "active-request"),
        (Candidate(WHERE), Action.REDEPLOY, "nothing-to-redeploy"),
        (Candidate(WHERE, has_certificate=True), Action.REDEPLOY, "eligible"),
    ],
)
def test_each_endpoint_is_judged_by_one_reason(
    candidate: Candidate, action: Action | None, code: str
) -> None:
    """What cannot take part is reported, and never counts as failed."""
    verdict = judge(candidate, action)

    assert verdict.code == code
    assert verdict.eligible is (code == "eligible")
    assert verdict.message


def test_the_job_that_holds_an_endpoint_is_named() -> None:
    """Otherwise somebody looks for it in a list of thousands."""
    verdict = judge(Candidate(WHERE, active=Status.IN_PROGRESS, active_job="spring"), None)

    assert "spring" in verdict.message


def test_what_is_to_be_done_about_a_missing_profile_is_said() -> None:
    """A report without a remedy is a riddle."""
    verdict = judge(Candidate(WHERE, problem="it has no profile", remedy="Give it one."), None)

    assert verdict.message == "it has no profile. Give it one."
