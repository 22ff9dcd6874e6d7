"""The kinds of reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from certrail.errors import InvalidRequest
from certrail.reports.of_endpoints import (
    endpoints_report,
    expiring_report,
    security_report,
    upcoming_report,
)
from certrail.reports.of_records import audit_report, executors_report, notifications_report
from certrail.reports.of_requests import failures_report, job_report, requests_report
from certrail.reports.report import Report
from certrail.reports.tables import Wanted

Builder = Callable[[Wanted, datetime], Report]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of report."""

    name: str
    help: str
    build: Builder


def build(kind: str, wanted: Wanted, now: datetime | None = None) -> Report:
    """Return the report of that kind as of now.

    Raises:
        InvalidRequest: there is no such kind, or it needs something more.
        NotFound: there is no such job.
    """
    if kind not in KINDS:
        raise InvalidRequest(
            f"there is no kind of report {kind!r}", remedy=f"Kinds are: {', '.join(KINDS)}"
        )
    at = now or datetime.now(UTC)
    about = " and ".join(wanted.view.filters)
    made = KINDS[kind].build(wanted, at)
    return replace(made, about=made.about or about)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("endpoints", "endpoints and automation state; any view", endpoints_report),
        Kind("requests", "requests with the time of each step", requests_report),
        Kind("failures", "failures by cause, the most frequent first", failures_report),
        Kind("job", "one bulk job: its requests and failures", job_report),
        Kind("upcoming", "renewals to come", upcoming_report),
        Kind("expiring", "certificates that end soon, or have ended", expiring_report),
        Kind("security", "security findings, one row for each", security_report),
        Kind("executors", "agents and sensors", executors_report),
        Kind("notifications", "what was sent to whom, and what became of it", notifications_report),
        Kind("audit", "who did what", audit_report),
    )
}
