"""Which cancellations of a run end its request: the one that somebody wanted, and no other."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from certrail.handover import CANCELLED, HANDED_BACK
from certrail.store import requests
from certrail.tracker import Status
from tasks._run import _held
from tests.integration.store.conftest import Inventory


async def _cancelled(request_id: UUID, *why: str) -> None:
    """Hold a request until the task is cancelled."""
    begun = asyncio.Event()

    async def hold() -> None:
        async with _held(request_id):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await begun.wait()
    task.cancel(*why)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("why", "status"),
    [
        ((CANCELLED,), Status.CANCELLED),
        ((HANDED_BACK,), Status.IN_PROGRESS),
        ((), Status.IN_PROGRESS),
    ],
    ids=["somebody cancelled it", "the worker stops", "the worker breaks down"],
)
def test_only_who_was_cancelled_is_cancelled(
    inventory: Inventory, why: tuple[str, ...], status: Status
) -> None:
    """A worker that breaks down ends its tasks; renewals must not end with it."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    made = inventory.request("a.test:443")

    asyncio.run(_cancelled(made.id, *why))

    left = requests.get(made.id)
    assert left.status is status
    assert left.lease_owner is None
