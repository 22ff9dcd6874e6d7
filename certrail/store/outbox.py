"""Lifecycle events, written in the transaction of the state change they tell of.

Each has an id that never changes. It is emitted to Prefect (``emitted_at``)
and routed to those who want to hear of it (``routed_at``), both of them
after the commit and by whoever comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from certrail.store.database import transaction
from certrail.store.schema import outbox, requests

_RESOURCE = "certrail.endpoint."
_ROUTING = text("select pg_advisory_xact_lock(hashtextextended('certrail notify route', 0))")


@dataclass(frozen=True, slots=True)
class Happened:
    """One lifecycle event.

    Attributes:
        outbox_id: its row.
        event_id: its id everywhere else.
        event: full name, ``certrail.…``.
        resource: resource id in Prefect, ``certrail.endpoint.<location>``.
        location: the endpoint's location, or what else it is about.
        payload: plain data without secrets.
        workflow, flow_run_id: of the request it belongs to, None for none.
        job_id: the bulk job that this request is of, None for none.
    """

    outbox_id: int
    event_id: UUID
    event: str
    resource: str
    location: str
    request_id: UUID | None
    payload: dict[str, Any]
    occurred: datetime
    workflow: str | None = None
    flow_run_id: UUID | None = None
    job_id: UUID | None = None


def put(
    connection: Connection,
    event: str,
    location: str,
    *,
    request_id: UUID | None = None,
    once: str | None = None,
    resource: str = "",
    **payload: Any,
) -> bool:
    """Add *event* (``certrail.…``) in the caller's transaction.

    Args:
        connection: the transaction of the state change.
        event: full name, one of :data:`certrail.events.KINDS`.
        location: the endpoint's location, or the name of the job, executor or run.
        request_id: the request it belongs to.
        once: says what may be told one time only; a second event of the same is dropped.
        resource: resource id in Prefect, if it is not about an endpoint.
        payload: plain data without secrets.

    Returns whether it was added.
    """
    added = connection.execute(
        insert(outbox)
        .values(
            event=event,
            resource=resource or f"{_RESOURCE}{location}",
            request_id=request_id,
            once=once,
            payload={"location": location, **payload},
        )
        .on_conflict_do_nothing(index_elements=[outbox.c.once])
        .returning(outbox.c.id)
    ).first()
    return added is not None


def emit_waiting(emit: Callable[[Sequence[Happened]], None], *, limit: int = 200) -> int:
    """Hand events that were not emitted yet to *emit*, and note that they were.

    Several processes may do this at once: each takes other rows. One that dies
    between the two leaves its rows to be emitted again, with the same ids.

    Returns how many there were.
    """
    with transaction() as connection:
        waiting = (
            select(outbox.c.id)
            .where(outbox.c.emitted_at.is_(None))
            .order_by(outbox.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        ids = list(connection.execute(waiting).scalars())
        if not ids:
            return 0
        emit(_by_ids(connection, ids))
        connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(emitted_at=func.now()))
    return len(ids)


def unrouted(connection: Connection, *, limit: int = 200) -> list[Happened]:
    """Lock and return events that were not routed yet, oldest first.

    One process routes at a time, until the end of its transaction: what happened
    to the endpoints of a job must not be overtaken by the end of the job.
    """
    connection.execute(_ROUTING)
    waiting = (
        select(outbox.c.id)
        .where(outbox.c.routed_at.is_(None))
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _by_ids(connection, list(connection.execute(waiting).scalars()))


def jobs_with_others(
    connection: Connection, job_ids: Sequence[UUID], taken: Sequence[int]
) -> set[UUID]:
    """Return which jobs have earlier events of endpoints than the last of *taken* to be routed yet.

    Beside those *taken*: somebody is handing them to Prefect at this moment.
    """
    if not job_ids:
        return set()
    query = (
        select(requests.c.job_id)
        .select_from(outbox.join(requests, outbox.c.request_id == requests.c.id))
        .where(
            outbox.c.routed_at.is_(None),
            requests.c.job_id.in_(job_ids),
            outbox.c.id < max(taken),
            outbox.c.id.not_in(taken),
        )
        .distinct()
    )
    return set(connection.execute(query).scalars())


def mark_routed(connection: Connection, outbox_ids: Sequence[int]) -> None:
    """Note in the caller's transaction that everybody who wants to hear of them is written down."""
    connection.execute(
        update(outbox).where(outbox.c.id.in_(outbox_ids)).values(routed_at=func.now())
    )


def by_ids(outbox_ids: Sequence[int]) -> list[Happened]:
    """Return events, oldest first."""
    with transaction() as connection:
        return _by_ids(connection, outbox_ids)


def by_event_id(connection: Connection, event_id: UUID) -> Happened | None:
    """Return the event with that id, None if there is none."""
    found = connection.execute(select(outbox.c.id).where(outbox.c.event_id == event_id)).scalar()
    return _by_ids(connection, [found])[0] if found is not None else None


def oldest_waiting() -> timedelta:
    """Return how long the oldest event waits to be routed; zero when none does."""
    with transaction() as connection:
        row = connection.execute(
            select(func.now(), func.min(outbox.c.created_at)).where(outbox.c.routed_at.is_(None))
        ).one()
    return row[0] - row[1] if row[1] else timedelta(0)


def _by_ids(connection: Connection, ids: Sequence[int]) -> list[Happened]:
    if not ids:
        return []
    query = (
        select(
            outbox,
            requests.c.workflow,
            requests.c.action,
            requests.c.flow_run_id,
            requests.c.job_id,
        )
        .select_from(outbox.outerjoin(requests, outbox.c.request_id == requests.c.id))
        .where(outbox.c.id.in_(ids))
        .order_by(outbox.c.id)
    )
    return [_read(row) for row in connection.execute(query)]


def _read(row: Row[Any]) -> Happened:
    payload = dict(row.payload)
    if row.request_id is not None:
        payload |= {
            "request_id": str(row.request_id),
            "workflow": row.workflow,
            "action": row.action,
        }
    return Happened(
        outbox_id=row.id,
        event_id=row.event_id,
        event=row.event,
        resource=row.resource,
        location=str(payload.get("location", "")),
        request_id=row.request_id,
        payload=payload,
        occurred=row.created_at,
        workflow=row.workflow,
        flow_run_id=row.flow_run_id,
        job_id=row.job_id,
    )
