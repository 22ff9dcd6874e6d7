"""The shards of a bulk job: who holds each of them, and which requests of it can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    func,
    or_,
    select,
    update,
)

from certrail.errors import InvalidRequest, JournalConflict
from certrail.jobs import shares
from certrail.jobs.shares import Claim, Need, Share
from certrail.jobs.waves import Lane, Route
from certrail.store import clock
from certrail.store.database import transaction
from certrail.store.job_runs import Wishes, free_for, wishes
from certrail.store.requests import Request, read, selected
from certrail.store.schema import job_members, job_shards, jobs, requests
from certrail.tracker import ACTIVE, Status


@dataclass(frozen=True, slots=True)
class ShardState:
    """A shard as it stands.

    Attributes:
        places: of the job's places, those that it has; good while a living worker has it.
        wanted: places that it could use, as was noted last.
        is_held: a living worker has it.
        is_only: the job has no other shard, in no wave.
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
    wanted: int
    flow_run_id: UUID | None
    task_run_id: UUID | None
    run_count: int
    lease_owner: str | None
    is_held: bool
    is_only: bool
    left: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """What whoever holds a shard learns each time.

    Attributes:
        wishes: what is wanted of the job.
        cancelled: requests that run in it and are to stop.
        share: its places from now on, None if it asked for none.
    """

    wishes: Wishes
    cancelled: frozenset[UUID]
    share: Share | None


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
    all_ = job_shards.alias("all_shards")
    count = select(func.count()).where(all_.c.job_id == job_id).scalar_subquery()
    query = (
        select(
            job_shards,
            clock.is_held(job_shards.c.lease_until).label("is_held"),
            (count == 1).label("is_only"),
            left.label("left"),
        )
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
    wanted: int | None = None,
) -> None:
    """Note the flow run that carries a shard, the task run that it hangs from, its claim."""
    given = {"flow_run_id": flow_run_id, "task_run_id": task_run_id, "wanted": wanted}
    with transaction() as connection:
        connection.execute(
            update(job_shards)
            .where(job_shards.c.job_id == job_id, job_shards.c.number == number)
            .values({name: value for name, value in given.items() if value})
        )


def take_shard(job_id: UUID, number: int, owner: str, lease: timedelta) -> ShardState:
    """Begin or go on with a shard, without any place at first.

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
                free_for(job_shards.c, owner),
            )
            .values(
                lease_owner=owner,
                lease_until=clock.lease(lease),
                run_count=job_shards.c.run_count + 1,
                places=0,
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
    job_id: UUID,
    number: int,
    owner: str,
    lease: timedelta,
    running: Sequence[UUID],
    need: Need | None = None,
) -> Renewed:
    """Extend the shard's lease, and with *need* its places to what its share is now.

    Args:
        job_id: the job.
        number: of the shard.
        owner: who holds it.
        lease: for how long.
        running: requests that run in it.
        need: places that it wants, None if there is no other shard to share with.

    Raises:
        JournalConflict: another run holds it.
    """
    job = select(jobs).where(jobs.c.id == job_id)
    with transaction() as connection:
        # One after the other: two shards must not both take the places that are free.
        row = connection.execute(job.with_for_update(key_share=True) if need else job).one()
        given: dict[str, Any] = {"lease_until": clock.lease(lease)}
        share = None
        if need is not None:
            share = shares.share(number, need, _claims(connection, job_id))
            given |= {"places": share.places, "wanted": need.wanted}
        held = connection.execute(
            update(job_shards)
            .where(
                job_shards.c.job_id == job_id,
                job_shards.c.number == number,
                job_shards.c.lease_owner == owner,
            )
            .values(given)
            .returning(job_shards.c.number)
        ).first()
        if held is None:
            raise JournalConflict("another run holds the shard now")
        cancelled = connection.execute(
            select(requests.c.id).where(requests.c.id.in_(running), requests.c.cancel_requested)
        )
        return Renewed(wishes(row), frozenset(one.id for one in cancelled), share)


def _claims(connection: Connection, job_id: UUID) -> list[Claim]:
    columns = job_shards.c
    query = select(
        columns.number,
        columns.lane,
        columns.places,
        columns.wanted,
        clock.is_held(columns.lease_until).label("is_held"),
        (columns.run_count > 0).label("is_begun"),
    ).where(columns.job_id == job_id)
    return [
        Claim(row.number, Lane(row.lane), row.places, row.wanted, row.is_held, row.is_begun)
        for row in connection.execute(query)
    ]


def release_shard(job_id: UUID, number: int, owner: str, *, is_through: bool = False) -> None:
    """Give the shard's lease and its places back.

    Args:
        job_id: the job.
        number: of the shard.
        owner: who held it.
        is_through: nothing of it is left to be run, so that it wants no places any more.
    """
    given: dict[str, Any] = {"lease_owner": None, "lease_until": None, "places": 0}
    with transaction() as connection:
        connection.execute(
            update(job_shards)
            .where(
                job_shards.c.job_id == job_id,
                job_shards.c.number == number,
                job_shards.c.lease_owner == owner,
            )
            .values(given | {"wanted": 0} if is_through else given)
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
            clock.is_free(requests.c.lease_until),
        )
        .order_by(job_members.c.position)
    )
    with transaction() as connection:
        return [read(row) for row in connection.execute(query)]


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


def _shard(row: Row[Any]) -> ShardState:
    return ShardState(
        job_id=row.job_id,
        number=row.number,
        wave=row.wave,
        route=Route(row.pool, row.queue),
        lane=Lane(row.lane),
        size=row.size,
        places=row.places,
        wanted=row.wanted,
        flow_run_id=row.flow_run_id,
        task_run_id=row.task_run_id,
        run_count=row.run_count,
        lease_owner=row.lease_owner,
        is_held=row.is_held,
        is_only=row.is_only,
        left=row.left,
    )
