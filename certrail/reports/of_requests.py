"""Reports on requests: how long their steps took, and why they failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from certrail.errors import InvalidRequest, NotFound
from certrail.reports.report import Chart, Report
from certrail.reports.tables import MOST, Wanted, chart, columns
from certrail.store import request_view
from certrail.store import requests as request_store
from certrail.store.database import transaction
from certrail.store.request_view import RequestView, time_text
from certrail.store.schema import jobs, requests, steps
from certrail.tracker import Status, StepStatus
from certrail.words import counted


def requests_report(wanted: Wanted, at: datetime) -> Report:
    """Requests with the time of each step."""
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
        columns(*_request_keys()),
        rows,
        [
            chart("By status", (view.request.status.text for view in views)),
            Chart("Mean time of a step, milliseconds", means),
        ],
    )


def job_report(wanted: Wanted, at: datetime) -> Report:
    """One bulk job: its requests and failures.

    Raises:
        InvalidRequest: no job was named.
        NotFound: there is no such job.
    """
    if not wanted.job:
        raise InvalidRequest("a report on a job needs its name", remedy="Give --job NAME.")
    with transaction() as connection:
        job = connection.execute(select(jobs).where(jobs.c.name == wanted.job)).first()
    if job is None:
        raise NotFound(
            f"there is no job {wanted.job}", remedy="`certrail job list` shows all of them."
        )
    made = requests_report(replace(wanted, days=36500), at)
    rows = [row for row in made.rows if row["job_name"] == wanted.job]
    causes = (str(row["cause"]) for row in rows if row["cause"])
    return Report(
        "job",
        f"Bulk job {wanted.job}: {job.action}, {job.status}",
        at,
        made.columns,
        rows,
        [
            chart("By status", (Status(row["status"]).text for row in rows)),
            chart("Failures by cause", causes),
        ],
        about=f"job {wanted.job}",
    )


def failures_report(wanted: Wanted, at: datetime) -> Report:
    """Failures by cause."""
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
        columns("title", "error", "failures", "endpoints", "cause", "remedy", "last_at"),
        rows,
        [
            Chart(
                "Failures",
                [(f"{row['title']}: {row['error']}", row["failures"]) for row in rows[:MOST]],
            )
        ],
    )


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
