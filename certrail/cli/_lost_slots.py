"""Slots of our limits that nobody holds and nobody would give back.

Prefect's server counts a slot in its database and notes the lease of it in a
file. What comes between the two stays wrong for good: a full disk on which
the file cannot be written, or a database that was killed and has forgotten
that the slot was given back. A limit of one for a device would be closed for
ever. So whenever the server looks for leases that ran out, it also compares
the slots in use with those that the leases stand for.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage
from prefect.server.database import provide_database_interface
from prefect.server.models import concurrency_limits_v2

SURE_SECONDS = 60.0
"""So long a slot has to be without a lease; as short as leases may last."""

_FEWEST_LOOKS = 4
_KINDS = ("ca:", "domain:", "device:")
_OVERDUE = timedelta(minutes=1)
_log = logging.getLogger("certrail")
_expired = ConcurrencyLeaseStorage.read_expired_lease_ids
_decrement: Any = concurrency_limits_v2.bulk_decrement_active_slots


class Suspects:
    """Slots that had no lease when they were looked at, by limit."""

    def __init__(self) -> None:
        self._seen: dict[UUID, tuple[float, int, int]] = {}

    def lost(
        self, used: Mapping[UUID, int], leased: Mapping[UUID, int], now: float
    ) -> Counter[UUID]:
        """Return how many slots of each limit are lost, by this look and those before.

        A slot that is being taken or given back has no lease for a moment, so those
        count that are without one each time, for :data:`SURE_SECONDS`.

        Args:
            used: slots in use, by limit.
            leased: slots that leases stand for, by limit.
            now: seconds of a clock that is never set.
        """
        found = Counter[UUID]()
        seen = {}
        for limit, slots in used.items():
            if (more := slots - leased.get(limit, 0)) <= 0:
                continue
            since, looks, fewest = self._seen.get(limit, (now, 0, more))
            seen[limit] = since, looks + 1, min(fewest, more)
            if now - since >= SURE_SECONDS and looks + 1 >= _FEWEST_LOOKS:
                found[limit] = min(fewest, more)
                del seen[limit]
        self._seen = seen
        return found


_suspects = Suspects()


def install() -> None:
    """Make the storage of leases of this process look for lost slots too."""
    ConcurrencyLeaseStorage.read_expired_lease_ids = read_expired_lease_ids  # type: ignore[method-assign]


async def read_expired_lease_ids(self: ConcurrencyLeaseStorage, limit: int = 100) -> list[UUID]:
    """Return the leases that ran out, as Prefect does; what nobody holds is given back."""
    try:
        await give_back(self)
    except (sa.exc.SQLAlchemyError, OSError, ValueError) as exc:
        # The database is away, the disk full, a file strange: nothing is given back then.
        _log.debug("slots without a lease: %s", exc)
    return await _expired(self, limit)


async def give_back(storage: ConcurrencyLeaseStorage) -> None:
    """Give back the slots of our limits that no lease stands for."""
    db = provide_database_interface()
    table = db.ConcurrencyLimitV2
    # Before the leases: what is taken meanwhile has one more of those, not one less.
    query = sa.select(table.id, table.name, table.active_slots).where(
        sa.or_(*(table.name.startswith(kind) for kind in _KINDS)),
        table.active_slots > 0,
        table.slot_decay_per_second == 0,
    )
    async with db.session_context() as session:
        rows = (await session.execute(query)).all()
    if not rows:
        return
    used = {row.id: row.active_slots for row in rows}
    lost = _suspects.lost(used, await _leased(storage), time.monotonic())
    names = {row.id: row.name for row in rows}
    for limit, slots in lost.items():
        async with db.session_context(begin_transaction=True) as session:
            await _decrement(session=session, concurrency_limit_ids=[limit], slots=slots)
        _log.warning("the limit %s: %d slots that nobody held are free", names[limit], slots)


async def _leased(storage: ConcurrencyLeaseStorage) -> Counter[UUID]:
    """Return the slots that leases stand for, by limit; one that was forgotten runs out again."""
    found = Counter[UUID]()
    index = await storage._load_expiration_index()
    for path in storage.storage_path.glob("*.json"):
        if path.name == storage._expiration_index_path().name:
            continue
        lease = await storage.read_lease(UUID(path.stem))
        if lease is None or lease.metadata is None:
            continue
        for limit in lease.resource_ids:
            found[limit] += lease.metadata.slots
        if str(lease.id) not in index and lease.expiration < datetime.now(UTC) - _OVERDUE:
            await storage._update_expiration_index(lease.id, lease.expiration)
    return found
