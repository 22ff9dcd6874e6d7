"""Agents and sensors: what they say of themselves, and when they were heard of last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from certrail.store import audit, outbox
from certrail.store.database import transaction
from certrail.store.schema import executors, requests
from certrail.tracker import Status

DEFAULT_QUEUE = "default"
_WAITING = (Status.AUTOMATION_SCHEDULED, Status.AUTOMATION_REQUESTED, Status.APPROVAL_PENDING)


@dataclass(frozen=True, slots=True)
class Executor:
    """An agent or a sensor.

    Attributes:
        queues: whose work it takes; empty: all of its pool.
        silent_since: when it was heard of last, if that is too long ago; None otherwise.
        stopped_at: when it said that it stops; None while it runs or if it said nothing.
        waiting: requests that only it can do and that have not begun.
    """

    pool: str
    name: str
    queues: tuple[str, ...]
    version: str
    host: str
    started_at: datetime
    last_seen_at: datetime
    stopped_at: datetime | None
    silent_since: datetime | None
    waiting: int = 0

    @property
    def status(self) -> str:
        """online, stopped or silent."""
        if self.silent_since is not None:
            return "silent"
        return "stopped" if self.stopped_at is not None else "online"


def beat(pool: str, name: str, queues: Sequence[str], *, version: str, host: str) -> None:
    """Note that an executor lives; one that was silent has come back."""
    new = insert(executors).values(
        pool=pool,
        name=name,
        queues=list(queues),
        version=version,
        host=host,
        started_at=func.now(),
        last_seen_at=func.now(),
    )
    with transaction() as connection:
        before = connection.execute(
            select(executors.c.silent_since, executors.c.stopped_at)
            .where(executors.c.pool == pool, executors.c.name == name)
            .with_for_update()
        ).first()
        again = before is not None and before.stopped_at is None
        connection.execute(
            new.on_conflict_do_update(
                index_elements=["pool", "name"],
                set_={
                    "queues": list(queues),
                    "version": version,
                    "host": host,
                    "started_at": executors.c.started_at if again else func.now(),
                    "last_seen_at": func.now(),
                    "stopped_at": None,
                    "silent_since": None,
                },
            )
        )
        if before is not None and before.silent_since is not None:
            _tell(connection, "certrail.executor.recovered", pool, name, before.silent_since)


def stopped(pool: str, name: str) -> None:
    """Note that an executor was stopped in order."""
    with transaction() as connection:
        connection.execute(
            update(executors)
            .where(executors.c.pool == pool, executors.c.name == name)
            .values(stopped_at=func.now(), last_seen_at=func.now())
        )


def find_silent(after: timedelta) -> list[Executor]:
    """Mark those that were not heard of for *after*; told once each. Returns the newly silent."""
    with transaction() as connection:
        rows = connection.execute(
            update(executors)
            .where(
                executors.c.silent_since.is_(None),
                executors.c.last_seen_at < func.now() - after,
            )
            .values(silent_since=executors.c.last_seen_at)
            .returning(*executors.c)
        ).all()
        found = [_read(row, _waiting(connection, row)) for row in rows]
        for one in found:
            _tell(
                connection,
                "certrail.executor.silent",
                one.pool,
                one.name,
                one.last_seen_at,
                waiting=one.waiting,
            )
            audit.note(
                connection,
                "certrail",
                "executor.silent",
                f"{one.pool}/{one.name}",
                {"last_seen_at": one.last_seen_at.isoformat(), "waiting": one.waiting},
            )
    return found


def everyone(silent_after: timedelta) -> list[Executor]:
    """Return every executor, by pool and name.

    One that was not heard of for *silent_after* is silent, whether or not
    somebody has noticed yet.
    """
    is_late = executors.c.last_seen_at < func.now() - silent_after
    query = select(
        *(c for c in executors.c if c.name != "silent_since"),
        func.coalesce(executors.c.silent_since, case((is_late, executors.c.last_seen_at))).label(
            "silent_since"
        ),
    ).order_by(executors.c.pool, executors.c.name)
    with transaction() as connection:
        return [_read(row, _waiting(connection, row)) for row in connection.execute(query).all()]


def serving(silent_after: timedelta) -> dict[tuple[str, str], int]:
    """Return how many living executors take work from each queue, by pool and queue."""
    living = (
        select(executors.c.pool, func.unnest(executors.c.queues).label("queue"))
        .where(
            executors.c.stopped_at.is_(None),
            executors.c.last_seen_at > func.now() - silent_after,
        )
        .subquery()
    )
    query = select(living, func.count()).group_by(*living.c)
    with transaction() as connection:
        return {(pool, name): count for pool, name, count in connection.execute(query)}


def unknown() -> dict[str, int]:
    """Return the queues that nobody serves, with the number of requests that wait there."""
    queue = requests.c.plan["executor"].astext
    query = (
        select(queue.label("queue"), func.count().label("waiting"))
        .where(requests.c.status.in_(_WAITING), queue.is_not(None))
        .group_by(queue)
    )
    served = select(func.unnest(executors.c.queues))
    with transaction() as connection:
        known = {*connection.execute(served).scalars()}
        known |= {*connection.execute(select(executors.c.name)).scalars()}
        return {
            row.queue: row.waiting for row in connection.execute(query) if row.queue not in known
        }


def forget(name: str, actor: str) -> int:
    """Remove an executor that is gone for good; returns how many rows had that name."""
    with transaction() as connection:
        gone = connection.execute(
            delete(executors).where(executors.c.name == name).returning(executors.c.pool)
        ).all()
        for row in gone:
            audit.note(connection, actor, "executor.forget", f"{row.pool}/{name}")
    return len(gone)


def _tell(
    connection: Connection,
    event: str,
    pool: str,
    name: str,
    since: datetime,
    **payload: Any,
) -> None:
    outbox.put(
        connection,
        event,
        name,
        resource=f"certrail.executor.{pool}.{name}",
        # However many look at the same time: one silence is one message.
        once=f"{event}:{pool}/{name}:{since.isoformat()}",
        pool=pool,
        since=since.isoformat(),
        **payload,
    )


def _waiting(connection: Connection, row: Row[Any]) -> int:
    only = [queue for queue in row.queues if queue != DEFAULT_QUEUE] or [row.name]
    return int(
        connection.execute(
            select(func.count())
            .select_from(requests)
            .where(
                requests.c.status.in_(_WAITING),
                or_(*(requests.c.plan["executor"].astext == queue for queue in only)),
            )
        ).scalar_one()
    )


def _read(row: Row[Any], waiting: int) -> Executor:
    return Executor(
        pool=row.pool,
        name=row.name,
        queues=tuple(row.queues),
        version=row.version,
        host=row.host,
        started_at=row.started_at,
        last_seen_at=row.last_seen_at,
        stopped_at=row.stopped_at,
        silent_since=row.silent_since,
        waiting=waiting,
    )
