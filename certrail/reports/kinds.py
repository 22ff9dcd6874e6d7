"""The kinds of reports, and where their rows come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from certrail.errors import InvalidRequest, NotFound
from certrail.reports.report import Chart, Report
from certrail.store import audit, inventory, request_view
from certrail.store import requests as request_store
from certrail.store.database import transaction
from certrail.store.inventory import Endpoint, parse_filter
from certrail.store.request_view import RequestView, time_text
from certrail.store.schema import executors, jobs, notifications, outbox, requests, steps
from certrail.store.views import View
from certrail.tracker import Status, StepStatus
from certrail.words import counted

_MOST = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report is restricted to.

    Attributes:
        view: which endpoints, in which order, with which columns.
        job: name of a bulk job, for a report on one.
        days: how far back (or ahead, for what is to come) it looks.
        ui_url: where Prefect's pages are, for links.
    """

    view: View = field(default_factory=View)
    job: str = ""
    days: int = 30
    ui_url: str = ""


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


def _endpoints(wanted: Wanted, at: datetime) -> Report:
    rows = [endpoint_row(row, wanted.ui_url) for row in _found(wanted)]
    columns = wanted.view.columns or inventory.COLUMNS
    return Report(
        "endpoints",
        "Endpoints and automation state",
        at,
        [(name, heading(name)) for name in columns],
        rows,
        [
            _chart("By automation status", (Status(r["automation_status"]).text for r in rows)),
            _chart("By issuer", (str(r["issuer"] or "none") for r in rows)),
        ],
    )


def _upcoming(wanted: Wanted, at: datetime) -> Report:
    until = at + timedelta(days=wanted.days)
    rows = _restricted(wanted, f"next_renewal_at<{until.isoformat()}", "next_renewal_at")
    return Report(
        "upcoming",
        f"Renewals of the next {counted(wanted.days, 'day')}",
        at,
        _columns("location", "next_renewal_at", "days_left", "profile", "ca", "target", "tags"),
        rows,
        [
            _by_day("Renewals by day", (row["next_renewal_at"] for row in rows)),
            _chart("By CA", (str(row["ca"] or "none") for row in rows)),
        ],
    )


def _expiring(wanted: Wanted, at: datetime) -> Report:
    rows = _restricted(wanted, f"days_left<{wanted.days}", "days_left")
    return Report(
        "expiring",
        f"Certificates that end within {counted(wanted.days, 'day')}, or have ended",
        at,
        _columns(
            "location", "days_left", "not_after", "automation_status", "issuer", "profile", "risks"
        ),
        rows,
        [_by_day("Ends by day", (row["not_after"] for row in rows))],
    )


def _security(wanted: Wanted, at: datetime) -> Report:
    rows: list[dict[str, Any]] = [
        {
            "location": row["location"],
            "code": finding.get("code"),
            "severity": finding.get("severity"),
            "message": finding.get("message"),
            "remedy": finding.get("remedy"),
            "issuer": row["issuer"],
            "key": row["key"],
            "profile": row["profile"],
        }
        for row in _restricted(wanted, "security_findings!=", wanted.view.sort)
        for finding in row["security_findings"]
    ]
    return Report(
        "security",
        "Security findings",
        at,
        _titled("location", "code", "severity", "message", "remedy", "issuer", "key", "profile"),
        rows,
        [_chart("By finding", (str(row["code"]) for row in rows))],
    )


def _requests(wanted: Wanted, at: datetime) -> Report:
    views = _views(wanted, at)
    rows = [_request_row(view) for view in views]
    taken: Counter[str] = Counter()
    tries: Counter[str] = Counter()
    for view in views:
        for step in view.steps:
            if step.started_at and step.ended_at:
                taken[step.title] += int((step.ended_at - step.started_at).total_seconds() * 1000)
                tries[step.title] += 1
    means = [(title, round(taken[title] / tries[title])) for title in tries]
    return Report(
        "requests",
        f"Requests of the last {counted(wanted.days, 'day')} with the time of each step",
        at,
        _titled(*_request_keys()),
        rows,
        [
            _chart("By status", (view.request.status.text for view in views)),
            Chart("Mean time of a step, milliseconds", means),
        ],
    )


def _job(wanted: Wanted, at: datetime) -> Report:
    if not wanted.job:
        raise InvalidRequest("a report on a job needs its name", remedy="Give --job NAME.")
    with transaction() as connection:
        job = connection.execute(select(jobs).where(jobs.c.name == wanted.job)).first()
    if job is None:
        raise NotFound(
            f"there is no job {wanted.job}", remedy="`certrail job list` shows all of them."
        )
    made = _requests(replace(wanted, days=36500), at)
    rows = [row for row in made.rows if row["job_name"] == wanted.job]
    causes = (str(row["cause"]) for row in rows if row["cause"])
    return Report(
        "job",
        f"Bulk job {wanted.job}: {job.action}, {job.status}",
        at,
        made.columns,
        rows,
        [
            _chart("By status", (Status(row["status"]).text for row in rows)),
            _chart("Failures by cause", causes),
        ],
        about=f"job {wanted.job}",
    )


def _failures(wanted: Wanted, at: datetime) -> Report:
    query = (
        select(
            steps.c.title,
            func.coalesce(steps.c.error, "").label("error"),
            func.max(steps.c.cause).label("cause"),
            func.max(steps.c.remedy).label("remedy"),
            func.count().label("failures"),
            func.count(func.distinct(requests.c.endpoint_id)).label("endpoints"),
            func.max(steps.c.ended_at).label("last_at"),
        )
        .join(requests, requests.c.id == steps.c.request_id)
        .where(
            steps.c.status == StepStatus.FAILED,
            func.coalesce(steps.c.ended_at, requests.c.created_at)
            >= at - timedelta(days=wanted.days),
        )
        .group_by(steps.c.title, steps.c.error)
        .order_by(func.count().desc(), steps.c.title)
    )
    with transaction() as connection:
        rows: list[dict[str, Any]] = [
            {**row._mapping, "last_at": time_text(row.last_at)} for row in connection.execute(query)
        ]
    return Report(
        "failures",
        f"Failures of the last {counted(wanted.days, 'day')} by cause",
        at,
        _titled("title", "error", "failures", "endpoints", "cause", "remedy", "last_at"),
        rows,
        [
            Chart(
                "Failures",
                [(f"{row['title']}: {row['error']}", row["failures"]) for row in rows[:_MOST]],
            )
        ],
    )


def _executors(wanted: Wanted, at: datetime) -> Report:
    keys = ("pool", "name", "host", "version", "started_at", "last_seen_at", "silent_since")
    query = select(executors).order_by(executors.c.pool, executors.c.name)
    return Report("executors", "Agents and sensors", at, _titled(*keys), _plain(query, keys))


def _notifications(wanted: Wanted, at: datetime) -> Report:
    keys = (
        "created_at",
        "event",
        "resource",
        "channel",
        "recipient",
        "status",
        "attempts",
        "subject",
        "ended_at",
        "last_error",
    )
    query = (
        select(notifications, outbox.c.event, outbox.c.resource)
        .join(outbox, outbox.c.id == notifications.c.outbox_id)
        .where(notifications.c.created_at >= at - timedelta(days=wanted.days))
        .order_by(notifications.c.id.desc())
    )
    rows = _plain(query, keys)
    return Report(
        "notifications",
        f"Notifications of the last {counted(wanted.days, 'day')}",
        at,
        _titled(*keys),
        rows,
        [
            _chart("By outcome", (str(row["status"]) for row in rows)),
            _chart("By event", (str(row["event"]) for row in rows)),
        ],
    )


def _audit(wanted: Wanted, at: datetime) -> Report:
    entries = audit.newest(limit=None, since=at - timedelta(days=wanted.days))
    rows = [
        {
            "seq": entry.seq,
            "at": time_text(entry.at),
            "actor": entry.actor,
            "action": entry.action,
            "object": entry.object,
            "detail": dict(entry.detail),
            "hash": entry.hash,
        }
        for entry in entries
    ]
    return Report(
        "audit",
        f"Audit trail of the last {counted(wanted.days, 'day')}",
        at,
        _titled("seq", "at", "actor", "action", "object", "detail", "hash"),
        rows,
        [_chart("By action", (str(row["action"]) for row in rows))],
    )


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("endpoints", "endpoints and automation state; any view", _endpoints),
        Kind("requests", "requests with the time of each step", _requests),
        Kind("failures", "failures by cause, the most frequent first", _failures),
        Kind("job", "one bulk job: its requests and failures", _job),
        Kind("upcoming", "renewals to come", _upcoming),
        Kind("expiring", "certificates that end soon, or have ended", _expiring),
        Kind("security", "security findings, one row for each", _security),
        Kind("executors", "agents and sensors", _executors),
        Kind("notifications", "what was sent to whom, and what became of it", _notifications),
        Kind("audit", "who did what", _audit),
    )
}


def endpoint_row(row: Endpoint, ui_url: str) -> dict[str, Any]:
    """Return the documented keys of one endpoint as plain data."""
    plain = {name: getattr(row, name, None) for name in inventory.COLUMNS}
    return {
        **plain,
        "names": list(row.names),
        "automation_status": str(row.automation_status),
        "request_id": str(row.request_id) if row.request_id else None,
        "not_after": time_text(row.not_after),
        "tags": list(row.tags),
        "last_success_at": time_text(row.last_success_at),
        "next_renewal_at": time_text(row.next_renewal_at),
        "security_findings": [dict(finding) for finding in row.security_findings],
        "flow_run_url": request_view.run_url(ui_url, row.flow_run_id),
        "risks": [risk.to_json() for risk in row.risks],
    }


def heading(key: str) -> str:
    """Return a key as a heading."""
    return _HEADINGS.get(key) or key.replace("_", " ").capitalize()


_HEADINGS = {"not_after": "Valid to", "ca": "CA", "seq": "No.", "took_s": "Took, s"}


def _found(wanted: Wanted) -> Iterable[Endpoint]:
    return inventory.stream(wanted.view.clauses(), sort=wanted.view.sort)


def _restricted(wanted: Wanted, also: str, sort: str) -> list[dict[str, Any]]:
    clauses = [*wanted.view.clauses(), *parse_filter(also)]
    return [endpoint_row(row, wanted.ui_url) for row in inventory.stream(clauses, sort=sort)]


def _views(wanted: Wanted, at: datetime) -> list[RequestView]:
    found = request_store.newest(limit=1_000_000)
    since = at - timedelta(days=wanted.days)
    return request_view.views([r for r in found if r.created_at >= since], ui_url=wanted.ui_url)


def _request_keys() -> tuple[str, ...]:
    steps_ = (f"step_{n}_{what}" for n in range(1, 6) for what in ("title", "status", "s"))
    return (
        "request_id",
        "location",
        "action",
        "workflow",
        "status",
        "job_name",
        "created_at",
        "started_at",
        "ended_at",
        "took_s",
        "cause",
        "remedy",
        *steps_,
    )


def _request_row(view: RequestView) -> dict[str, Any]:
    made = view.to_json()
    request, failed = view.request, view.failed_step
    row: dict[str, Any] = dict.fromkeys(_request_keys())
    row |= {key: made[key] for key in row if key in made}
    row["took_s"] = _seconds(request.started_at, request.ended_at)
    row["cause"] = failed.cause if failed else None
    row["remedy"] = failed.remedy if failed else None
    for step in view.steps:
        row[f"step_{step.number}_title"] = str(step.title)
        row[f"step_{step.number}_status"] = str(step.status)
        row[f"step_{step.number}_s"] = _seconds(step.started_at, step.ended_at)
    return row


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 3) if start and end else None


def _plain(query: Any, keys: Sequence[str]) -> list[dict[str, Any]]:
    with transaction() as connection:
        found = [row._mapping for row in connection.execute(query)]
    return [
        {key: time_text(row[key]) if isinstance(row[key], datetime) else row[key] for key in keys}
        for row in found
    ]


def _chart(title: str, labels: Iterable[str]) -> Chart:
    counts = Counter(labels).most_common()
    rest = sum(count for _, count in counts[_MOST:])
    return Chart(title, [*counts[:_MOST], *([("others", rest)] if rest else [])])


def _by_day(title: str, times: Iterable[str | None]) -> Chart:
    counts = Counter(moment[:10] for moment in times if moment)
    return Chart(title, sorted(counts.items())[:60])


def _columns(*names: str) -> list[tuple[str, str]]:
    return [(name, heading(name)) for name in names]


_titled = _columns
