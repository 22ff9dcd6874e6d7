"""Who may approve, until when, and what becomes of a request that nobody approves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from certrail.errors import InvalidRequest, PermissionRefused
from certrail.jobs.status import JobStatus
from certrail.model import Action
from certrail.steps import renewal
from certrail.store import (
    approvals,
    job_control,
    job_ends,
    job_shards,
    jobs,
    new_requests,
    plans,
    renewal_decisions,
    request_ends,
    request_runs,
    request_schedule,
    requests,
)
from certrail.store.database import transaction
from certrail.store.requests import Reason, Request
from certrail.store.schema import audit, outbox
from certrail.store.schema import requests as table
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, issue, job_of, of

DNS = {"validation": {"method": "dns-01", "dns": "ns"}}
HOUR = timedelta(hours=1)


def asked(
    inventory: Inventory, action: Action = Action.RENEW, at: datetime | None = None, **approval: Any
) -> Request:
    inventory.profile("p", approval=approval, **DNS)
    inventory.endpoint("www.test:443", profile="p", target="web")
    certificate = inventory.certificate("www.test:443", issue("www.test"))
    prepared = plans.for_location("www.test:443")
    return new_requests.create(
        prepared.endpoint_id,
        action=action,
        plan=prepared.plan,
        reason=Reason("requested", "because"),
        actor="ann@ops",
        scheduled_at=at,
        certificate_id=certificate if action is Action.REDEPLOY else None,
    )


def events(request: Request) -> list[str]:
    query = select(outbox.c.event).where(outbox.c.request_id == request.id).order_by(outbox.c.id)
    with transaction() as connection:
        return list(connection.execute(query).scalars())


def late(request: Request) -> None:
    with transaction() as connection:
        connection.execute(
            update(table)
            .where(table.c.id == request.id)
            .values(approval_until=datetime.now(UTC) - HOUR)
        )


def test_it_waits_and_no_run_can_take_it(inventory: Inventory) -> None:
    """Whoever starts its run by another way than approval gets nothing."""
    request = asked(inventory)

    assert request.status is Status.APPROVAL_PENDING
    assert events(request) == ["certrail.request.approval-pending"]
    assert request.approval_until is not None
    assert timedelta(hours=71) < request.approval_until - datetime.now(UTC) < 73 * HOUR
    with pytest.raises(InvalidRequest, match="waits for approval"):
        request_runs.take(request.id, "w", HOUR)


def test_a_second_person_approves(inventory: Inventory) -> None:
    """Four eyes: not those of the one who asked."""
    request = asked(inventory, by="second-person")

    with pytest.raises(PermissionRefused, match="somebody else"):
        approvals.approve(request.id, "ann@ops")
    done = approvals.approve(request.id, "bob@ops", "CHG-7")

    assert done.status is Status.AUTOMATION_REQUESTED
    assert done.approval is not None
    assert (done.approval["decided_by"], done.approval["note"]) == ("bob@ops", "CHG-7")
    assert request_runs.take(request.id, "w", HOUR).status is Status.IN_PROGRESS
    with pytest.raises(InvalidRequest, match="does not wait"):
        approvals.approve(request.id, "bob@ops")
    with transaction() as connection:
        noted = connection.execute(
            select(audit.c.actor).where(audit.c.action == "request.approve")
        ).scalars()
        assert list(noted) == ["bob@ops"]


@pytest.mark.parametrize(("who", "may"), [("eve@ops", False), ("cid@ops", True)])
def test_only_those_named_approve(inventory: Inventory, who: str, may: bool) -> None:
    """Where the profile names them."""
    request = asked(inventory, by="anyone", approvers=["cid@ops"])

    assert not approvals.by_anyone(request)
    if may:
        assert approvals.approve(request.id, who).status is Status.AUTOMATION_REQUESTED
        return
    with pytest.raises(PermissionRefused, match="not among its approvers"):
        approvals.approve(request.id, who)
    with pytest.raises(PermissionRefused):
        approvals.deny(request.id, who)


def test_approved_before_its_time_it_waits_for_its_time(inventory: Inventory) -> None:
    """Approval says that it may be done, not that it is done now."""
    at = datetime.now(UTC) + 5 * HOUR
    request = asked(inventory, at=at, by="anyone")

    done = approvals.approve(request.id, "ann@ops")

    assert (done.status, done.scheduled_at) == (Status.AUTOMATION_SCHEDULED, at)
    assert events(request)[-1] == "certrail.request.scheduled"


def test_nobody_approves_in_time(inventory: Inventory) -> None:
    """It ends, is told, and an approval that comes later is refused."""
    request = asked(inventory)
    assert approvals.overdue() == []
    late(request)

    with pytest.raises(InvalidRequest, match="too late"):
        approvals.approve(request.id, "bob@ops")
    (found,) = approvals.overdue()
    approvals.expire(found)

    ended = requests.get(request.id)
    assert (ended.status, ended.ended_because) == (Status.CANCELLED, approvals.EXPIRED)
    assert events(request)[-1] == "certrail.request.cancelled"
    assert [r.id for r in request_schedule.ended_elsewhere(5)] == [request.id]
    request_schedule.prefect_knows(request.id)
    assert request_schedule.ended_elsewhere(5) == []


def test_what_issues_nothing_needs_no_approval(inventory: Inventory) -> None:
    """The certificate that is there is put back at three in the morning without waking anybody."""
    assert asked(inventory, Action.REDEPLOY).status is Status.AUTOMATION_REQUESTED


def test_a_refused_renewal_stays_away_and_an_unanswered_one_asks_again(
    inventory: Inventory,
) -> None:
    """No is an answer; silence is none."""
    inventory.profile("p", approval={"by": "anyone"}, **DNS)
    for name in ("refused.test", "silent.test"):
        inventory.endpoint(f"{name}:443", profile="p", target="web")
        inventory.certificate(f"{name}:443", issue(name, days=10))
    now = datetime.now(UTC)
    made = {requests.get(one).location: one for one in renewal.turn(now, horizon=HOUR).scheduled}

    approvals.deny(made["refused.test:443"], "bob@ops")
    silent = requests.get(made["silent.test:443"])
    late(silent)
    approvals.expire(requests.get(silent.id))

    assert renewal.turn(datetime.now(UTC), horizon=HOUR).scheduled == []
    later = datetime.now(UTC) + timedelta(days=1, hours=1)
    (again,) = renewal.turn(later, horizon=HOUR).scheduled
    assert requests.get(again).location == "silent.test:443"
    assert requests.get(again).status is Status.APPROVAL_PENDING


def expired(request: Request) -> None:
    late(request)
    approvals.expire(requests.get(request.id))


def cancelled(request: Request) -> None:
    request_ends.ask_to_cancel(request.id, "ann@ops")


def retried(request: Request, actor: str = "ann@ops") -> Request:
    return request_ends.reopen(request.id, plans.for_location(request.location).plan, actor)


@pytest.mark.parametrize("ended", [expired, cancelled])
def test_a_retry_is_no_way_around_an_approval(
    inventory: Inventory, ended: Callable[[Request], None]
) -> None:
    """Nobody has said yes: it is asked for anew, for as long as the first time."""
    request = asked(inventory, by="second-person")
    ended(request)

    again = retried(request)

    assert again.status is Status.APPROVAL_PENDING
    assert again.approval_until is not None
    assert timedelta(hours=71) < again.approval_until - datetime.now(UTC) < 73 * HOUR
    pending = "certrail.request.approval-pending"
    assert events(request) == [pending, "certrail.request.cancelled", pending]
    with pytest.raises(InvalidRequest, match="waits for approval"):
        request_runs.take(request.id, "w", HOUR)
    with pytest.raises(PermissionRefused, match="somebody else"):
        approvals.approve(request.id, "ann@ops")
    assert approvals.approve(request.id, "bob@ops").status is Status.AUTOMATION_REQUESTED


def test_what_was_denied_is_not_retried(inventory: Inventory) -> None:
    """No is an answer; whoever wants it all the same asks anew, by a request of its own."""
    request = asked(inventory)
    approvals.deny(request.id, "bob@ops")
    # That a renewal may come back does not make this one approved.
    renewal_decisions.hold("www.test:443", True, "ann@ops")

    with pytest.raises(InvalidRequest, match="bob@ops denied the request") as caught:
        retried(request)

    assert "certrail request start www.test:443" in caught.value.remedy
    assert requests.get(request.id).status is Status.CANCELLED


def test_what_was_approved_stays_approved(inventory: Inventory) -> None:
    """It failed for another reason, and whoever approved it need not be woken again."""
    request = asked(inventory)
    approvals.approve(request.id, "bob@ops")
    request_runs.take(request.id, "w", HOUR)
    request_ends.finish(request.id, "w", Status.AUTOMATION_FAILED)

    again = retried(request)

    assert again.status is Status.AUTOMATION_REQUESTED
    assert again.approval is not None
    assert again.approval["decided_by"] == "bob@ops"
    assert request_runs.take(request.id, "w", HOUR).run_count == 2


def test_a_retry_goes_by_the_profile_as_it_is_now(inventory: Inventory) -> None:
    """As for all else in a retry: one that asks no more lets it go on, one that asks now asks."""
    request = asked(inventory)
    cancelled(request)
    inventory.profile("p", **DNS)
    assert retried(request).status is Status.AUTOMATION_REQUESTED
    cancelled(request)

    inventory.profile("p", approval={"by": "anyone", "expires_hours": 1}, **DNS)
    again = retried(request)

    assert again.status is Status.APPROVAL_PENDING
    assert approvals.by_anyone(again)
    assert again.approval_until is not None
    assert again.approval_until - datetime.now(UTC) < 2 * HOUR


def test_a_retry_of_a_job_asks_for_what_nobody_approved(inventory: Inventory) -> None:
    """Denied ones stay out; the one that was approved goes on, the others are asked for again."""
    inventory.profile("p", approval={"by": "anyone"}, **DNS)
    names = ["denied.test", "silent.test", "waits.test", "approved.test"]
    for name in names:
        inventory.endpoint(f"{name}:443", profile="p", target="web")
    job = job_of(*names)
    approvals.deny(of(job, "denied.test").id, "bob@ops")
    expired(of(job, "silent.test"))
    approvals.approve(of(job, "approved.test").id, "bob@ops")
    job_control.ask_to_cancel(job, "ann@ops")
    job_ends.finish(job.id, JobStatus.CANCELLED, "cancelled", actor="test")
    assert job_control.to_retry(job.id) == []
    rest = job_control.to_retry(job.id, rest=True)
    assert {one.location for one in rest} == {f"{name}:443" for name in names[1:]}
    denied = of(job, "denied.test")

    again = {one.id: one.plan for one in (*rest, denied)}
    count = job_control.reopen(jobs.by_id(job.id), again, "ann@ops")

    assert count == 3
    assert {name: of(job, name).status for name in names} == {
        "denied.test": Status.CANCELLED,
        "silent.test": Status.APPROVAL_PENDING,
        "waits.test": Status.APPROVAL_PENDING,
        "approved.test": Status.AUTOMATION_REQUESTED,
    }
    for name in ("silent.test", "waits.test"):
        assert events(of(job, name))[-1] == "certrail.request.approval-pending"
        with pytest.raises(InvalidRequest, match="waits for approval"):
            request_runs.take(of(job, name).id, "w", HOUR)
    runnable = {one.location for one in job_shards.open_requests(job.id, 1)}
    assert runnable == {"approved.test:443"}
