"""Renewals where the clock of the worker is wrong by two years: that of the database counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest
from prefect.logging import disable_run_logger

from tasks.renewal import decide_and_schedule
from tests.integration.store.conftest import Inventory
from tests.support.fleet import DAY, LIFETIME, Fleet

SIZE = 6
DAYS = 40


def sweep_as_the_flow_does(_: datetime) -> None:
    """Sweep with nothing but this process's clock and the database to tell what time it is."""
    with disable_run_logger():
        asyncio.run(decide_and_schedule.fn())


@pytest.mark.parametrize("years", [-2, 2], ids=["behind", "ahead"])
def test_no_renewal_is_lost_or_made_twice(inventory: Inventory, years: int) -> None:
    """One certificate for each that comes near its end, before that, and right on time."""
    begin = datetime(datetime.now(UTC).year - years, 2, 1, tzinfo=UTC)
    inventory.profile("p", validation={"method": "dns-01", "dns": "ns"})
    fleet = Fleet(begin, sweep=sweep_as_the_flow_does)
    fleet.start()
    for number in range(SIZE):
        wanted = {"location": f"e{number}.test:443", "profile": "p", "target": "web"}
        fleet.add(wanted, ca="ca", age=LIFETIME * 0.57 * number / SIZE)

    fleet.pass_time(begin + DAYS * DAY, DAY)

    assert fleet.gaps == []
    assert fleet.expired() == []
    replaced = Counter(one.replaces for one in fleet.orders)
    assert None not in replaced
    assert set(replaced.values()) == {1}, "made twice"
    by_location = Counter(one.location for one in fleet.orders)
    assert len(by_location) == SIZE, "lost"
    assert set(by_location.values()) <= {1, 2}, "made early"
