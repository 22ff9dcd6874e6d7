"""The sweep on a real database: decided once, scheduled once, moved and called off as told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from certrail.errors import Conflict, NotFound
from certrail.model import Action, KeyAlgorithm, RenewalInfo
from certrail.renewal.due import Code, Decision
from certrail.steps import renewal
from certrail.store import certificates as certificate_store
from certrail.store import (
    endpoint_detail,
    plans,
    renewal_decisions,
    renewal_facts,
    renewal_info,
    renewals,
    request_ends,
    request_runs,
    request_schedule,
    requests,
)
from certrail.store import inventory as rows
from certrail.store.database import transaction
from certrail.store.requests import Reason, Request
from certrail.store.schema import certificates, endpoints
from certrail.store.schema import requests as table
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, issue

WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)
NIGHT = {"start": "02:00", "end": "05:00"}


def now() -> datetime:
    return datetime.now(UTC)


def serving(inventory: Inventory, name: str, days: float = 60, **fields: Any) -> UUID:
    """Add an endpoint that got a certificate from us; it was valid for 30 days before today."""
    inventory.endpoint(f"{name}:443", profile="p", target="web", **fields)
    return inventory.certificate(f"{name}:443", issue(name, days=days))


def turn(at: datetime | None = None, horizon: timedelta = WEEK) -> renewal.Turn:
    return renewal.turn(at or now(), horizon=horizon)


def row(name: str) -> rows.Endpoint:
    return endpoint_detail.get(f"{name}:443").row


def only_request(name: str) -> Request:
    return requests.find(f"{name}:443")


def decision(name: str) -> dict[str, Any]:
    with transaction() as connection:
        found = connection.execute(
            select(endpoints.c.renewal).where(endpoints.c.location == f"{name}:443")
        ).scalar()
    return dict(found or {})


def set_request(request: Request, **columns: Any) -> None:
    with transaction() as connection:
        connection.execute(update(table).where(table.c.id == request.id).values(**columns))


def fail(request: Request, ended: datetime) -> None:
    request_runs.take(request.id, "w", HOUR)
    request_ends.finish(request.id, "w", Status.AUTOMATION_FAILED)
    set_request(request, ended_at=ended)


def test_a_renewal_that_is_far_away_is_known_and_not_scheduled(inventory: Inventory) -> None:
    """The inventory shows when; a run of Prefect's is made a week before."""
    serving(inventory, "far.test", days=60)

    done = turn()

    assert (done.decided, done.scheduled) == (1, [])
    found = row("far.test")
    assert found.automation_status is Status.AUTO_RENEW_SCHEDULED
    assert found.next_renewal_at is not None
    # Of 90 days: between 57 % and 67 %, and 30 have passed.
    assert timedelta(days=20) < found.next_renewal_at - now() < timedelta(days=31)
    assert decision("far.test")["code"] == "renewal-due"
    assert turn().decided == 0  # nothing changed


def test_a_near_renewal_becomes_a_request_with_its_reason(inventory: Inventory) -> None:
    """It is made once, however often the sweep runs."""
    before = serving(inventory, "near.test", days=24)

    made = turn().scheduled

    assert len(made) == 1
    request = requests.get(made[0])
    assert request.reason.code == "renewal-due"
    assert "% of its lifetime" in request.reason.message
    assert (request.action, request.status) == (Action.RENEW, Status.AUTOMATION_SCHEDULED)
    assert request.scheduled_at == row("near.test").next_renewal_at
    assert request.previous_certificate_id == before
    assert row("near.test").automation_status is Status.AUTO_RENEW_SCHEDULED
    assert [turn().scheduled for _ in range(3)] == [[], [], []]


def test_what_a_request_brought_is_decided_anew(inventory: Inventory) -> None:
    """A sweep between a request's test and its end knew nothing of the new certificate."""
    serving(inventory, "between.test", days=60)
    assert turn().decided == 1
    assert turn().decided == 0

    with transaction() as connection:
        connection.execute(
            update(endpoints)
            .where(endpoints.c.location == "between.test:443")
            .values(last_success_at=now())
        )

    assert turn().decided == 1


def test_a_decision_from_what_is_no_longer_so_is_not_kept(inventory: Inventory) -> None:
    """A request may end while the sweep decides, with a moment before that of the sweep."""
    serving(inventory, "during.test", days=60)
    began = now()
    versions = renewal_decisions.undecided(began, 10)
    known = renewal_facts.look(list(versions))
    inventory.set("during.test:443", last_success_at=began - HOUR, renewal_decided_at=None)

    renewal_decisions.keep([(one, Decision(Code.DUE, "", began)) for one in known], began, versions)

    assert row("during.test").next_renewal_at is None
    assert list(renewal_decisions.undecided(now(), 10)) == list(known)


def test_what_changed_is_decided_anew(inventory: Inventory) -> None:
    """A name that was added, a CA that suggests another time, a revocation."""
    for name in ("names.test", "ari.test", "revoked.test", "quiet.test"):
        serving(inventory, name)
    turn()
    inventory.endpoint(
        "names.test:443", profile="p", target="web", names=["names.test", "more.test"]
    )
    suggested = RenewalInfo(now() - HOUR, now() - HOUR / 2, "https://ca.test/why", HOUR)
    moved = renewal_info.keep(certificate_of("ari.test"), suggested, now(), now() + HOUR)
    with transaction() as connection:
        connection.execute(
            update(certificates)
            .where(certificates.c.id == certificate_of("revoked.test"))
            .values(revoked_at=now())
        )

    done = turn()

    assert moved
    assert done.decided == 3
    codes = {requests.get(one).reason.code: requests.get(one).location for one in done.scheduled}
    assert codes == {
        "renewal-names-changed": "names.test:443",
        "renewal-ari": "ari.test:443",
        "renewal-revoked": "revoked.test:443",
    }
    assert only_request("names.test").plan.names == ("names.test", "more.test")
    assert "https://ca.test/why" in only_request("ari.test").reason.message


def certificate_of(name: str) -> UUID:
    with transaction() as connection:
        found: UUID = connection.execute(
            select(endpoints.c.certificate_id).where(endpoints.c.location == f"{name}:443")
        ).scalar_one()
    return found


def test_the_ca_is_asked_as_often_as_it_wants(inventory: Inventory) -> None:
    """RFC 9773 section 4.3: not before Retry-After; an error does not undo what was known."""
    certificate = serving(inventory, "asked.test")
    serving(inventory, "other.test")
    inventory.profile("own", renew={"use_ari": False}, validation={"method": "dns-01", "dns": "ns"})
    inventory.endpoint("other.test:443", profile="own", target="web")

    assert [q.certificate_id for q in renewal_info.questions(now(), 10)] == [certificate]
    window = RenewalInfo(now() + WEEK, now() + 2 * WEEK, "", 6 * HOUR)
    assert renewal_info.keep(certificate, window, now(), now() + 6 * HOUR)
    assert renewal_info.questions(now() + 5 * HOUR, 10) == []
    later = now() + 7 * HOUR
    assert len(renewal_info.questions(later, 10)) == 1
    assert not renewal_info.keep(certificate, window, later, later + HOUR)  # the same again
    assert not renewal_info.keep(certificate, None, later, later + HOUR, "the CA is away")
    turn()
    assert decision("asked.test")["code"] == "renewal-ari"
    assert renewal_info.keep(certificate, None, later, later + HOUR)  # no longer offered
    turn()
    assert decision("asked.test")["code"] == "renewal-due"


def test_a_scheduled_renewal_follows_the_window_of_the_ca(inventory: Inventory) -> None:
    """Moved for all at once: the requests that are there are moved, no second ones are made."""
    certificate = serving(inventory, "moved.test", days=24)
    (made,) = turn().scheduled
    request_schedule.told(made, requests.get(made).scheduled_at)
    assert renewal_info.keep(
        certificate, RenewalInfo(now() - 2 * HOUR, now() - HOUR, "", HOUR), now(), now() + HOUR
    )

    done = turn()

    assert done.scheduled == []
    assert done.moved == [made]
    request = requests.get(made)
    assert request.scheduled_at is not None
    assert abs(request.scheduled_at - now()) < HOUR / 10
    assert request.reason.code == "renewal-ari"
    set_request(request, flow_run_id=uuid4())
    assert [r.id for r in renewals.untold(10)] == [made]


def test_an_operators_moment_holds(inventory: Inventory) -> None:
    """Whoever moved it knows why; the sweep leaves it where it is."""
    serving(inventory, "pinned.test", days=24)
    (made,) = turn().scheduled
    wanted = now() + timedelta(days=3)

    assert request_schedule.adopt(made, wanted, "an operator")
    inventory.set("pinned.test:443", renewal_decided_at=None)
    done = turn()

    assert (done.scheduled, done.moved) == ([], [])
    assert requests.get(made).scheduled_at == wanted
    assert requests.get(made).is_pinned


def test_a_cancelled_renewal_stays_cancelled(inventory: Inventory) -> None:
    """Until somebody switches it on again; the endpoint is shown as at risk meanwhile."""
    serving(inventory, "held.test", days=24)
    (made,) = turn().scheduled

    request_ends.ask_to_cancel(made, "ann@host")

    assert turn().scheduled == []
    assert turn(now() + timedelta(days=3)).scheduled == []
    assert decision("held.test")["code"] == "held"
    set_request(requests.get(made), ended_at=now() - timedelta(days=2))
    assert row("held.test").automation_status is Status.AUTOMATION_AT_RISK
    renewal_decisions.hold("HELD.test:443", True, "ann@host")
    assert len(turn().scheduled) == 1
    with pytest.raises(NotFound):
        renewal_decisions.hold("nowhere.test:443", True, "ann@host")


def test_switched_off_nothing_is_scheduled(inventory: Inventory) -> None:
    """For the endpoint or the profile; a renewal that is scheduled is called off."""
    serving(inventory, "off.test", days=24)
    (made,) = turn().scheduled

    renewal_decisions.hold("off.test:443", False, "ann@host")
    done = turn()

    assert done.ended == [made]
    ended = requests.get(made)
    assert (ended.status, ended.ended_because) == (Status.CANCELLED, "called-off")
    assert [r.id for r in request_schedule.ended_elsewhere(10)] == [made]
    assert turn().scheduled == []
    renewal_decisions.hold("off.test:443", None, "ann@host")
    assert len(turn().scheduled) == 1


def test_what_a_person_asks_for_takes_the_place_of_a_scheduled_renewal(
    inventory: Inventory,
) -> None:
    """Nobody has to cancel a renewal of next week to reissue today."""
    serving(inventory, "asked.test", days=24)
    (made,) = turn().scheduled

    asked = inventory.request("asked.test:443")

    assert requests.get(made).ended_because == "superseded"
    assert asked.status is Status.AUTOMATION_REQUESTED
    assert turn().scheduled == []
    with pytest.raises(Conflict):
        inventory.request("asked.test:443")
    assert [r.id for r in request_schedule.ended_elsewhere(10)] == [made]


def test_a_failed_renewal_goes_on_with_the_same_request(inventory: Inventory) -> None:
    """No second order; shown as failed until it is tried again."""
    serving(inventory, "failed.test", days=10)
    (made,) = turn().scheduled
    fail(requests.get(made), now())

    assert turn().scheduled == []
    assert row("failed.test").automation_status is Status.AUTOMATION_FAILED
    again = row("failed.test").next_renewal_at
    assert again is not None
    assert abs(again - now() - HOUR) < HOUR / 20
    later = now() + 2 * HOUR
    assert turn(later).scheduled == [made]
    request = requests.get(made)
    assert request.status is Status.AUTOMATION_SCHEDULED
    assert request.ended_at is None
    # What was obtained for other names stays what it is.
    fail(request, now())


def test_what_was_obtained_is_not_ordered_again(inventory: Inventory) -> None:
    """Obtain and apply are separate: the plan of an order stands, whatever is configured since."""
    serving(inventory, "kept.test", days=10)
    (made,) = turn().scheduled
    request_runs.take(made, "w", HOUR)
    with transaction() as connection:
        from certrail.store import certificates as store

        obtained = store.save(connection, issue("kept.test", days=90), ca="ca")
        requests.keep_certificate(connection, made, obtained)
    request_ends.finish(made, "w", Status.AUTOMATION_FAILED)
    inventory.endpoint(
        "kept.test:443", profile="p", target="web", names=["kept.test", "new.test"],
        address="127.0.0.1:9",
    )  # fmt: skip

    done = turn(now() + 2 * HOUR)

    assert done.scheduled == []  # decided anew, an hour from the failure
    assert turn(now() + 5 * HOUR).scheduled == [made]
    plan = requests.get(made).plan
    assert plan.names == ("kept.test",)
    assert plan.addresses == ("127.0.0.1:9",)


def test_a_certificate_of_the_profile_that_was_changed(inventory: Inventory) -> None:
    """Compared is what was ordered, so that a CA which does as it likes is asked once."""
    serving(inventory, "key.test")
    prepared = plans.for_location("key.test:443")
    ordered = prepared.plan.model_copy(update={"key_algorithm": KeyAlgorithm.RSA_2048})
    done = inventory.request("key.test:443")
    set_request(
        done,
        status=Status.AUTOMATION_SUCCESSFUL,
        ended_at=now(),
        certificate_id=prepared.certificate_id,
        plan=ordered.model_dump(mode="json"),
    )

    (made,) = turn().scheduled

    request = requests.get(made)
    assert request.reason == Reason(
        "renewal-profile-changed", "the key is ecdsa-p256 now, it was rsa-2048"
    )


def test_the_budget_of_the_ca_is_kept(inventory: Inventory) -> None:
    """Mass revocation: the critical ones first, no hour above its budget."""
    inventory.profile("p", validation={"method": "dns-01", "dns": "ns"}, renew={"max_per_hour": 3})
    for number in range(10):
        name = f"surge{number}.test"
        serving(inventory, name, criticality="critical" if number >= 8 else "low")
        with transaction() as connection:
            connection.execute(
                update(certificates)
                .where(certificates.c.id == certificate_of(name))
                .values(revoked_at=now())
            )

    done = turn()

    made = sorted((requests.get(one) for one in done.scheduled), key=lambda r: str(r.scheduled_at))
    assert [r.location for r in made[:2]] == ["surge8.test:443", "surge9.test:443"] or [
        r.location for r in made[:2]
    ] == ["surge9.test:443", "surge8.test:443"]
    hours = [int(r.scheduled_at.timestamp() // 3600) for r in made if r.scheduled_at]
    assert max(hours.count(hour) for hour in hours) <= 3
    again = turn()
    assert (again.scheduled, again.moved) == ([], [])


def test_a_renewal_keeps_to_the_maintenance_window(inventory: Inventory) -> None:
    """The plan says when it may be installed; the deadline only where the profile lets it."""
    window = {"validation": {"method": "dns-01", "dns": "ns"}, "maintenance_window": NIGHT}
    inventory.profile("p", **window)
    serving(inventory, "window.test", days=24)
    (made,) = turn().scheduled
    hold = requests.get(made).plan.hold
    assert hold is not None
    assert hold.deadline is None
    assert hold.calendar.is_open(requests.get(made).scheduled_at or now())

    inventory.profile("p", **window, renew={"deadline_overrides_window": True})
    turn()

    hold = requests.get(made).plan.hold
    assert hold is not None
    assert hold.deadline is not None
    assert timedelta(days=17) < hold.deadline - now() < timedelta(days=20)


def test_it_waits_with_its_certificate_for_the_window(inventory: Inventory) -> None:
    """Visible as such: scheduled, the step says for what."""
    serving(inventory, "waits.test", days=24)
    (made,) = turn().scheduled
    request_runs.take(made, "w", HOUR)
    until = now() + 5 * HOUR

    request_runs.wait(made, "w", until, "waits for the maintenance window", 4)

    waiting = requests.get(made)
    assert (waiting.status, waiting.waits_for) == (Status.AUTOMATION_SCHEDULED, "window")
    assert waiting.scheduled_at == until
    assert turn().moved == []
    assert requests.get(request_runs.take(made, "v", HOUR).id).waits_for is None


def test_an_endpoint_that_cannot_be_renewed_says_why(inventory: Inventory) -> None:
    """It is in the record rather than in a log."""
    serving(inventory, "broken.test", days=24)
    inventory.set("broken.test:443", target=None)

    assert turn().scheduled == []

    assert decision("broken.test")["code"] == "not-configured"
    assert "no target" in decision("broken.test")["message"]


def test_a_first_certificate_is_obtained_where_the_profile_says_so(inventory: Inventory) -> None:
    """Not by default: applying a file must not order a thousand certificates."""
    inventory.endpoint("new.test:443", profile="p", target="web")
    assert turn().scheduled == []
    assert decision("new.test")["code"] == "no-certificate"

    inventory.profile("p", validation={"method": "dns-01", "dns": "ns"}, renew={"enroll": True})
    (made,) = turn().scheduled

    assert requests.get(made).action is Action.ENROLL
    assert requests.get(made).reason.code == "renewal-missing"


def test_what_was_taken_back_does_not_come_again_by_itself(inventory: Inventory) -> None:
    """The sweep would renew it within the hour, and the outage would be back."""
    serving(inventory, "back.test", days=1)
    with transaction() as connection:
        before = certificate_store.save(connection, issue("back.test", days=2), ca="ca")
    made = inventory.request("back.test:443", action="rollback", certificate_id=before)
    request_runs.take(made.id, "w", HOUR)
    request_ends.finish(made.id, "w", Status.AUTOMATION_SUCCESSFUL)

    assert turn().scheduled == []
    assert decision("back.test")["code"] == "held"
    assert "a rollback" in decision("back.test")["message"]
    renewal_decisions.hold("back.test:443", True, "ann@host")
    assert len(turn().scheduled) == 1
