"""The endpoints of a bulk job: how many are in which state, what became of each, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Text, and_, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from certrail.jobs.holdups import Waiting
from certrail.jobs.status import GROUPS, Counts
from certrail.jobs.threshold import Wave
from certrail.jobs.waves import Route
from certrail.store.database import transaction
from certrail.store.jobs import Job
from certrail.store.schema import (
    job_members,
    job_shards,
    jobs,
    requests,
    steps,
)
from certrail.tracker import (
    ACTIVE,
    FAILED,
    Status,
    StepStatus,
)


def counts(job_ids: Sequence[UUID]) -> dict[UUID, Counts]:
    """Return how many endpoints of each job are in which state."""
    query = (
        select(job_members.c.job_id, *_counted())
        .select_from(_MEMBERS)
        .where(job_members.c.job_id.in_(job_ids))
        .group_by(job_members.c.job_id)
    )
    with transaction() as connection:
        found = {row.job_id: _counts(row) for row in connection.execute(query)}
    return {job_id: found.get(job_id, Counts()) for job_id in job_ids}


def waves(job: Job) -> list[Wave]:
    """Return the waves with the states of their endpoints."""
    reopened = select(jobs.c.reopened_at).where(jobs.c.id == job.id).scalar_subquery()
    earlier = and_(requests.c.status.in_(FAILED), requests.c.ended_at <= reopened)
    query = (
        select(job_members.c.wave, func.count().filter(earlier).label("earlier"), *_counted())
        .select_from(_MEMBERS)
        .where(job_members.c.job_id == job.id, job_members.c.wave.is_not(None))
        .group_by(job_members.c.wave)
        .order_by(job_members.c.wave)
    )
    with transaction() as connection:
        return [
            Wave(row.wave, job.canary and row.wave == 1, _counts(row), row.earlier)
            for row in connection.execute(query)
        ]


def over_now(job: Job) -> int:
    """Return how many endpoints of the job are over since a worker took it last."""
    if job.taken_at is None:
        return 0
    query = select(func.count()).where(
        requests.c.job_id == job.id, requests.c.ended_at >= job.taken_at
    )
    with transaction() as connection:
        return int(connection.execute(query).scalar_one())


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures of one kind, in one step, in a job.

    Attributes:
        count: how many endpoints failed with it.
        different: how many messages they had, not counting each one's own name in it.
        example: the first of them in the job's order; *message* and *remedy* are its.
    """

    error: str
    step: str
    count: int
    different: int
    example: str
    message: str
    remedy: str


def causes(job_id: UUID) -> list[Cause]:
    """Return why endpoints of the job failed, the most frequent cause first."""
    error = func.coalesce(steps.c.error, "unknown")
    host = func.split_part(job_members.c.location, ":", 1)

    def first(column: ColumnElement[str]) -> ColumnElement[str]:
        # Of one and the same row: another's message beside a location would mislead.
        ordered = aggregate_order_by(column, job_members.c.position)
        return func.array_agg(ordered, type_=ARRAY(Text))[1]

    query = (
        select(
            error.label("error"),
            steps.c.title.label("step"),
            func.count().label("failures"),
            func.count(func.replace(steps.c.cause, host, "").distinct()).label("different"),
            first(job_members.c.location).label("example"),
            first(steps.c.cause).label("cause"),
            first(steps.c.remedy).label("remedy"),
        )
        .select_from(
            job_members.join(requests, requests.c.id == job_members.c.request_id).join(
                steps, steps.c.request_id == requests.c.id
            )
        )
        .where(
            job_members.c.job_id == job_id,
            requests.c.status.in_(FAILED),
            steps.c.status == StepStatus.FAILED,
        )
        .group_by(error, steps.c.title)
        .order_by(func.count().desc(), error, steps.c.title)
    )
    with transaction() as connection:
        return [
            Cause(
                error=row.error,
                step=row.step,
                count=row.failures,
                different=row.different,
                example=row.example,
                message=row.cause,
                remedy=row.remedy,
            )
            for row in connection.execute(query)
        ]


def failed_locations(job_id: UUID, *, limit: int) -> list[str]:
    """Return the first endpoints of the job that failed, in the job's order."""
    query = (
        select(job_members.c.location)
        .select_from(_MEMBERS)
        .where(job_members.c.job_id == job_id, requests.c.status.in_(FAILED))
        .order_by(job_members.c.position)
        .limit(limit)
    )
    with transaction() as connection:
        return list(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of a job, for lists: *status* is None where it does not take part."""

    position: int
    location: str
    wave: int | None
    status: Status | None
    request_id: UUID | None
    flow_run_id: UUID | None
    code: str | None
    message: str | None
    seconds: float | None


def members(job_id: UUID) -> list[Member]:
    """Return every endpoint of a job in its order, with what became of it."""
    failed = (
        select(func.concat(steps.c.title, ": ", steps.c.cause))
        .where(steps.c.request_id == requests.c.id, steps.c.status == StepStatus.FAILED)
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(
            job_members,
            requests.c.status,
            requests.c.flow_run_id,
            func.extract("epoch", requests.c.ended_at - requests.c.started_at).label("seconds"),
            failed.label("cause"),
        )
        .select_from(_MEMBERS)
        .where(job_members.c.job_id == job_id)
        .order_by(job_members.c.position)
    )
    with transaction() as connection:
        return [
            Member(
                position=row.position,
                location=row.location,
                wave=row.wave,
                status=Status(row.status) if row.status else None,
                request_id=row.request_id,
                flow_run_id=row.flow_run_id,
                code=row.reason_code,
                message=row.reason_message or row.cause,
                seconds=float(row.seconds) if row.seconds is not None else None,
            )
            for row in connection.execute(query)
        ]


def open_profiles(job_id: UUID) -> list[str]:
    """Return the profiles of the endpoints whose requests are not over."""
    name = requests.c.plan["profile"].astext
    query = (
        select(name).distinct().where(requests.c.job_id == job_id, requests.c.status.in_(ACTIVE))
    )
    with transaction() as connection:
        return list(connection.execute(query).scalars())


def waiting(job_id: UUID) -> list[Waiting]:
    """Return the endpoints of a job that have not begun, by what they may wait for."""
    profile = requests.c.plan["profile"].astext
    asked = requests.c.status == Status.APPROVAL_PENDING
    route = (job_shards.c.pool, job_shards.c.queue)
    query = (
        select(*route, profile.label("profile"), asked.label("asked"), func.count().label("left"))
        .select_from(
            job_members.join(requests, requests.c.id == job_members.c.request_id).join(
                job_shards,
                and_(
                    job_shards.c.job_id == job_members.c.job_id,
                    job_shards.c.number == job_members.c.shard,
                ),
            )
        )
        .where(
            job_members.c.job_id == job_id,
            requests.c.status.in_(ACTIVE),
            requests.c.status != Status.IN_PROGRESS,
        )
        .group_by(*route, profile, asked)
    )
    with transaction() as connection:
        return [
            Waiting(Route(row.pool, row.queue), row.profile, row.asked, row.left)
            for row in connection.execute(query)
        ]


_MEMBERS = job_members.outerjoin(requests, requests.c.id == job_members.c.request_id)


def _counted() -> list[Any]:
    return [
        func.count().label("total"),
        func.count().filter(job_members.c.request_id.is_(None)).label("skipped"),
        *(
            func.count().filter(requests.c.status.in_(statuses)).label(name)
            for name, statuses in GROUPS.items()
        ),
    ]


def _counts(row: Row[Any]) -> Counts:
    return Counts(**{name: row._mapping[name] for name in ("total", "skipped", *GROUPS)})
