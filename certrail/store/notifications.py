"""The delivery log: one row for each event and recipient; and the rules that fill it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from certrail.store.database import transaction
from certrail.store.schema import (
    connectors,
    endpoints,
    notification_settings,
    notifications,
    outbox,
    profiles,
)

OF_JOB = "job "
"""What a digest begins with that is told with the end of a bulk job."""


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
    return f"{OF_JOB}{job_id}"


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
