"""Months of a fleet in seconds: renewed in time, once, within the budgets, whatever else happens.

``make test`` goes through half a year of a small fleet; ``make simulate``
through a year of a thousand endpoints, and prints the load.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.store.conftest import Inventory
from tests.support.fleet import DAY, HOUR, LIFETIME, Away, Fleet, Ordered

# In a leap year; the clocks of Berlin change on 26 March and 29 October.
BEGIN = datetime(2028, 2, 1, tzinfo=UTC)
SIZE = int(os.environ.get("CERTRAIL_SIMULATED_ENDPOINTS", "60"))
DAYS = int(os.environ.get("CERTRAIL_SIMULATED_DAYS", "182"))
PER_HOUR = max(1, SIZE // 50)
RANKS = ("critical", "high", "normal", "low")

CA_AWAY = BEGIN + 40 * DAY
AGENT_AWAY = BEGIN + 75 * DAY
SURGE = BEGIN + 120 * DAY


@pytest.fixture
def fleet(inventory: Inventory) -> Fleet:
    """Half of it at each of two CAs, a quarter behind one agent, a half with nightly windows."""
    validation = {"method": "dns-01", "dns": "ns"}
    renew = {"max_per_hour": PER_HOUR}
    night = {"start": "22:00", "end": "04:00", "timezone": "Europe/Berlin"}
    inventory.connector("other", "ca-acme")
    inventory.connector("far", "host-ssh")
    inventory.profile("p", validation=validation, renew=renew)
    inventory.profile("q", ca="other", validation=validation, renew=renew, maintenance_window=night)
    made = Fleet(
        BEGIN,
        away=(
            Away("ca", CA_AWAY, CA_AWAY + 2 * DAY),
            Away("far", AGENT_AWAY, AGENT_AWAY + 7 * DAY),
        ),
    )
    made.start()
    for number in range(SIZE):
        ca, profile = ("ca", "p") if number % 2 else ("other", "q")
        wanted = {
            "location": f"e{number}.test:443",
            "profile": profile,
            "target": "far" if number % 4 < 1 else "web",
            "criticality": RANKS[number // 4 % 4],
        }
        made.add(wanted, ca=ca, age=LIFETIME * 0.57 * number / SIZE)
    return made


def test_months_of_a_fleet(fleet: Fleet) -> None:
    """At 47 days nobody looks at renewals any more: they have to be right by themselves."""
    fleet.pass_time(CA_AWAY, DAY)
    fleet.pass_time(CA_AWAY + 3 * DAY, 4 * HOUR)
    assert fleet.failures, "nobody noticed that the CA was away"
    fleet.pass_time(AGENT_AWAY + 7 * DAY, DAY)
    assert fleet.held, "nothing had to wait for the agent"
    fleet.pass_time(AGENT_AWAY + 8 * DAY, 2 * HOUR)
    fleet.pass_time(SURGE, DAY)
    calm = list(fleet.orders)
    moved = fleet.move_windows("ca", SURGE - 2 * HOUR, SURGE - HOUR)
    fleet.pass_time(SURGE + 3 * DAY, 2 * HOUR)
    surge = [one for one in fleet.orders[len(calm) :] if one.reason == "renewal-ari"]
    fleet.pass_time(BEGIN + DAYS * DAY, DAY)

    if report := os.environ.get("CERTRAIL_SIMULATION_REPORT"):
        Path(report).write_text(_told(fleet, calm, surge) + "\n")
    assert fleet.gaps == []
    assert fleet.expired() == []
    assert fleet.waited, "no window was waited for"
    # Nothing twice: one order for each certificate that was replaced.
    replaced = Counter(one.replaces for one in fleet.orders)
    assert None not in replaced
    assert set(replaced.values()) == {1}
    assert len(fleet.orders) > SIZE * DAYS / 32
    # No hour of a CA beyond its budget, failed attempts counted.
    assert max(fleet.asked.values()) <= PER_HOUR
    # Mass revocation: everything of that CA, the critical ones first.
    assert len(surge) == moved
    order = [RANKS.index(one.criticality) for one in surge]
    assert order == sorted(order)
    assert surge[-1].at - SURGE < 2 * DAY
    peak, mean = _load(calm)
    # Chance alone gives a few endpoints a day of three times the mean.
    assert peak <= 3 * mean + 6


def _load(ordered: list[Ordered]) -> tuple[int, float]:
    days = Counter((one.at - BEGIN) // DAY for one in ordered)
    return max(days.values()), len(ordered) / (max(days) + 1)


def _told(fleet: Fleet, calm: list[Ordered], surge: list[Ordered]) -> str:
    parts = {
        "before the CA was away": [one for one in calm if one.at < CA_AWAY],
        "until the surge": calm,
        "in all": fleet.orders,
    }
    lines = [f"{SIZE} endpoints, {DAYS} days: {len(fleet.orders)} certificates"]
    for what, ordered in parts.items():
        peak, mean = _load(ordered)
        lines.append(f"{what}: {peak} on the busiest day, {mean:.1f} on average")
    lines.append(f"most attempts in an hour at a CA: {max(fleet.asked.values())} of {PER_HOUR}")
    lines.append(f"surge: {len(surge)} certificates in {surge[-1].at - SURGE}")
    lines.append(f"attempts while the CA was away: {fleet.failures}")
    lines.append(f"renewals that waited for the agent: {len(fleet.held)}")
    return "\n".join(lines)
