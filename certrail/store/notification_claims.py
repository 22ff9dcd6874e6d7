"""Taking what is to be sent from the delivery log, and noting what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    any_,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from certrail.store import clock
from certrail.store.database import transaction
from certrail.store.notifications import OF_JOB
from certrail.store.schema import connectors, notifications, outbox

_NAMESPACE = UUID("6f0f4f0e-4f6d-4c55-9a35-6f7d2f0c2b11")
# So many single messages to one recipient at one time become one message.
_BURST = 5
_MOST_IN_ONE = 200
_CLAIMING = text("select pg_advisory_xact_lock(hashtextextended('certrail notify claim', 0))")


@dataclass(frozen=True, slots=True)
class Claim:
    """What one message tells, to one recipient, by one channel.

    Attributes:
        ids: rows of the log.
        outbox_ids: the events, oldest first; of a job that is told of, and what waited for
            it, the job's alone.
        message_id: the same at each attempt.
        reference: the connector's block, "" if there is no such connector.
        attempts: this one included.
        since: when the oldest row was written.
    """

    ids: tuple[int, ...]
    outbox_ids: tuple[int, ...]
    channel: str
    reference: str
    recipient: str
    message_id: str
    attempts: int
    since: datetime
    held_because: str | None


def claim(owner: str, lease: timedelta, *, now: datetime, except_: Sequence[str]) -> Claim | None:
    """Take what is to be sent next; nobody else gets it before the lease ends.

    What is due for one recipient at one time and belongs to one digest, or is
    very much, becomes one message. What a message tells never changes after
    its first attempt.

    Args:
        owner: who sends it.
        lease: how long sending may take.
        now: the present.
        except_: channels that are left alone.
    """
    n = notifications
    free = (
        n.c.status == "pending",
        n.c.due_at <= now,
        clock.is_free(n.c.claimed_until),
        n.c.channel.not_in(list(except_)),
    )
    with transaction() as connection:
        # One at a time: two that claim at once would tear a digest in two. It is a
        # matter of milliseconds, and sending is outside of it.
        connection.execute(_CLAIMING)
        first = connection.execute(
            select(n)
            .where(*free)
            .order_by(n.c.due_at, n.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).first()
        if first is None:
            return None
        rows = _company(connection, first, free)
        message_id = first.message_id or _message_id(connection, rows)
        ids = [row.id for row in rows]
        attempts = connection.execute(
            update(n)
            .where(_one_of(ids))
            .values(
                claimed_by=owner,
                claimed_until=clock.lease(lease),
                attempts=n.c.attempts + 1,
                message_id=message_id,
            )
            .returning(n.c.attempts)
        ).scalars()
        slug = connection.execute(
            select(connectors.c.slug).where(connectors.c.name == first.channel)
        ).scalar()
        return Claim(
            ids=tuple(ids),
            outbox_ids=tuple(
                sorted(
                    _job_events(connection, first.digest, _one_of(ids))
                    or (row.outbox_id for row in rows)
                )
            ),
            channel=first.channel,
            reference=f"{slug}/{first.channel}" if slug else "",
            recipient=first.recipient,
            message_id=message_id,
            attempts=max(attempts),
            since=min(row.created_at for row in rows),
            held_because=first.held_because,
        )


def _company(connection: Connection, first: Row[Any], free: Sequence[Any]) -> list[Row[Any]]:
    """Return the rows that are told with *first*, itself among them, locked."""
    n = notifications
    same = (n.c.channel == first.channel, n.c.recipient == first.recipient)
    if first.message_id is not None:
        # Tried before: exactly those that were told together then.
        query = select(n).where(*same, n.c.message_id == first.message_id, n.c.status == "pending")
        return list(connection.execute(query.with_for_update()))
    together = (
        *free,
        *same,
        n.c.message_id.is_(None),
        n.c.digest.is_(None) if first.digest is None else n.c.digest == first.digest,
    )
    query = select(n).where(*together).order_by(n.c.id)
    if turns := _job_events(connection, first.digest, *together):
        # However many waited for a job: with it they are told in one sentence. What happened
        # after that, as once a job was resumed, is not in its sums: it is the next message.
        query = query.where(n.c.outbox_id <= max(turns))
    else:
        query = query.limit(_MOST_IN_ONE)
    found = list(connection.execute(query.with_for_update(skip_locked=True)))
    is_program = connection.execute(
        select(connectors.c.slug == "notifier-webhook").where(connectors.c.name == first.channel)
    ).scalar()
    if is_program or (first.digest is None and len(found) <= _BURST):
        return [row for row in found if row.id == first.id] or [first]
    return found


def _job_events(
    connection: Connection, digest: str | None, *which: ColumnElement[bool]
) -> list[int]:
    """Return the events of the job itself among those rows of its digest; none of another one."""
    if digest is None or not digest.startswith(OF_JOB):
        return []
    query = (
        select(outbox.c.id)
        .select_from(notifications.join(outbox, notifications.c.outbox_id == outbox.c.id))
        .where(*which, outbox.c.event.startswith("certrail.job."))
    )
    return list(connection.execute(query).scalars())


def _one_of(ids: Sequence[int]) -> ColumnElement[bool]:
    # One parameter for all of them: a job may have more rows than a statement parameters.
    return notifications.c.id == any_(literal(list(ids), ARRAY(BigInteger)))


def _message_id(connection: Connection, rows: Sequence[Row[Any]]) -> str:
    if len(rows) == 1:
        found = connection.execute(
            select(outbox.c.event_id).where(outbox.c.id == rows[0].outbox_id)
        ).scalar_one()
        return str(found)
    return str(uuid5(_NAMESPACE, ",".join(str(row.id) for row in rows)))


def sent(ids: Sequence[int], owner: str, *, subject: str, answer: str) -> None:
    """Note that the other side took the message."""
    _end(ids, owner, status="sent", subject=subject, answer=answer, last_error=None, remedy=None)


def failed(ids: Sequence[int], owner: str, *, subject: str, error: str, remedy: str) -> None:
    """Note that the message will not be taken, however often it is sent."""
    _end(ids, owner, status="failed", subject=subject, last_error=error, remedy=remedy)


def _end(ids: Sequence[int], owner: str, **values: Any) -> None:
    with transaction() as connection:
        connection.execute(
            update(notifications)
            .where(_one_of(ids), notifications.c.claimed_by == owner)
            .values(claimed_by=None, claimed_until=None, ended_at=func.now(), **values)
        )


def postpone(
    ids: Sequence[int], owner: str, *, due_at: datetime, error: str, remedy: str, subject: str
) -> None:
    """Give the message back; it is tried again at *due_at*."""
    with transaction() as connection:
        connection.execute(
            update(notifications)
            .where(_one_of(ids), notifications.c.claimed_by == owner)
            .values(
                claimed_by=None,
                claimed_until=None,
                due_at=due_at,
                last_error=error,
                remedy=remedy,
                subject=subject,
            )
        )
