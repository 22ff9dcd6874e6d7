"""The delivery log: one row for each event and recipient, claimed by whoever sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from certrail.store import clock
from certrail.store.database import transaction
from certrail.store.schema import (
    connectors,
    endpoints,
    notification_settings,
    notifications,
    outbox,
    profiles,
)

_NAMESPACE = UUID("6f0f4f0e-4f6d-4c55-9a35-6f7d2f0c2b11")
# So many single messages to one recipient at one time become one message.
_BURST = 5
_MOST_IN_ONE = 200
_OF_JOB = "job "
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


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of the log, for people."""

    id: int
    event_id: UUID
    event: str
    location: str
    request_id: UUID | None
    channel: str
    recipient: str
    status: str
    attempts: int
    held_because: str | None
    subject: str | None
    answer: str | None
    last_error: str | None
    remedy: str | None
    message_id: str | None
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None


def settings(connection: Connection) -> dict[str, Any] | None:
    """Return the account-wide rules as they were applied, None if none were."""
    found: dict[str, Any] | None = connection.execute(
        select(notification_settings.c.settings)
    ).scalar()
    return found


def keep_settings(connection: Connection, wanted: Mapping[str, Any]) -> None:
    """Store the account-wide rules in the caller's transaction."""
    values = {"settings": dict(wanted), "updated_at": func.now()}
    connection.execute(
        insert(notification_settings)
        .values(is_only=True, **values)
        .on_conflict_do_update(index_elements=["is_only"], set_=values)
    )


def channels(connection: Connection) -> dict[str, str]:
    """Return the type of each notifier connector, by name."""
    query = select(connectors.c.name, connectors.c.slug).where(
        connectors.c.slug.startswith("notifier-")
    )
    return {row.name: row.slug for row in connection.execute(query.order_by(connectors.c.name))}


def profile_rules(
    connection: Connection, locations: Sequence[str]
) -> dict[str, dict[str, Any] | None]:
    """Return what the profiles of endpoints say about notifications, by location."""
    query = (
        select(endpoints.c.location, profiles.c.settings["notifications"].label("rules"))
        .select_from(endpoints.join(profiles, endpoints.c.profile_id == profiles.c.id))
        .where(endpoints.c.location.in_(set(locations)))
    )
    return {row.location: row.rules for row in connection.execute(query)}


def add(
    connection: Connection,
    outbox_id: int,
    channel: str,
    recipient: str,
    *,
    due_at: datetime,
    digest: str | None = None,
    held_because: str = "",
) -> None:
    """Write down in the caller's transaction that somebody is to hear of it; twice is once."""
    connection.execute(
        insert(notifications)
        .values(
            outbox_id=outbox_id,
            channel=channel,
            recipient=recipient,
            due_at=due_at,
            digest=digest,
            held_because=held_because or None,
        )
        .on_conflict_do_nothing()
    )


def of_job(job_id: UUID) -> str:
    """Return the digest of what is told with the end of a bulk job."""
    return f"{_OF_JOB}{job_id}"


def let_go(connection: Connection, job_id: UUID, due_at: datetime) -> None:
    """Let what waits for a job, and was not tried yet, be due at *due_at*, if not before."""
    n = notifications
    connection.execute(
        update(n)
        .where(
            n.c.digest == of_job(job_id),
            n.c.status == "pending",
            n.c.message_id.is_(None),
            n.c.due_at > due_at,
        )
        .values(due_at=due_at)
    )


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
    # However many waited for a job: with it they are told in one sentence.
    most = None if _job_events(connection, first.digest, *together) else _MOST_IN_ONE
    query = select(n).where(*together).order_by(n.c.id).limit(most)
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
    if digest is None or not digest.startswith(_OF_JOB):
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


def log(
    *,
    status: str | None = None,
    recipient: str | None = None,
    location: str | None = None,
    event_id: UUID | None = None,
    limit: int | None = 50,
) -> list[Delivery]:
    """Return rows of the log, newest first."""
    n = notifications
    query = (
        select(
            n,
            outbox.c.event_id,
            outbox.c.event,
            outbox.c.request_id,
            outbox.c.payload["location"].astext.label("location"),
        )
        .select_from(n.join(outbox, n.c.outbox_id == outbox.c.id))
        .order_by(n.c.id.desc())
    )
    if status:
        query = query.where(n.c.status == status)
    if recipient:
        query = query.where(or_(n.c.recipient == recipient, n.c.channel == recipient))
    if location:
        query = query.where(outbox.c.payload["location"].astext == location.lower())
    if event_id:
        query = query.where(outbox.c.event_id == event_id)
    if limit is not None:
        query = query.limit(limit)
    with transaction() as connection:
        return [_delivery(row) for row in connection.execute(query)]


def waiting(connection: Connection, at_least: int = 1) -> int:
    """Return how many messages wait that were tried *at_least* so often."""
    query = (
        select(func.count())
        .select_from(notifications)
        .where(notifications.c.status == "pending", notifications.c.attempts >= at_least)
    )
    return int(connection.execute(query).scalar_one())


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        event_id=row.event_id,
        event=row.event,
        location=row.location,
        request_id=row.request_id,
        channel=row.channel,
        recipient=row.recipient,
        status=row.status,
        attempts=row.attempts,
        held_because=row.held_because,
        subject=row.subject,
        answer=row.answer,
        last_error=row.last_error,
        remedy=row.remedy,
        message_id=row.message_id,
        created_at=row.created_at,
        due_at=row.due_at,
        ended_at=row.ended_at,
    )
