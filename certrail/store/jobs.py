"""Bulk automation jobs, as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, or_, select

from certrail.errors import NotFound
from certrail.jobs.status import OPEN, JobStatus
from certrail.jobs.threshold import Threshold
from certrail.model import Action
from certrail.store import clock
from certrail.store.database import transaction
from certrail.store.schema import (
    jobs,
)


@dataclass(frozen=True, slots=True)
class Job:
    """One bulk automation job.

    Attributes:
        action: of all its requests, None for what each endpoint needed.
        concurrency: how many endpoints run at the same time.
        threshold: how many failures it puts up with, None if none was given.
        canary: whether its first wave is a canary.
        stop_code, stop_message: why it begins no more endpoints, where it decided so itself.
        taken_at: when a worker took it last: it began, or went on after a pause, retry or crash.
    """

    id: UUID
    name: str
    action: Action | None
    status: JobStatus
    concurrency: int
    threshold: Threshold | None
    canary: bool
    in_window: bool
    requested_by: str
    flow_run_id: UUID | None
    run_count: int
    lease_owner: str | None
    is_held: bool
    pause_requested: bool
    cancel_requested: bool
    stop_code: str | None
    stop_message: str | None
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    taken_at: datetime | None = None

    @property
    def flow_run_name(self) -> str:
        """The name that Prefect shows."""
        return f"job {self.name}"

    @property
    def tag(self) -> str:
        """The one tag of its runs in Prefect."""
        return f"job:{self.name}"


def exists(name: str) -> bool:
    """Return whether a job has that name."""
    with transaction() as connection:
        return connection.execute(select(jobs.c.id).where(jobs.c.name == name)).first() is not None


def get(name: str) -> Job:
    """Return the job of that name.

    Raises:
        NotFound: there is none.
    """
    with transaction() as connection:
        row = connection.execute(_select().where(jobs.c.name == name)).first()
    if row is None:
        raise NotFound(f"there is no job {name}", remedy="List them with `certrail job list`.")
    return _read(row)


def by_id(job_id: UUID) -> Job:
    """Return a job.

    Raises:
        NotFound: there is none with that id.
    """
    with transaction() as connection:
        row = connection.execute(_select().where(jobs.c.id == job_id)).first()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return _read(row)


def newest(limit: int = 50) -> list[Job]:
    """Return jobs, newest first."""
    with transaction() as connection:
        rows = connection.execute(_select().order_by(jobs.c.created_at.desc()).limit(limit))
        return [_read(row) for row in rows]


def unattended(older_than: timedelta) -> list[Job]:
    """Return open jobs that no living worker holds, those that pause too."""
    query = _select().where(
        jobs.c.status.in_(OPEN),
        or_(
            clock.is_over(jobs.c.lease_until),
            jobs.c.lease_until.is_(None) & clock.is_older(jobs.c.created_at, older_than),
        ),
    )
    with transaction() as connection:
        return [_read(row) for row in connection.execute(query)]


def _select() -> Any:
    return select(jobs, clock.is_held(jobs.c.lease_until).label("is_held"))


def _read(row: Row[Any]) -> Job:
    settings = row.settings
    text = settings.get("max_failures")
    return Job(
        id=row.id,
        name=row.name,
        action=Action(row.action) if row.action else None,
        status=JobStatus(row.status),
        concurrency=int(settings.get("concurrency", 1)),
        threshold=Threshold.parse(text) if text is not None else None,
        canary=bool(settings.get("canary", False)),
        in_window=bool(settings.get("in_window", False)),
        requested_by=row.requested_by,
        flow_run_id=row.flow_run_id,
        run_count=row.run_count,
        lease_owner=row.lease_owner,
        is_held=row.is_held,
        pause_requested=row.pause_requested,
        cancel_requested=row.cancel_requested,
        stop_code=row.stop_code,
        stop_message=row.stop_message,
        created_at=row.created_at,
        scheduled_at=row.scheduled_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        taken_at=row.taken_at,
    )
