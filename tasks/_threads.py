"""Worker threads for the synchronous library."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Steps mostly wait for the network, so there are many more threads than cores.
# The database pool is sized for as many (certrail/store/database.py).
_STEPS = ThreadPoolExecutor(
    max_workers=int(os.environ.get("CERTRAIL_THREADS", "64")), thread_name_prefix="step"
)
# Leases have threads of their own: they must not wait behind the steps they protect.
_LEASES = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lease")


async def in_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking *call* in a thread and wait for it.

    When the waiting task is cancelled, a call that has begun is waited for
    all the same and the cancellation goes on afterwards: a thread cannot be
    interrupted, and a target must not be left half-changed without anybody
    looking. A call that has not begun never does.
    """
    return await _in(_STEPS, partial(call, *args, **kwargs))


async def in_lease_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a short call about leases, whatever the steps are doing."""
    return await _in(_LEASES, partial(call, *args, **kwargs))


async def _in(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    begun = pool.submit(contextvars.copy_context().run, call)
    future = asyncio.wrap_future(begun)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not begun.cancel():
            await asyncio.wait([future])
        raise
