"""Requests, steps and jobs as they are compared with Prefect's records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Text, any_, cast, func, literal, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.agreement import RequestRow, StepRow
from certrail.jobs.agreement import JobRow, ShardRow
from certrail.jobs.status import OPEN, JobStatus
from certrail.model import Action, Workflow
from certrail.store.database import transaction
from certrail.store.schema import endpoints, job_shards, jobs, requests, steps
from certrail.tracker import ACTIVE, Status, StepStatus, Title


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests are looked at.

    Attributes:
        since: those that were made after it; so too of jobs.
        job: name of a bulk job, None for all.
        locations: of endpoints; empty for all.
    """

    since: datetime | None = None
    job: str | None = None
    locations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """How the request that a flow run carries ended."""

    location: str
    status: Status


def ended(flow_run_ids: Sequence[UUID], older_than: timedelta) -> dict[UUID, Ended]:
    """Return by flow run those requests that have been over for longer than *older_than*."""
    query = (
        select(requests.c.flow_run_id, requests.c.status, endpoints.c.location)
        .select_from(requests.join(endpoints, requests.c.endpoint_id == endpoints.c.id))
        .where(
            requests.c.flow_run_id == any_(literal(list(flow_run_ids), ARRAY(UUID_))),
            requests.c.status.not_in(ACTIVE),
            requests.c.ended_at < func.now() - older_than,
        )
    )
    with transaction() as connection:
        return {
            row.flow_run_id: Ended(row.location, Status(row.status))
            for row in connection.execute(query)
        }


@dataclass(frozen=True, slots=True)
class EndedJob:
    """How the bulk job ended that a flow run carries, or of which it carries a shard."""

    name: str
    status: JobStatus
    is_shard: bool


def ended_jobs(flow_run_ids: Sequence[UUID], older_than: timedelta) -> dict[UUID, EndedJob]:
    """Return by flow run those jobs that have been over for longer than *older_than*."""
    wanted = any_(literal(list(flow_run_ids), ARRAY(UUID_)))
    over = (jobs.c.status.not_in(OPEN), jobs.c.ended_at < func.now() - older_than)
    whole = select(jobs.c.flow_run_id, jobs.c.name, jobs.c.status, literal(False).label("is_shard"))
    parts = select(
        job_shards.c.flow_run_id, jobs.c.name, jobs.c.status, literal(True).label("is_shard")
    ).join(jobs, jobs.c.id == job_shards.c.job_id)
    query = union_all(
        whole.where(jobs.c.flow_run_id == wanted, *over),
        parts.where(job_shards.c.flow_run_id == wanted, *over),
    )
    with transaction() as connection:
        return {
            row.flow_run_id: EndedJob(row.name, JobStatus(row.status), row.is_shard)
            for row in connection.execute(query)
        }


def active(request_ids: Sequence[str]) -> set[str]:
    """Return which of these requests are under way, waiting or scheduled."""
    query = select(requests.c.id).where(
        cast(requests.c.id, Text) == any_(literal(list(request_ids), ARRAY(Text))),
        requests.c.status.in_(ACTIVE),
    )
    with transaction() as connection:
        return {str(found) for found in connection.execute(query).scalars()}


def pages(scope: Scope, size: int) -> Iterator[list[RequestRow]]:
    """Yield the requests of *scope*, *size* at a time."""
    last: UUID | None = None
    while True:
        query = _query().order_by(requests.c.id).limit(size)
        if scope.since:
            query = query.where(requests.c.created_at >= scope.since)
        if scope.job:
            query = query.where(jobs.c.name == scope.job)
        if scope.locations:
            query = query.where(endpoints.c.location.in_([x.lower() for x in scope.locations]))
        if last:
            query = query.where(requests.c.id > last)
        found = _rows(query)
        if not found:
            return
        yield found
        last = found[-1].id


def rows(ids: Sequence[UUID]) -> list[RequestRow]:
    """Return the requests with these ids."""
    return _rows(_query().where(requests.c.id == any_(literal(list(ids), ARRAY(UUID_)))))


def jobs_over(scope: Scope) -> list[JobRow]:
    """Return the jobs of *scope* that are over, with their shards; none for single endpoints."""
    if scope.locations:
        return []
    listed = (
        select(
            func.json_agg(
                aggregate_order_by(
                    func.json_build_array(job_shards.c.number, job_shards.c.flow_run_id),
                    job_shards.c.number,
                )
            )
        )
        .where(job_shards.c.job_id == jobs.c.id)
        .correlate(jobs)
        .scalar_subquery()
    )
    query = (
        select(jobs, listed.label("shards"))
        .where(jobs.c.status.not_in(OPEN))
        .order_by(jobs.c.created_at)
    )
    if scope.since:
        query = query.where(jobs.c.created_at >= scope.since)
    if scope.job:
        query = query.where(jobs.c.name == scope.job)
    with transaction() as connection:
        return [
            JobRow(
                id=row.id,
                name=row.name,
                status=JobStatus(row.status),
                run_count=row.run_count,
                flow_run_id=row.flow_run_id,
                shards=tuple(
                    ShardRow(number, UUID(run) if run else None) for number, run in row.shards or ()
                ),
            )
            for row in connection.execute(query)
        ]


def over_since(
    begin: datetime, older_than: timedelta, limit: int
) -> tuple[list[RequestRow], datetime]:
    """Return requests that ended after *begin* and longer than *older_than* ago, oldest first.

    And the moment up to which they are all: *begin* of the next call.
    """
    with transaction() as connection:
        until = connection.execute(select(func.now() - older_than)).scalar_one()
        ended_at = requests.c.ended_at
        kept = (requests.c.flow_run_id.is_not(None), requests.c.status.not_in(ACTIVE))
        query = select(requests.c.id, ended_at).where(*kept, ended_at > begin, ended_at <= until)
        # With all of the last moment, since the requests of a cancelled job end at one.
        query = query.order_by(ended_at).fetch(limit, with_ties=True)
        found = connection.execute(query).all()
    reached: datetime = found[-1].ended_at if len(found) >= limit else until
    return rows([row.id for row in found]), reached


def _query() -> Any:
    listed = (
        select(
            func.json_agg(
                aggregate_order_by(
                    func.json_build_array(
                        steps.c.number,
                        steps.c.title,
                        steps.c.status,
                        steps.c.detail,
                        steps.c.cause,
                    ),
                    steps.c.number,
                )
            )
        )
        .where(steps.c.request_id == requests.c.id)
        .correlate(requests)
        .scalar_subquery()
    )
    return select(
        requests.c.id,
        requests.c.workflow,
        requests.c.action,
        requests.c.status,
        requests.c.run_count,
        requests.c.flow_run_id,
        requests.c.started_at,
        endpoints.c.location,
        jobs.c.name.label("job_name"),
        listed.label("steps"),
    ).select_from(
        requests.join(endpoints, requests.c.endpoint_id == endpoints.c.id).outerjoin(
            jobs, requests.c.job_id == jobs.c.id
        )
    )


def _rows(query: Any) -> list[RequestRow]:
    with transaction() as connection:
        return [_read(row) for row in connection.execute(query)]


def _read(row: Row[Any]) -> RequestRow:
    return RequestRow(
        id=row.id,
        location=row.location,
        workflow=Workflow(row.workflow),
        action=Action(row.action),
        status=Status(row.status),
        run_count=row.run_count,
        flow_run_id=row.flow_run_id,
        job_name=row.job_name,
        started_at=row.started_at,
        steps=tuple(
            StepRow(number, Title(title), StepStatus(status), detail, cause)
            for number, title, status, detail, cause in row.steps or ()
        ),
    )
