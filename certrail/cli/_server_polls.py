"""What Prefect's server does again and again without work: less often than it does by itself.

A worker asks each pool for runs every second. Each time the server queues two
tasks of its own, which lock and write every deployment and queue of the pool,
only to say when that was: two fifths of what a server without work uses of the
processor. It takes them for gone after a minute without a poll. A queue that
is taken for gone is marked at once.

Its own tasks, of which the most frequent one comes every five seconds, it looks for four
times a second in two places; here once a second.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from docket import Docket, Worker
from prefect.server.api import background_workers

EVERY = 10.0
"""Seconds for which a poll of the same queues is as good as the one before; Prefect waits 60."""

LOOKS = timedelta(seconds=1)
"""How long the server's own tasks may wait for being looked for."""

_MARKS = ("mark_work_queues_ready:", "mark_deployments_ready:")
_QUEUES = ("polled_work_queue_ids", "ready_work_queue_ids", "work_queue_ids")
_MOST = 1000
_next: dict[tuple[Any, ...], float] = {}
_add: Any = Docket.add


def install() -> None:
    """Make all dockets of this process leave out the marks that say nothing new, and look less."""
    Docket.add = add  # type: ignore[method-assign]
    looking = partial(Worker, minimum_check_interval=LOOKS, scheduling_resolution=LOOKS)
    vars(background_workers)["Worker"] = looking


def add(
    self: Docket,
    function: Callable[..., Awaitable[Any]] | str,
    when: datetime | None = None,
    key: str | None = None,
) -> Callable[..., Awaitable[Any]]:
    """Return what schedules a task, as ``Docket.add``; for a mark, where one is due."""
    schedule: Callable[..., Awaitable[Any]] = _add(self, function, when=when, key=key)
    if key is None or not key.startswith(_MARKS):
        return schedule

    async def where_due(*args: Any, **queues: Any) -> Any:
        return await schedule(*args, **queues) if _is_due(key, queues) else None

    return where_due


def _is_due(key: str, queues: dict[str, Collection[Any]]) -> bool:
    # Each set of queues by itself: several workers poll one pool, each its own of them.
    mark = key, *(tuple(sorted(map(str, queues.get(name, ())))) for name in _QUEUES)
    now = time.monotonic()
    if not queues.get("ready_work_queue_ids") and now < _next.get(mark, 0.0):
        return False
    if len(_next) >= _MOST:
        _next.clear()
    _next[mark] = now + EVERY
    return True
