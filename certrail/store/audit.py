"""The audit trail: who asked what, when, and with what result. Rows are only added."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

from certrail.store.schema import audit


def note(
    connection: Connection,
    actor: str,
    action: str,
    object_: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one entry in the caller's transaction."""
    connection.execute(
        insert(audit).values(actor=actor, action=action, object=object_, detail=dict(detail or {}))
    )


def local_actor() -> str:
    """Return who runs this process, as ``account@host``; ``CERTRAIL_ACTOR`` overrides it."""
    if actor := os.environ.get("CERTRAIL_ACTOR", ""):
        return actor
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
