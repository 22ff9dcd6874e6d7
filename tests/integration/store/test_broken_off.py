"""Which cancellations of a run end its request: the one that somebody wanted, and no other."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from certrail.handover import Control, Ending, control
from certrail.store import requests
from certrail.tracker import Status
from tasks._run import _held
from tasks._threads import in_thread
from tests.integration.store.conftest import Inventory


async def _cancelled(request_id: UUID, ending: Ending | None, times: int) -> None:
    """Hold a request until the task is cancelled, once or more often, in the middle of a step."""
    begun = asyncio.Event()
    said = Control()
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def step() -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(over.wait(), loop).result(30)

    async def hold() -> None:
        control.set(said)
        async with _held(request_id):
            await in_thread(step)

    task = asyncio.create_task(hold())
    await begun.wait()
    said.ending = ending
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    over.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 2], ids=["once", "and by the loop as well"])
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (Ending.CANCELLED, Status.CANCELLED),
        (Ending.HANDED_BACK, Status.IN_PROGRESS),
        (None, Status.IN_PROGRESS),
    ],
    ids=["somebody cancelled it", "the worker stops", "the worker breaks down"],
)
def test_only_who_was_cancelled_is_cancelled(
    inventory: Inventory, ending: Ending | None, status: Status, times: int
) -> None:
    """A worker that breaks down ends its tasks; renewals must not end with it."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    made = inventory.request("a.test:443")

    asyncio.run(_cancelled(made.id, ending, times))

    left = requests.get(made.id)
    assert left.status is status
    assert left.lease_owner is None
