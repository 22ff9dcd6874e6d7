"""A run whose lease ran out does nothing more, wherever the one is that took over."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import text

from certrail.errors import JournalConflict
from certrail.steps.outcome import Outcome, Work
from certrail.store import requests
from certrail.store.database import transaction
from certrail.tracker import Title
from tasks._run import _held
from tasks._step import Step, _Tries, step
from tasks._threads import in_thread
from tests.integration.store.conftest import Inventory


def _end_lease(request_id: UUID) -> None:
    with transaction() as connection:
        connection.execute(
            text("update requests set lease_until = now() - interval '1 s' where id = :id"),
            {"id": request_id},
        )


async def _tried(one: Step, request_id: UUID) -> object:
    return await in_thread(one._try, request_id, 1, None, _Tries(1))


def test_of_two_runs_in_one_process_only_the_one_that_holds_the_request_goes_on(
    inventory: Inventory,
) -> None:
    """Both would order, or install, at the same time."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    made = inventory.request("a.test:443")
    done: list[str] = []

    @step(Title.ACME_ACCOUNT_CREATED)
    def order(_: Work) -> Outcome:
        done.append("ordered")
        return Outcome.completed("ordered")

    async def first(has_begun: asyncio.Event, taken_over: asyncio.Event) -> None:
        async with _held(made.id):
            await in_thread(_end_lease, made.id)
            has_begun.set()
            await taken_over.wait()
            await _tried(order, made.id)

    async def both() -> list[str]:
        has_begun, taken_over = asyncio.Event(), asyncio.Event()
        loser = asyncio.create_task(first(has_begun, taken_over))
        await has_begun.wait()
        async with _held(made.id):
            taken_over.set()
            with pytest.raises(JournalConflict, match="holds this request now"):
                await loser
            by_the_loser = list(done)
            await _tried(order, made.id)
        return by_the_loser

    assert asyncio.run(both()) == []
    assert done == ["ordered"]
    assert requests.get(made.id).run_count == 2
