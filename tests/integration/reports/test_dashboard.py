"""Every figure of the dashboard is the number of rows that its filter opens."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from certrail.reports import dashboard, markdown, page
from certrail.store import executors
from certrail.store import inventory as query
from certrail.store.database import transaction
from certrail.store.schema import certificates
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, inventory, issue

__all__ = ["inventory"]

NOW = datetime.now(UTC)


@pytest.fixture
def fleet(inventory: Inventory) -> Inventory:
    """Endpoints in every state that the dashboard tells apart."""
    statuses = [
        Status.AUTOMATION_FAILED,
        Status.ACTION_REQUIRED,
        Status.APPROVAL_PENDING,
        Status.IN_PROGRESS,
        Status.AUTOMATION_REQUESTED,
        Status.AUTOMATION_SUCCESSFUL,
    ]
    for number, status in enumerate(statuses):
        location = f"{status}.test:443"
        inventory.endpoint(location, profile="p", target="web")
        inventory.certificate(location, issue(f"{status}.test", days=10 + number))
        inventory.request(location, status=status, ended_at=NOW)
    inventory.endpoint("expired.test:443", profile="p", target="web")
    inventory.certificate("expired.test:443", issue("expired.test", days=-2))
    inventory.endpoint("late.test:443", profile="p", target="web")
    inventory.certificate("late.test:443", issue("late.test", days=3))
    inventory.set("late.test:443", next_renewal_at=NOW + timedelta(days=5))
    for number in range(3):
        location = f"due{number}.test:443"
        inventory.endpoint(location, profile="p", target="web")
        inventory.certificate(location, issue(f"due{number}.test", days=40))
        due = (NOW + timedelta(days=2)).replace(hour=3, minute=number)
        inventory.set(location, next_renewal_at=due, last_success_at=NOW)
    inventory.endpoint("<b>x.test:443")
    inventory.set(
        "<b>x.test:443",
        observed={"findings": [{"code": "weak-key", "message": "m"}, {"code": "old-tls"}]},
        observed_at=NOW,
    )
    inventory.endpoint("other.test:443")
    shared = issue("shared.test", days=300)
    inventory.certificate("<b>x.test:443", shared)
    inventory.certificate("other.test:443", shared)
    with transaction() as connection:
        # The other certificates of these tests have one key; here it matters.

        connection.execute(
            update(certificates)
            .where(certificates.c.fingerprint != shared.fingerprint)
            .values(key_hash=certificates.c.fingerprint)
        )

    for location in [row.location for row in query.find()]:
        inventory.set(location, observed_at=NOW)
    return inventory


def test_every_figure_counts_the_rows_of_its_filter(fleet: Inventory) -> None:
    """A number that opens another number of rows is worse than none."""
    board = dashboard.build()

    for figure in board.figures():
        clauses = query.parse_filter(figure.filter) if figure.filter else []
        assert len(query.find(clauses)) == figure.count, figure
    counts = {figure.code: figure.count for figure in board.figures()}
    assert {code: counts[code] for code in ("expired", "too-late", "approvals")} == {
        "expired": 1,
        "too-late": 1,
        "approvals": 1,
    }
    assert counts["weak-key"] == counts["old-tls"] == 1
    assert counts["key-reused"] == 2
    assert counts["all"] == 13
    assert counts["longer-100"] == 0
    assert counts["by-hand-100"] == 2


def test_the_least_time_left_comes_first(fleet: Inventory) -> None:
    """Who has ten minutes works from the top."""
    board = dashboard.build()

    assert [row.location for row in board.urgent][:2] == ["expired.test:443", "late.test:443"]
    assert "after the certificate has ended" in dashboard.urgent_row(board.urgent[1])["why"][0]


def test_renewals_to_come_and_those_that_meet(fleet: Inventory) -> None:
    """Three on one target in one hour wait for each other."""
    board = dashboard.build()
    shown = board.to_json()

    assert len(board.groups["calendar"]) == 30
    assert shown["renewals_next_7_days"] == shown["renewals_next_30_days"] == 4
    assert [one["count"] for one in shown["coming"]] == [4, 4]
    assert sum(figure.count for figure in board.groups["calendar"]) == 4
    (collision,) = board.collisions
    assert (collision.name, collision.figure.count) == ("web", 3)
    assert shown["ca_load"][0]["label"] == "ca"


def test_the_fullest_hour_of_each_ca_against_its_budget(fleet: Inventory) -> None:
    """What is beyond the budget begins later than the calendar says."""
    fleet.profile("p", validation={"method": "dns-01", "dns": "ns"}, renew={"max_per_hour": 2})

    board = dashboard.build()

    (busiest,) = board.busiest
    assert (busiest.of, busiest.name, busiest.figure.count, busiest.budget) == ("ca", "ca", 3, 2)
    assert busiest.is_over
    assert board.to_json()["busiest_hours"][0]["over_budget"]
    for shown in (page.dashboard(board), markdown.dashboard(board)):
        assert "of 2 that may begin in an hour" in shown


def test_agents_and_connectors_open_their_endpoints(fleet: Inventory) -> None:
    """Which ones wait for the agent that fell silent, and which for the DNS server?"""
    executors.beat("agents", "branch-1", ["branch-1"], version="1", host="far")
    fleet.endpoint("far.test:443", profile="p", target="web", executor="branch-1")
    fleet.connector("far-web", "host-ssh", executor="branch-1", check_ok=False)
    fleet.endpoint("there.test:443", profile="p", target="far-web")

    board = dashboard.build()

    (agent,) = board.executors
    assert agent["figure"].filter == "executor=branch-1"
    found = {row.location for row in query.find(query.parse_filter(agent["figure"].filter))}
    assert found == {"far.test:443", "there.test:443"}
    opened = {row["name"]: row["figure"] for row in board.connectors}
    assert {name: figure.filter for name, figure in opened.items()} == {
        "ca": "ca=ca",
        "ns": "dns=ns",
        "web": "target=web",
        "far-web": "target=far-web",
    }
    assert opened["ns"].count == opened["ca"].count == 13
    assert board.connectors[0]["name"] == "far-web"
    shown = board.to_json()
    assert shown["executors"][0]["command"] == ("certrail endpoint list --filter executor=branch-1")
    assert shown["connectors"][0]["count"] == 1


def test_steps_in_flight_and_the_rate_of_success(fleet: Inventory) -> None:
    """What runs is grouped by where it stands."""
    board = dashboard.build()

    (step,) = board.groups["in_flight"]
    assert (step.label, step.count) == ("ACME account created", 3)
    # Three proven; one failed and one waits for a person.
    assert board.success_rate == 0.6


def test_an_empty_inventory_has_a_dashboard(inventory: Inventory) -> None:
    """It is the first thing that people open."""
    board = dashboard.build()

    assert board.success_rate is None
    assert not board.urgent
    assert "nothing was tried" in page.dashboard(board)
    assert "nothing was tried" in markdown.dashboard(board)


def test_pages_escape_what_strangers_wrote(fleet: Inventory) -> None:
    """Locations and names come from scans of anything."""
    board = dashboard.build()
    text = page.dashboard(board)

    assert "<b>x" not in text
    assert not re.findall(r"<script|javascript:|https?://(?!www\.w3\.org)", text)
    assert "<b>x" not in markdown.dashboard(board)
