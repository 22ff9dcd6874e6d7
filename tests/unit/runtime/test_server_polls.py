"""A poll is written down once in a while; a queue that was taken for gone, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from docket import Docket, Worker
from prefect.server.api import background_workers

from certrail.cli import _server_polls

_POOL = f"mark_work_queues_ready:work_pool:{uuid4()}"
_NAMES = (f"certrail-{number}" for number in count())

Poll = tuple[list[str], list[str]]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Docket, "add", _server_polls.add)
    _server_polls._next.clear()
    yield
    _server_polls._next.clear()


def _marked(*polls: Poll, key: str | None = _POOL) -> list[Poll]:
    """Poll one after the other through Prefect's own queue of tasks; returns what was done."""
    done: list[Poll] = []

    async def mark(*, polled_work_queue_ids: list[str], ready_work_queue_ids: list[str]) -> None:
        done.append((polled_work_queue_ids, ready_work_queue_ids))

    async def run() -> None:
        async with Docket(name=next(_NAMES), url="memory://") as docket:
            for polled, ready in polls:
                await docket.add(mark, key=key)(
                    polled_work_queue_ids=polled, ready_work_queue_ids=ready
                )
                async with Worker(
                    docket, minimum_check_interval=timedelta(milliseconds=5)
                ) as worker:
                    await worker.run_until_finished()

    asyncio.run(run())
    return done


def test_the_same_queues_are_marked_once() -> None:
    assert _marked((["a", "b"], []), (["b", "a"], []), (["a", "b"], [])) == [(["a", "b"], [])]


def test_each_workers_queues_are_marked() -> None:
    """Two workers poll the same pool, each its own queues."""
    polls: list[Poll] = [(["a"], []), (["b"], []), (["a"], []), (["b"], [])]
    assert _marked(*polls) == polls[:2]


def test_a_queue_taken_for_gone_is_marked_at_once() -> None:
    polls: list[Poll] = [(["a"], []), ([], ["a"]), ([], ["a"])]
    assert _marked(*polls) == polls


def test_they_are_marked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_server_polls, "EVERY", 0.0)
    assert len(_marked((["a"], []), (["a"], []))) == 2


def test_other_tasks_are_left_alone() -> None:
    assert len(_marked((["a"], []), (["a"], []), key=None)) == 2


def test_the_servers_own_tasks_are_looked_for_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four times a second, in two places, costs what a small machine has for its work."""
    monkeypatch.setattr(background_workers, "Worker", Worker)
    used: Any = background_workers

    async def looks() -> tuple[timedelta, timedelta]:
        async with (
            Docket(name=next(_NAMES), url="memory://") as docket,
            used.Worker(docket) as worker,
        ):
            return worker.minimum_check_interval, worker.scheduling_resolution

    before = asyncio.run(looks())
    _server_polls.install()

    assert asyncio.run(looks()) == (timedelta(seconds=1),) * 2
    assert max(before) < timedelta(seconds=1), "Prefect looks as seldom by itself now"
