"""How a bulk job ends: what has not begun is dropped, and one event tells of all endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    any_,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.jobs.status import OPEN, Counts, JobStatus
from certrail.store import audit, clock, outbox
from certrail.store.database import transaction
from certrail.store.job_results import causes, counts, failed_locations
from certrail.store.requests import selected
from certrail.store.schema import endpoints, job_members, job_shards, jobs, requests, steps
from certrail.tracker import ACTIVE, Status, StepStatus

_CAUSES_TOLD = 5
_NAMES_TOLD = 50


def stop(job_id: UUID, code: str, message: str, *, actor: str) -> None:
    """Note why the job begins no more endpoints; the first reason stays."""
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.stop_code.is_(None))
            .values(stop_code=code, stop_message=message)
            .returning(jobs.c.name)
        ).first()
        if row is not None:
            told = {"job_id": str(job_id), "code": code, "message": message}
            audit.note(connection, actor, "job.stop", row.name, told)


def drop(job_id: UUID) -> int:
    """Cancel the requests that have not begun, or that nobody runs any more."""
    with transaction() as connection:
        return drop_requests(connection, job_id)


def drop_shard(job_id: UUID, number: int) -> int:
    """Cancel the requests of one shard that have not begun, or that nobody runs any more."""
    of_it = select(job_members.c.request_id).where(
        job_members.c.job_id == job_id, job_members.c.shard == number
    )
    with transaction() as connection:
        return drop_requests(connection, job_id, requests.c.id.in_(of_it))


def finish(job_id: UUID, status: JobStatus, message: str, *, actor: str) -> None:
    """End a job: final status, no lease, one event for all of its endpoints. Twice is quiet.

    A job that ends otherwise than as failed, and in which something failed, has a
    second event for it.

    Args:
        job_id: the job.
        status: how it ended.
        message: the same for people, with numbers.
        actor: who ends it, for the audit trail: a worker, a repair, a person.
    """
    event = "completed" if status is JobStatus.COMPLETED else "failed"
    if status is JobStatus.CANCELLED:
        event = "cancelled"
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.status.in_(OPEN))
            .values(status=status, lease_owner=None, lease_until=None, ended_at=func.now())
            .returning(jobs.c.name)
        ).first()
        if row is not None:
            sums = announce(connection, f"certrail.job.{event}", job_id, row.name, message=message)
            if sums.failed and status is not JobStatus.FAILED:
                in_part = "certrail.job.failed-in-part"
                announce(connection, in_part, job_id, row.name, message=message)
            _free_shards(connection, job_shards.c.job_id == job_id)
            told = {"job_id": str(job_id), "status": str(status), "message": message}
            audit.note(connection, actor, "job.end", row.name, told)


def free_shards() -> int:
    """Take the shards of jobs that are over from workers that died with them; returns how many."""
    over = select(jobs.c.id).where(jobs.c.status.not_in(OPEN))
    with transaction() as connection:
        return _free_shards(connection, job_shards.c.job_id.in_(over))


def _free_shards(connection: Connection, which: ColumnElement[bool]) -> int:
    # A worker that lives gives its shard back itself, when it has let go of its endpoints.
    freed = connection.execute(
        update(job_shards)
        .where(which, clock.is_over(job_shards.c.lease_until))
        .values(lease_owner=None, lease_until=None)
        .returning(job_shards.c.number)
    )
    return len(freed.all())


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that is over, by its flow run."""

    flow_run_id: UUID
    location: str
    status: Status


def ended(runs: Mapping[UUID, UUID]) -> list[Ended]:
    """Return those flow runs whose request is over.

    Args:
        runs: the requests, by flow run: also runs of which their request does not know yet.
    """
    query = selected().where(
        requests.c.id.in_(list(runs.values())), requests.c.status.not_in(ACTIVE)
    )
    with transaction() as connection:
        over = {row.id: row for row in connection.execute(query)}
    return [
        Ended(run_id, over[request_id].location, Status(over[request_id].status))
        for run_id, request_id in runs.items()
        if request_id in over
    ]


def drop_requests(connection: Connection, job_id: UUID, *only: ColumnElement[bool]) -> int:
    dropped = {
        row.id: row.endpoint_id
        for row in connection.execute(
            update(requests)
            .where(
                requests.c.job_id == job_id,
                requests.c.status.in_(ACTIVE),
                clock.is_free(requests.c.lease_until),
                *only,
            )
            .values(
                status=Status.CANCELLED, lease_owner=None, lease_until=None, ended_at=func.now()
            )
            .returning(requests.c.id, requests.c.endpoint_id)
        )
    }
    if dropped:
        connection.execute(
            update(steps)
            .where(
                steps.c.request_id.in_(list(dropped)),
                steps.c.status.in_((StepStatus.PENDING, StepStatus.RUNNING)),
            )
            .values(status=StepStatus.CANCELLED)
        )
        _decide_anew(connection, list(dropped.values()))
    return len(dropped)


def _decide_anew(connection: Connection, endpoint_ids: Sequence[UUID]) -> None:
    """Let the next sweep decide when these endpoints renew: a pause begins for them."""
    # Locked in one order, as the sweep locks them: none waits for the other.
    those = endpoints.c.id == any_(literal(list(endpoint_ids), ARRAY(UUID_)))
    locked = select(endpoints.c.id).where(those).order_by(endpoints.c.id)
    connection.execute(locked.with_for_update(key_share=True))
    connection.execute(update(endpoints).where(those).values(renewal_decided_at=None))


def announce(connection: Connection, event: str, job_id: UUID, name: str, **payload: Any) -> Counts:
    """Put an event of the job into the outbox, with its sums and its most frequent failures.

    Returns the sums.
    """
    run = connection.execute(select(jobs.c.flow_run_id).where(jobs.c.id == job_id)).scalar_one()
    sums = counts([job_id])[job_id]
    if sums.failed:
        payload["failures"] = [
            {
                "count": cause.count,
                "different": cause.different,
                "step": cause.step,
                "cause": cause.message,
                "remedy": cause.remedy,
                "example": cause.example,
            }
            for cause in causes(job_id)[:_CAUSES_TOLD]
        ]
        payload["failed_endpoints"] = failed_locations(job_id, limit=_NAMES_TOLD)
    outbox.put(
        connection,
        event,
        name,
        resource=f"certrail.job.{name}",
        job_name=name,
        job_id=str(job_id),
        flow_run_id=str(run) if run else None,
        counts=sums.to_json(),
        **payload,
    )
    return sums
