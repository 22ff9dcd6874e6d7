"""Which endpoints take part in a job, and why others do not."""

from __future__ import annotations

from dataclasses import dataclass

from certrail.model import Action
from certrail.tracker import Status


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of an endpoint that was chosen for a job.

    Attributes:
        location: of the endpoint.
        known: the inventory has it.
        problem: why no plan can be made for it, "" if one can.
        remedy: what to do about the problem.
        active: status of its active request, None without one.
        active_job: name of the job that this request is part of.
        has_certificate: one was obtained for it that can be installed again.
    """

    location: str
    known: bool = True
    problem: str = ""
    remedy: str = ""
    active: Status | None = None
    active_job: str | None = None
    has_certificate: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the endpoint takes part; the reason in a code and in words."""

    eligible: bool
    code: str
    message: str


def judge(candidate: Candidate, action: Action | None) -> Verdict:
    """Decide about one endpoint.

    *action* None means what each endpoint needs: enroll or renew.
    """
    if not candidate.known:
        return Verdict(False, "unknown-endpoint", "the inventory has no endpoint of that location")
    if candidate.active is not None:
        where = f" of the job {candidate.active_job}" if candidate.active_job else ""
        status = candidate.active.text.lower()
        return Verdict(False, "active-request", f"it has a request{where} already: {status}")
    if candidate.problem:
        return Verdict(False, "not-configured", f"{candidate.problem}. {candidate.remedy}".strip())
    if action is Action.REDEPLOY and not candidate.has_certificate:
        return Verdict(
            False, "nothing-to-redeploy", "no certificate was obtained for it that could be put up"
        )
    return Verdict(True, "eligible", "takes part")
