"""What happens in this process is heard in it at once; of other processes one learns by looking.

A job, its shards and the worker that takes their runs up ask the server and the
database now and then. Where all of them are in one process, as with a single
worker, the waits between would be a tenth of a job with a hundred endpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Bell:
    """Rung anywhere in the process, heard by every loop that listens."""

    def __init__(self) -> None:
        self._listening: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def ring(self) -> None:
        """Let everybody who listens go on; from any thread."""
        for loop, event in tuple(self._listening):
            with suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def heard(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set by each ring until the block ends; the listener clears it."""
        here = (asyncio.get_running_loop(), asyncio.Event())
        self._listening.add(here)
        try:
            yield here[1]
        finally:
            self._listening.discard(here)


async def rung(event: asyncio.Event, seconds: float) -> None:
    """Wait for a ring that was not heard yet, *seconds* at the most."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    event.clear()


run_due = Bell()
"""A run was made that a worker is to take up now."""

shard_over = Bell()
"""A shard of a bulk job has come to its end, and nobody holds it."""
