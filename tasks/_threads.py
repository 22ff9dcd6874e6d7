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
_POOL = ThreadPoolExecutor(
    max_workers=int(os.environ.get("CERTRAIL_THREADS", "64")), thread_name_prefix="step"
)


async def in_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking *call* in a thread and wait for it.

    When the waiting task is cancelled, the call is waited for all the same
    and the cancellation goes on afterwards: a thread cannot be interrupted,
    and a target must not be left half-changed without anybody looking.
    """
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(_POOL, partial(context.run, call, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
