"""The audit trail: who asked what, when, why, and with what result.

Triggers of the database refuse every change of an entry and chain each to the
one before it when its transaction commits; see :mod:`certrail.audit_chain`.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from certrail.audit_chain import Anchor, Entry
from certrail.store.database import transaction
from certrail.store.schema import audit

_PAGE = 2000
_COLUMNS = (
    audit.c.seq,
    audit.c.at,
    audit.c.actor,
    audit.c.action,
    audit.c.object,
    audit.c.detail,
    audit.c.hash,
)


def note(
    connection: Connection,
    actor: str,
    action: str,
    object_: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one entry in the caller's transaction; *detail* is plain data without secrets."""
    connection.execute(
        insert(audit).values(actor=actor, action=action, object=object_, detail=dict(detail or {}))
    )


def note_now(
    actor: str, action: str, object_: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Add one entry in a transaction of its own: for what changes nothing in the inventory."""
    with transaction() as connection:
        note(connection, actor, action, object_, detail)


def local_actor() -> str:
    """Return who runs this process, as ``account@host``; ``CERTRAIL_ACTOR`` overrides it."""
    if actor := os.environ.get("CERTRAIL_ACTOR", ""):
        return actor
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def chain() -> Iterator[Entry]:
    """Yield every entry from the first one on; a page at a time."""
    after = 0
    while True:
        query = select(*_COLUMNS).where(audit.c.seq > after).order_by(audit.c.seq).limit(_PAGE)
        with transaction() as connection:
            page = [_read(row) for row in connection.execute(query)]
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].seq


def newest(
    *,
    limit: int | None,
    actor: str | None = None,
    action: str | None = None,
    object_: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Entry]:
    """Return the newest entries that fit, newest first.

    ``*`` in *action* and *object_* stands for anything.
    """
    query = select(*_COLUMNS).where(audit.c.seq.is_not(None)).order_by(audit.c.seq.desc())
    if limit is not None:
        query = query.limit(limit)
    if actor:
        query = query.where(audit.c.actor.contains(actor, autoescape=True))
    for column, pattern in ((audit.c.action, action), (audit.c.object, object_)):
        if pattern:
            query = query.where(column.like(_like(pattern), escape="\\"))
    if since:
        query = query.where(audit.c.at >= since)
    if until:
        query = query.where(audit.c.at < until)
    with transaction() as connection:
        return [_read(row) for row in connection.execute(query)]


def unchained() -> int:
    """Return how many entries have no place in the chain: none, unless the trigger was away."""
    with transaction() as connection:
        query = select(func.count()).select_from(audit).where(audit.c.seq.is_(None))
        return int(connection.execute(query).scalar_one())


def head() -> Anchor | None:
    """Return place and hash of the last entry."""
    query = (
        select(audit.c.seq, audit.c.hash)
        .where(audit.c.seq.is_not(None))
        .order_by(audit.c.seq.desc())
        .limit(1)
    )
    with transaction() as connection:
        row = connection.execute(query).first()
    return Anchor(row.seq, row.hash) if row else None


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def _read(row: Any) -> Entry:
    return Entry(row.seq, row.at, row.actor, row.action, row.object, row.detail, row.hash or "")
