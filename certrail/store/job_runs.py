"""The life of a bulk job: who holds it and its shards, what people want of it, how it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from certrail.configuration import Plan
from certrail.errors import InvalidRequest, JournalConflict
from certrail.jobs.status import OPEN, JobStatus
from certrail.jobs.waves import Lane, Route
from certrail.store import audit, outbox
from certrail.store.database import transaction
from certrail.store.jobs import Job, by_id, counts
from certrail.store.requests import Request, read, selected
from certrail.store.schema import job_members, job_shards, jobs, requests, steps
from certrail.tracker import ACTIVE, FAILED, SUCCESSFUL, Status, StepStatus


@dataclass(frozen=True, slots=True)
class ShardState:
    """A shard as it stands.

    Attributes:
        places: how many endpoints it runs at the same time; 0: its turn has not come yet.
        is_held: a living worker has it.
        left: endpoints whose request can run now.
        task_run_id: in the job's flow run; the endpoints' runs have it as parent.
    """

    job_id: UUID
    number: int
    wave: int
    route: Route
    lane: Lane
    size: int
    places: int
    flow_run_id: UUID | None
    task_run_id: UUID | None
    run_count: int
    lease_owner: str | None
    is_held: bool
    left: int


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
            .where(jobs.c.id == job_id, _free(jobs.c, owner))
            .values(
                lease_owner=owner,
                lease_until=func.now() + lease,
                run_count=jobs.c.run_count + 1,
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
            _announce(connection, "certrail.job.started", job_id, row.name)


def renew(job_id: UUID, owner: str, lease: timedelta) -> Wishes:
    """Extend the job's lease; returns what is wanted of it.

    Raises:
        JournalConflict: another run holds it.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.lease_owner == owner)
            .values(lease_until=func.now() + lease)
            .returning(jobs)
        ).first()
    if row is None:
        raise JournalConflict("another run holds the job now")
    return _wishes(row)


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


def shards(job_id: UUID, wave: int) -> list[ShardState]:
    """Return the shards of a wave."""
    left = (
        select(func.count())
        .select_from(job_members.join(requests, requests.c.id == job_members.c.request_id))
        .where(
            job_members.c.job_id == job_shards.c.job_id,
            job_members.c.shard == job_shards.c.number,
            _runnable(),
        )
        .correlate(job_shards)
        .scalar_subquery()
    )
    query = (
        select(job_shards, _held(job_shards.c).label("is_held"), left.label("left"))
        .where(job_shards.c.job_id == job_id, job_shards.c.wave == wave)
        .order_by(job_shards.c.number)
    )
    with transaction() as connection:
        return [_shard(row) for row in connection.execute(query)]


def bind_shard(
    job_id: UUID,
    number: int,
    *,
    flow_run_id: UUID | None = None,
    task_run_id: UUID | None = None,
    places: int | None = None,
) -> None:
    """Note the flow run that carries a shard, the task run that it hangs from, its places."""
    given = {"flow_run_id": flow_run_id, "task_run_id": task_run_id, "places": places}
    with transaction() as connection:
        connection.execute(
            update(job_shards)
            .where(job_shards.c.job_id == job_id, job_shards.c.number == number)
            .values({name: value for name, value in given.items() if value})
        )


def take_shard(job_id: UUID, number: int, owner: str, lease: timedelta) -> ShardState:
    """Begin or go on with a shard.

    Raises:
        JournalConflict: another run holds it.
        InvalidRequest: there is no such shard.
    """
    with transaction() as connection:
        row = connection.execute(
            update(job_shards)
            .where(
                job_shards.c.job_id == job_id,
                job_shards.c.number == number,
                _free(job_shards.c, owner),
            )
            .values(
                lease_owner=owner,
                lease_until=func.now() + lease,
                run_count=job_shards.c.run_count + 1,
            )
            .returning(job_shards.c.wave)
        ).first()
        found = connection.execute(
            select(job_shards.c.wave, job_shards.c.lease_owner).where(
                job_shards.c.job_id == job_id, job_shards.c.number == number
            )
        ).first()
    if found is None:
        raise InvalidRequest(f"there is no shard {number} of the job {job_id}")
    if row is None:
        raise JournalConflict(f"{found.lease_owner} holds the shard")
    return next(one for one in shards(job_id, found.wave) if one.number == number)


def renew_shard(
    job_id: UUID, number: int, owner: str, lease: timedelta, running: Sequence[UUID]
) -> tuple[Wishes, set[UUID]]:
    """Extend the shard's lease; returns what is wanted of it and of its *running* requests.

    Raises:
        JournalConflict: another run holds it.
    """
    with transaction() as connection:
        held = connection.execute(
            update(job_shards)
            .where(
                job_shards.c.job_id == job_id,
                job_shards.c.number == number,
                job_shards.c.lease_owner == owner,
            )
            .values(lease_until=func.now() + lease)
            .returning(job_shards.c.number)
        ).first()
        if held is None:
            raise JournalConflict("another run holds the shard now")
        row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one()
        cancelled = connection.execute(
            select(requests.c.id).where(requests.c.id.in_(running), requests.c.cancel_requested)
        )
        return _wishes(row), {one.id for one in cancelled}


def release_shard(job_id: UUID, number: int, owner: str) -> None:
    """Give the shard's lease back."""
    with transaction() as connection:
        connection.execute(
            update(job_shards)
            .where(
                job_shards.c.job_id == job_id,
                job_shards.c.number == number,
                job_shards.c.lease_owner == owner,
            )
            .values(lease_owner=None, lease_until=None)
        )


def open_requests(job_id: UUID, shard: int) -> list[Request]:
    """Return the requests of a shard that are not over and that nobody runs, in their order."""
    query = (
        selected()
        .join(job_members, job_members.c.request_id == requests.c.id)
        .where(
            job_members.c.job_id == job_id,
            job_members.c.shard == shard,
            _runnable(),
            or_(requests.c.lease_until.is_(None), requests.c.lease_until < func.now()),
        )
        .order_by(job_members.c.position)
    )
    with transaction() as connection:
        return [read(row) for row in connection.execute(query)]


def bind_runs(pairs: Iterable[tuple[UUID, UUID]]) -> None:
    """Note which flow run carries which request: pairs of request and flow run."""
    listed = dict(pairs)
    if not listed:
        return
    with transaction() as connection:
        connection.execute(
            update(requests)
            .where(requests.c.id.in_(listed))
            .values(flow_run_id=case(listed, value=requests.c.id))
        )


def ask_to_pause(job: Job, actor: str) -> None:
    """Begin no more endpoints until somebody resumes the job.

    Raises:
        InvalidRequest: it is over, or pauses already.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.status.in_(OPEN), ~jobs.c.pause_requested)
            .values(pause_requested=True)
            .returning(jobs.c.id)
        ).first()
        if row is None:
            raise InvalidRequest(
                f"the job {job.name} is {job.status.text.lower()}"
                + (" and pauses already" if job.pause_requested else ""),
                remedy="Only a job that is scheduled or runs can be paused.",
            )
        audit.note(connection, actor, "job.pause", job.name)


def paused(job_id: UUID, owner: str) -> bool:
    """Note that nothing of the job runs any more; False when it was resumed meanwhile."""
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(
                jobs.c.id == job_id,
                jobs.c.lease_owner == owner,
                jobs.c.pause_requested,
                jobs.c.status.in_(OPEN),
            )
            .values(status=JobStatus.PAUSED, lease_owner=None, lease_until=None)
            .returning(jobs.c.name)
        ).first()
        if row is not None:
            _announce(connection, "certrail.job.paused", job_id, row.name)
    return row is not None


def resume(job: Job, actor: str) -> None:
    """Take a pause back.

    Raises:
        InvalidRequest: the job does not pause.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.status.in_(OPEN), jobs.c.pause_requested)
            .values(
                pause_requested=False,
                status=case(
                    (jobs.c.status == JobStatus.PAUSED, JobStatus.RUNNING.value),
                    else_=jobs.c.status,
                ),
            )
            .returning(jobs.c.id)
        ).first()
        if row is None:
            raise InvalidRequest(
                f"the job {job.name} is {job.status.text.lower()}, it does not pause",
                remedy="`certrail job retry` runs the failed endpoints of a job that is over.",
            )
        audit.note(connection, actor, "job.resume", job.name)


def ask_to_cancel(job: Job, actor: str) -> int:
    """Cancel what has not begun; ask what runs to stop at its next safe point.

    Returns how many requests had not begun.

    Raises:
        InvalidRequest: the job is over.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.status.in_(OPEN))
            .values(cancel_requested=True, pause_requested=False)
            .returning(jobs.c.id)
        ).first()
        if row is None:
            raise InvalidRequest(
                f"the job {job.name} is {job.status.text.lower()}",
                remedy="There is nothing to cancel.",
            )
        audit.note(connection, actor, "job.cancel", job.name)
        cancelled = _drop(connection, job.id)
        connection.execute(
            update(requests)
            .where(requests.c.job_id == job.id, requests.c.status.in_(ACTIVE))
            .values(cancel_requested=True)
        )
    return cancelled


def stop(job_id: UUID, code: str, message: str) -> None:
    """Note why the job begins no more endpoints; the first reason stays."""
    with transaction() as connection:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.stop_code.is_(None))
            .values(stop_code=code, stop_message=message)
        )


def drop(job_id: UUID) -> int:
    """Cancel the requests that have not begun, or that nobody runs any more."""
    with transaction() as connection:
        return _drop(connection, job_id)


def drop_shard(job_id: UUID, number: int) -> int:
    """Cancel the requests of one shard that have not begun, or that nobody runs any more."""
    of_it = select(job_members.c.request_id).where(
        job_members.c.job_id == job_id, job_members.c.shard == number
    )
    with transaction() as connection:
        return _drop(connection, job_id, requests.c.id.in_(of_it))


def finish(job_id: UUID, status: JobStatus, message: str) -> None:
    """End a job: final status, no lease, one event for all of its endpoints. Twice is quiet."""
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
            _announce(connection, f"certrail.job.{event}", job_id, row.name, message=message)


def to_retry(job_id: UUID, *, rest: bool = False) -> list[Request]:
    """Return the requests of a job that failed and whose endpoints have no newer one.

    With *rest* also those that were cancelled before they began.
    """
    wanted: list[ColumnElement[bool]] = [requests.c.status.in_(FAILED)]
    if rest:
        wanted.append(and_(requests.c.status == Status.CANCELLED, requests.c.run_count == 0))
    other = requests.alias("other")
    newer = (
        select(other.c.id)
        .where(
            other.c.endpoint_id == requests.c.endpoint_id,
            other.c.id != requests.c.id,
            other.c.created_at > requests.c.created_at,
        )
        .exists()
    )
    query = selected().where(requests.c.job_id == job_id, or_(*wanted), ~newer)
    with transaction() as connection:
        return [read(row) for row in connection.execute(query)]


def reopen(job: Job, plans: Mapping[UUID, Plan], actor: str) -> int:
    """Run requests of a job that is over again, from the step that failed.

    Returns how many run again.

    Args:
        plans: what each request does this time, by the request's id.

    Raises:
        InvalidRequest: the job is not over, or nothing in it failed.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.status.not_in(OPEN))
            .values(
                status=JobStatus.RUNNING,
                pause_requested=False,
                cancel_requested=False,
                stop_code=None,
                stop_message=None,
                ended_at=None,
            )
            .returning(jobs.c.id)
        ).first()
        if row is None:
            raise InvalidRequest(
                f"the job {job.name} is not over", remedy="Wait for its end, or cancel it."
            )
        again = [
            one.id
            for one in connection.execute(
                update(requests)
                .where(
                    requests.c.job_id == job.id,
                    requests.c.id.in_(list(plans)),
                    requests.c.status.not_in((*ACTIVE, *SUCCESSFUL)),
                )
                .values(
                    status=Status.AUTOMATION_REQUESTED,
                    cancel_requested=False,
                    ended_at=None,
                    scheduled_at=None,
                )
                .returning(requests.c.id)
            )
        ]
        if not again:
            raise InvalidRequest(
                f"no endpoint of the job {job.name} failed that could run again",
                remedy=f"`certrail endpoint list --job {job.name}` shows them.",
            )
        connection.execute(
            update(steps)
            .where(
                steps.c.request_id.in_(again),
                steps.c.status.in_((StepStatus.FAILED, StepStatus.CANCELLED)),
            )
            .values(
                status=StepStatus.PENDING,
                cause=None,
                remedy=None,
                retryable=None,
                error=None,
                detail=None,
                ended_at=None,
            )
        )
        connection.execute(
            update(requests)
            .where(requests.c.id == bindparam("of"))
            .values(plan=bindparam("present")),
            [{"of": one, "present": plans[one].model_dump(mode="json")} for one in again],
        )
        audit.note(connection, actor, "job.retry", job.name, {"endpoints": len(again)})
    return len(again)


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that is over, by its flow run."""

    flow_run_id: UUID
    location: str
    status: Status


def ended(flow_run_ids: Sequence[UUID]) -> list[Ended]:
    """Return those of the flow runs whose request is over."""
    query = selected().where(
        requests.c.flow_run_id.in_(flow_run_ids), requests.c.status.not_in(ACTIVE)
    )
    with transaction() as connection:
        return [
            Ended(row.flow_run_id, row.location, Status(row.status))
            for row in connection.execute(query)
        ]


def _drop(connection: Connection, job_id: UUID, *only: ColumnElement[bool]) -> int:
    dropped = [
        row.id
        for row in connection.execute(
            update(requests)
            .where(
                requests.c.job_id == job_id,
                requests.c.status.in_(ACTIVE),
                or_(requests.c.lease_until.is_(None), requests.c.lease_until < func.now()),
                *only,
            )
            .values(
                status=Status.CANCELLED, lease_owner=None, lease_until=None, ended_at=func.now()
            )
            .returning(requests.c.id)
        )
    ]
    if dropped:
        connection.execute(
            update(steps)
            .where(
                steps.c.request_id.in_(dropped),
                steps.c.status.in_((StepStatus.PENDING, StepStatus.RUNNING)),
            )
            .values(status=StepStatus.CANCELLED)
        )
    return len(dropped)


def _announce(connection: Connection, event: str, job_id: UUID, name: str, **payload: Any) -> None:
    outbox.put(
        connection,
        event,
        name,
        resource=f"certrail.job.{name}",
        job_name=name,
        job_id=str(job_id),
        counts=counts([job_id])[job_id].to_json(),
        **payload,
    )


def _runnable() -> ColumnElement[bool]:
    """Active, and waiting neither for an approval nor for its time: it can begin now."""
    return and_(
        requests.c.status.in_(ACTIVE),
        requests.c.status != Status.APPROVAL_PENDING,
        or_(
            requests.c.status != Status.AUTOMATION_SCHEDULED,
            requests.c.scheduled_at.is_(None),
            requests.c.scheduled_at <= func.now(),
        ),
    )


def _wishes(row: Row[Any]) -> Wishes:
    over = JobStatus(row.status).is_over
    return Wishes(
        pause=row.pause_requested,
        end=over or row.cancel_requested or row.stop_code is not None,
    )


def _free(columns: Any, owner: str) -> ColumnElement[bool]:
    return or_(
        columns.lease_until.is_(None),
        columns.lease_until < func.now(),
        columns.lease_owner == owner,
    )


def _held(columns: Any) -> ColumnElement[bool]:
    held: ColumnElement[bool] = func.coalesce(columns.lease_until > func.now(), False)
    return held


def _shard(row: Row[Any]) -> ShardState:
    return ShardState(
        job_id=row.job_id,
        number=row.number,
        wave=row.wave,
        route=Route(row.pool, row.queue),
        lane=Lane(row.lane),
        size=row.size,
        places=row.places,
        flow_run_id=row.flow_run_id,
        task_run_id=row.task_run_id,
        run_count=row.run_count,
        lease_owner=row.lease_owner,
        is_held=row.is_held,
        left=row.left,
    )
