"""Global limits, shared out inside a process, against Prefect's server."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
from prefect.client.orchestration import PrefectClient

from tasks import _budgets
from tasks._budgets import Budget
from tests.integration.jobs.conftest import Shell

MANY = 40


async def _taken(budget: Budget, wanted: int, within: float, others: int = MANY) -> int:
    """Take up to *wanted* slots while others wait for one too; returns how many."""
    taken, deadline = 0, time.monotonic() + within
    while taken < wanted and time.monotonic() < deadline:
        while taken < wanted and budget.has_free():
            taken += budget.try_take()
        for _ in range(max(1, others)):
            if not budget.has_free():
                budget.want()
        await budget.tend()
        await asyncio.sleep(0.05)
    return taken


def test_more_may_wait_than_a_limit_has(shell: Shell) -> None:
    """Prefect refuses for good who asks for more slots than there are: nobody does."""
    name = f"device:few-{secrets.token_hex(4)}"

    async def use() -> tuple[int, int]:
        async with PrefectClient(shell.stack.api_url) as client:
            budget = Budget(name, client)
            first = await _taken(budget, 1, 30, others=0)
            rest = await _taken(budget, 2, 30)
            more = await _taken(budget, 1, 1)
            await budget.close()
            return first + rest, more

    with shell.limit(name, 3):
        assert asyncio.run(use()) == (3, 0)


def test_a_rate_limit_gives_no_more_than_has_grown(shell: Shell) -> None:
    """Its slots are not given back: they grow again, so many a second."""
    name, slots, rate = f"ca:rate-{secrets.token_hex(4)}", 4, 2.0

    async def use() -> tuple[int, float]:
        async with PrefectClient(shell.stack.api_url) as client:
            budget = Budget(name, client)
            began = time.monotonic()
            taken = await _taken(budget, slots + 3, 60)
            for _ in range(taken):
                budget.give_back()
            await budget.close()
            return taken, time.monotonic() - began

    with shell.limit(name, slots, rate):
        taken, took = asyncio.run(use())

    assert taken == slots + 3
    assert taken <= slots + rate * took


def test_a_limit_that_is_lowered_meanwhile_still_gives(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator lowers a limit below what was asked for at a time until then."""
    name = f"device:lowered-{secrets.token_hex(4)}"
    # What Prefect refuses tells it; the look of every half minute would hide that it does.
    monkeypatch.setattr(_budgets, "_LOOK_SECONDS", 3600.0)

    async def use() -> tuple[int, int]:
        async with PrefectClient(shell.stack.api_url) as client:
            budget = Budget(name, client)
            assert await _taken(budget, 12, 30) == 12
            await budget.close()
            shell.api.patch(f"/v2/concurrency_limits/{name}", limit=2)
            taken = await _taken(budget, 2, 30)
            more = await _taken(budget, 1, 1)
            await budget.close()
            return taken, more

    with shell.limit(name, 12):
        assert asyncio.run(use()) == (2, 0)
