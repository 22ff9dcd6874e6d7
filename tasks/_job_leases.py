"""Leases on a bulk job and on its shards, which outlast a database that is away for a moment."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID, uuid4

from certrail.errors import CertrailError, JournalConflict, Unreachable
from certrail.store import job_shards
from certrail.store.job_shards import ShardState
from tasks._bells import shard_over
from tasks._threads import in_lease_thread

T = TypeVar("T")

LEASE = timedelta(seconds=float(os.environ.get("CERTRAIL_LEASE_SECONDS", "60")))


async def patiently(call: Callable[[], T]) -> T:
    """Make a call about jobs, again while the database is away for a moment."""
    tried = 0
    while True:
        try:
            return await in_lease_thread(call)
        except Unreachable:
            tried += 1
            if tried > 30:
                raise
            await asyncio.sleep(min(5.0, 0.5 * tried))


def new_owner() -> str:
    """Return a name for whoever takes a lease here."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


async def taken(take: Callable[[], T]) -> T:
    """Take a lease; one that a killed worker left behind runs out by itself."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 2 * LEASE.total_seconds()
    while True:
        try:
            return await patiently(take)
        except JournalConflict:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(min(1.0, LEASE.total_seconds() / 4))


@dataclass
class Hold:
    """A shard that is held here; *is_through* once nothing of it is left to be run."""

    shard: ShardState
    owner: str
    is_through: bool = False


@asynccontextmanager
async def held_shard(job_id: UUID, number: int) -> AsyncIterator[Hold]:
    """Hold a shard until the block ends.

    Raises:
        CertrailError: it cannot be taken.
    """
    owner = new_owner()
    hold = Hold(await taken(lambda: job_shards.take_shard(job_id, number, owner, LEASE)), owner)
    try:
        yield hold
    finally:
        with suppress(CertrailError):
            await in_lease_thread(
                job_shards.release_shard, job_id, number, owner, is_through=hold.is_through
            )
        shard_over.ring()
