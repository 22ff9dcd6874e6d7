"""What Prefect was told of scheduled requests, and what it does not know yet."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import func, update

from certrail.store import audit
from certrail.store.database import transaction
from certrail.store.requests import Request, read, selected
from certrail.store.schema import requests
from certrail.tracker import Status

ELSEWHERE = frozenset({"called-off", "approval-expired"})
"""What ends a request without Prefect: its run there is cancelled afterwards."""


def scheduled(limit: int) -> list[Request]:
    """Return scheduled requests that Prefect was told of: the next ones, and some of the others.

    Of very many, each turn looks at others.
    """
    query = selected().where(
        requests.c.status == Status.AUTOMATION_SCHEDULED,
        requests.c.flow_run_id.is_not(None),
        requests.c.lease_owner.is_(None),
    )
    with transaction() as connection:
        rows = [*connection.execute(query.order_by(requests.c.scheduled_at).limit(limit))]
        if len(rows) == limit:
            rows += connection.execute(query.order_by(func.random()).limit(limit))
    return list({row.id: read(row) for row in rows}.values())


def adopt(request_id: UUID, at: datetime, actor: str, *, flow_run_id: UUID | None = None) -> bool:
    """Take over the moment that an operator gave a scheduled request in Prefect.

    From now on nothing else moves it. With *flow_run_id* that run carries it, no longer the one
    before. Returns whether it was still scheduled.
    """
    run = {} if flow_run_id is None else {"flow_run_id": flow_run_id}
    with transaction() as connection:
        row = connection.execute(
            update(requests)
            .where(requests.c.id == request_id, requests.c.status == Status.AUTOMATION_SCHEDULED)
            .values(scheduled_at=at, told_at=at, is_pinned=True, **run)
            .returning(requests.c.id)
        ).first()
        if row is not None:
            audit.note(connection, actor, "request.moved", str(request_id), {"to": at.isoformat()})
    return row is not None


def told(request_id: UUID, at: datetime | None) -> None:
    """Note that Prefect knows when the request begins."""
    with transaction() as connection:
        connection.execute(update(requests).where(requests.c.id == request_id).values(told_at=at))


def ended_elsewhere(limit: int) -> list[Request]:
    """Return requests that are over although Prefect still has a run for them."""
    query = selected().where(
        requests.c.status == Status.CANCELLED,
        requests.c.waits_for == "prefect",
    )
    with transaction() as connection:
        return [read(row) for row in connection.execute(query.limit(limit))]


def prefect_knows(request_id: UUID) -> None:
    """Note that the run of a request that is over is over in Prefect too."""
    with transaction() as connection:
        connection.execute(
            update(requests).where(requests.c.id == request_id).values(waits_for=None)
        )
