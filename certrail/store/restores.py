"""Whether this installation comes from a backup: told by the audit trail."""

from __future__ import annotations

import time
from datetime import datetime
from functools import lru_cache

from sqlalchemy import select

from certrail.restored import Restored
from certrail.settings import database_url
from certrail.store import audit
from certrail.store.database import statement
from certrail.store.schema import audit as table

_ACTION = "backup.restore"
_REMEMBERED_SECONDS = 60


def note(archive: str, made_at: datetime, version: str) -> None:
    """Note in the audit trail that the database was restored just now.

    Args:
        archive: where the backup was read.
        made_at: when it was made.
        version: of Certrail that made it.
    """
    detail = {"made_at": made_at.isoformat(), "version": version}
    audit.note_now(audit.local_actor(), _ACTION, archive, detail)
    _read.cache_clear()


def newest() -> Restored | None:
    """Return the restore that the inventory comes from, None if it was begun here.

    Raises:
        Unreachable: the database does not answer.
    """
    return _read(database_url(), int(time.monotonic() // _REMEMBERED_SECONDS))


# Each order asks, and the answer is the same for years; but an agent may outlive the
# database that it began with.
@lru_cache(maxsize=8)
def _read(_url: str, _period: int) -> Restored | None:
    query = select(table.c.at, table.c.detail).where(table.c.action == _ACTION)
    with statement() as connection:
        row = connection.execute(query.order_by(table.c.id.desc()).limit(1)).first()
    if row is None:
        return None
    return Restored(datetime.fromisoformat(row.detail["made_at"]), row.at)
