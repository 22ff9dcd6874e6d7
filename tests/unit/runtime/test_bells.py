"""What is made in a worker's process is heard there without waiting for the next look."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tasks._bells import Bell, run_due, rung

_NEVER = 3600.0
_HANGS = 60.0


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let pytest run an async test."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run


@in_a_loop
async def test_a_ring_is_heard_by_everybody_who_listens_from_any_thread() -> None:
    bell = Bell()
    with bell.heard() as one, bell.heard() as other:
        threading.Thread(target=bell.ring).start()
        async with asyncio.timeout(_HANGS):
            await rung(one, _NEVER)
            await rung(other, _NEVER)


@in_a_loop
async def test_a_ring_before_the_wait_is_heard_once() -> None:
    bell = Bell()
    with bell.heard() as event:
        bell.ring()
        async with asyncio.timeout(_HANGS):
            await rung(event, _NEVER)
        await rung(event, 0.01)
        assert not event.is_set()


@in_a_loop
async def test_nobody_hears_what_rings_after_the_end() -> None:
    bell = Bell()
    with bell.heard() as event:
        pass
    bell.ring()
    await asyncio.sleep(0)
    assert not event.is_set()


def test_a_loop_that_ended_is_no_trouble() -> None:
    bell = Bell()
    loop = asyncio.new_event_loop()
    left = bell.heard()

    async def listen() -> None:
        left.__enter__()

    loop.run_until_complete(listen())
    loop.close()
    bell.ring()
    left.__exit__(None, None, None)


@in_a_loop
async def test_a_worker_looks_for_runs_when_one_was_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has not met a server yet: it notes the look, and asks nobody."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    from deployments.in_process import InProcessWorker, Watch

    worker = InProcessWorker(work_pool_name="agents", watch=Watch())
    before = worker._last_polled_time
    listening = asyncio.create_task(worker.listen())
    await asyncio.sleep(0)
    run_due.ring()
    async with asyncio.timeout(_HANGS):
        while worker._last_polled_time == before:
            await asyncio.sleep(0.01)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
