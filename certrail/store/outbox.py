"""Lifecycle events waiting to be told, written in the transaction of the state change."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert

from certrail.store.schema import outbox


def put(
    connection: Connection,
    event: str,
    location: str,
    *,
    request_id: UUID | None = None,
    **payload: Any,
) -> None:
    """Add *event* (``certrail.…``) about an endpoint in the caller's transaction."""
    connection.execute(
        insert(outbox).values(
            event=event,
            resource=f"certrail.endpoint.{location}",
            request_id=request_id,
            payload={"location": location, **payload},
        )
    )
