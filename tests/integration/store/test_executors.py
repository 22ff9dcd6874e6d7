"""Agents and sensors: heard of, silent, back; each silence is one message."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from certrail.store import executors
from certrail.store.database import transaction
from certrail.store.schema import executors as table
from certrail.store.schema import outbox
from tests.integration.store.conftest import Inventory

AFTER = timedelta(seconds=90)


def beat(name: str = "web01", pool: str = "agents") -> None:
    executors.beat(pool, name, ["default", name], version="1", host="h")


def quiet_since(name: str, ago: timedelta) -> None:
    with transaction() as connection:
        now: datetime = connection.execute(select(table.c.last_seen_at)).scalars().first()  # type: ignore[assignment]
        connection.execute(update(table).where(table.c.name == name).values(last_seen_at=now - ago))


def told() -> list[tuple[str, str, dict[str, Any]]]:
    query = (
        select(outbox.c.event, outbox.c.resource, outbox.c.payload)
        .where(outbox.c.event.startswith("certrail.executor."))
        .order_by(outbox.c.id)
    )
    with transaction() as connection:
        return [(row.event, row.resource, row.payload) for row in connection.execute(query)]


def test_one_that_falls_silent_is_told_once_with_what_waits_for_it(inventory: Inventory) -> None:
    """Agent or sensor is down and automation is already scheduled."""
    inventory.endpoint("far.test:443", profile="p", target="web", executor="web01")
    inventory.request("far.test:443")
    beat()
    beat("other")
    assert executors.find_silent(AFTER) == []
    quiet_since("web01", 2 * AFTER)

    (found,) = executors.find_silent(AFTER)
    assert executors.find_silent(AFTER) == []

    assert (found.name, found.status, found.waiting) == ("web01", "silent", 1)
    ((event, resource, payload),) = told()
    assert (event, resource) == ("certrail.executor.silent", "certrail.executor.agents.web01")
    assert (payload["waiting"], payload["pool"]) == (1, "agents")
    beat()
    beat()
    assert [one[0] for one in told()][1:] == ["certrail.executor.recovered"]
    assert {one.name: one.status for one in executors.everyone(AFTER)} == {
        "web01": "online",
        "other": "online",
    }


def test_a_silence_that_nobody_noticed_yet_is_shown(inventory: Inventory) -> None:
    """The reconciling flow may be what is down."""
    beat()
    quiet_since("web01", 2 * AFTER)

    (found,) = executors.everyone(AFTER)

    assert found.status == "silent"
    assert told() == []


def test_one_that_was_stopped_says_so(inventory: Inventory) -> None:
    """An upgrade is no alarm, unless it lasts."""
    beat()
    executors.stopped("agents", "web01")
    assert [one.status for one in executors.everyone(AFTER)] == ["stopped"]
    assert executors.find_silent(AFTER) == []
    quiet_since("web01", 2 * AFTER)
    assert len(executors.find_silent(AFTER)) == 1


def test_work_for_one_that_nobody_heard_of_is_shown(inventory: Inventory) -> None:
    """A typo in `executor` looks like a request that takes long."""
    inventory.endpoint("far.test:443", profile="p", target="web", executor="wbe01")
    inventory.request("far.test:443")
    beat()

    assert executors.unknown() == {"wbe01": 1}
    assert executors.forget("web01", "ann") == 1
    assert executors.forget("web01", "ann") == 0


@pytest.mark.parametrize(("own", "expected"), [("web01", "web01"), (None, "dmz")])
def test_the_endpoints_executor_counts_before_that_of_its_target(
    inventory: Inventory, own: str | None, expected: str
) -> None:
    """A target reached by one agent can have a site that only another reaches."""
    from certrail.store import configured, plans

    with transaction() as connection:
        configured.keep_executor(connection, "web", "dmz")
    inventory.endpoint("one.test:443", profile="p", target="web", executor=own)

    assert plans.for_location("one.test:443").plan.executor == expected
