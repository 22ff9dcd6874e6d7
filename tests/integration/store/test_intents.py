"""What was begun, and of which nobody knows whether it happened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from certrail.cli._checks import Verdict, _journal
from certrail.journal import Journal
from certrail.model import KeyAlgorithm
from certrail.reports import dashboard
from certrail.store import intents, orders, requests
from certrail.store.requests import Request
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory

NOW = timedelta(0)


def begin(request: Request, action: str, key: str = "k", *, done: bool = False) -> None:
    with Journal(request.id, 1).effect(action, key) as effect:
        if done:
            effect.record({"line": "done"})


def ended(inventory: Inventory, name: str, status: Status) -> Request:
    inventory.endpoint(f"{name}:443", profile="p", target="web")
    return inventory.request(f"{name}:443", status=status, ended_at=datetime.now(UTC))


def test_a_request_that_asks_itself_is_no_news(inventory: Inventory) -> None:
    """One under way, or one that failed: going on means to ask first."""
    begin(ended(inventory, "active.test", Status.IN_PROGRESS), "order.open")
    begin(ended(inventory, "failed.test", Status.AUTOMATION_FAILED), "install.activate")
    done = ended(inventory, "done.test", Status.AUTOMATION_SUCCESSFUL)
    begin(done, "install.activate", done=True)
    begin(done, "challenge.publish")

    assert intents.unknown(NOW) == []


def test_what_nobody_will_ask_about_is_told(inventory: Inventory) -> None:
    """An order that is paid for, or half an installation, is somebody's problem."""
    cancelled = ended(inventory, "cancelled.test", Status.CANCELLED)
    begin(cancelled, "order.open")
    replaced = ended(inventory, "replaced.test", Status.AUTOMATION_FAILED)
    begin(replaced, "install.activate")
    inventory.request("replaced.test:443")

    found = {one.location: one for one in intents.unknown(NOW)}

    assert set(found) == {"cancelled.test:443", "replaced.test:443"}
    assert found["cancelled.test:443"].request_id == cancelled.id
    assert "an order of these names" in found["cancelled.test:443"].remedy
    assert "endpoint scan replaced.test:443" in found["replaced.test:443"].remedy
    # Not before it is certain that nobody is just about to record it.
    assert intents.unknown() == []
    (finding,) = _journal()
    assert finding.status is Verdict.OK


def test_an_order_that_is_known_to_be_dead_is_no_riddle(inventory: Inventory) -> None:
    """The CA was asked, and the request went on with another one."""
    request = ended(inventory, "dead.test", Status.IN_PROGRESS)
    order = orders.begin(request.id, "ca", ["dead.test"], KeyAlgorithm.ECDSA_P256)
    begin(request, "order.finalize", str(order.key))
    orders.bury(request.id, "it expired")
    inventory.set_request(request, status=Status.AUTOMATION_SUCCESSFUL)

    assert intents.unknown(NOW) == []


def test_doctor_and_dashboard_show_it(inventory: Inventory) -> None:
    """With the request, what was begun, since when, and what to do."""
    request = ended(inventory, "shown.test", Status.CANCELLED)
    begin(request, "deliver")
    inventory.age_journal(timedelta(hours=2))

    (finding,) = _journal()
    shown = dashboard.build().to_json()["unknown_outcomes"]

    assert finding.status is Verdict.WARNING
    assert "shown.test:443: deliver was begun on" in finding.message
    assert str(request.id)[:8] in finding.message
    assert "Look at the destination" in finding.remedy
    assert [one["request_id"] for one in shown] == [str(request.id)]
    assert requests.get(request.id).status is Status.CANCELLED
