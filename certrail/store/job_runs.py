"""Who runs a bulk job: its lease, its flow run, and what people want of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    func,
    or_,
    update,
)

from certrail.errors import JournalConflict
from certrail.jobs.status import JobStatus
from certrail.store import clock
from certrail.store.database import transaction
from certrail.store.job_ends import announce
from certrail.store.jobs import Job, by_id
from certrail.store.schema import jobs


@dataclass(frozen=True, slots=True)
class Wishes:
    """What whoever runs a part of the job has to know.

    Attributes:
        pause: no more endpoints are begun; the job goes on later.
        end: no more endpoints are begun, for good.
    """

    pause: bool
    end: bool

    @property
    def hold(self) -> bool:
        """Whether no more endpoints are begun now."""
        return self.pause or self.end


def take(job_id: UUID, owner: str, lease: timedelta) -> Job:
    """Begin or go on with a job.

    Raises:
        JournalConflict: another run holds it.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, free_for(jobs.c, owner))
            .values(
                lease_owner=owner,
                lease_until=clock.lease(lease),
                run_count=jobs.c.run_count + 1,
                taken_at=func.now(),
            )
            .returning(jobs.c.name)
        ).first()
    job = by_id(job_id)
    if row is None:
        raise JournalConflict(f"{job.lease_owner} holds the job {job.name}")
    return job


def begin(job_id: UUID) -> None:
    """Set a job running and, the first time, put the event in the outbox."""
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.status.in_((JobStatus.SCHEDULED, JobStatus.PAUSED)))
            .values(
                status=JobStatus.RUNNING, started_at=func.coalesce(jobs.c.started_at, func.now())
            )
            .returning(jobs.c.name, jobs.c.started_at, func.now().label("now"))
        ).first()
        if row is not None and row.started_at == row.now:
            announce(connection, "certrail.job.started", job_id, row.name)


def renew(job_id: UUID, owner: str, lease: timedelta) -> Wishes:
    """Extend the job's lease; returns what is wanted of it.

    Raises:
        JournalConflict: another run holds it.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.lease_owner == owner)
            .values(lease_until=clock.lease(lease))
            .returning(jobs)
        ).first()
    if row is None:
        raise JournalConflict("another run holds the job now")
    return wishes(row)


def release(job_id: UUID, owner: str) -> None:
    """Give the job's lease back."""
    with transaction() as connection:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.lease_owner == owner)
            .values(lease_owner=None, lease_until=None)
        )


def bind(job_id: UUID, flow_run_id: UUID) -> None:
    """Note which Prefect flow run carries the job."""
    with transaction() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(flow_run_id=flow_run_id))


def wishes(row: Row[Any]) -> Wishes:
    over = JobStatus(row.status).is_over
    return Wishes(
        pause=row.pause_requested,
        end=over or row.cancel_requested or row.stop_code is not None,
    )


def free_for(columns: Any, owner: str) -> ColumnElement[bool]:
    return or_(clock.is_free(columns.lease_until), columns.lease_owner == owner)
