"""What is shown of a request is the documented object."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import select

from certrail.errors import ProbeFailed
from certrail.model import Action
from certrail.store import (
    new_requests,
    request_ends,
    request_runs,
    request_view,
    requests,
    steps,
)
from certrail.store.database import transaction
from certrail.store.schema import outbox
from certrail.tracker import Status, StepStatus
from tests.integration.store.conftest import Inventory, issue

UI = "http://127.0.0.1:4200"
KEYS = {
    "request_id",
    "location",
    "workflow",
    "action",
    "status",
    "job_name",
    "reason",
    "scheduled_at",
    "started_at",
    "ended_at",
    "flow_run_id",
    "flow_run_url",
    "certificate",
    "steps",
}
STEP_KEYS = [
    "number",
    "title",
    "status",
    "detail",
    "started_at",
    "ended_at",
    "attempts",
    "cause",
    "remedy",
    "retryable",
]


def test_the_object_has_the_documented_keys(inventory: Inventory) -> None:
    """Other programs rely on them; more may be there, none may be missing."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    certificate = inventory.certificate("a.test:443", issue("a.test"))
    run = uuid4()
    made = inventory.request("a.test:443", certificate_id=certificate, flow_run_id=run)

    shown = request_view.view(made, ui_url=UI).to_json()

    assert set(shown) >= KEYS
    assert "history" not in shown
    assert [list(step) for step in shown["steps"]] == [STEP_KEYS] * 5
    assert set(shown["certificate"]) == {"fingerprint", "serial", "not_after", "issuer"}
    assert shown["reason"] == {"code": "requested", "message": "because"}
    assert shown["flow_run_url"] == f"{UI}/runs/flow-run/{run}"
    assert shown["certificate"]["not_after"].endswith("Z")
    assert json.loads(json.dumps(shown)) == shown


def test_a_failed_step_says_why_and_every_try_is_in_the_history(inventory: Inventory) -> None:
    """Cause, remedy and whether a retry helps are what people look for."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    made = inventory.request("a.test:443")
    steps.begin(made.id, 1, 1, None)
    steps.fail(made.id, 1, ProbeFailed("seen another", remedy="look"), final=False)
    steps.begin(made.id, 1, 1, None)
    steps.fail(made.id, 1, ProbeFailed("seen another again", remedy="look"), final=True)
    request_ends.finish(made.id, "", Status.AUTOMATION_FAILED)

    view = request_view.find(str(made.id)[:8], ui_url=UI, history=True)

    assert view.is_over
    assert not view.is_successful
    assert view.failed_step is not None
    assert view.failed_step.status is StepStatus.FAILED
    shown = view.to_json()
    first = shown["steps"][0]
    assert (first["cause"], first["remedy"], first["retryable"]) == (
        "seen another again",
        "look",
        True,
    )
    assert first["attempts"] == 2
    assert [one["cause"] for one in shown["history"]] == ["seen another", "seen another again"]


def test_several_are_shown_in_their_order(inventory: Inventory) -> None:
    """A list asks three times in all, not three times for each."""
    for name in ("a", "b", "c"):
        inventory.endpoint(f"{name}.test:443", profile="p", target="web")
        inventory.request(f"{name}.test:443")

    shown = request_view.views(requests.newest(limit=2), ui_url=UI)

    assert [view.request.location for view in shown] == ["c.test:443", "b.test:443"]
    assert [len(view.steps) for view in shown] == [5, 5]
    assert request_view.views([], ui_url=UI) == []


def test_a_planned_renewal_does_not_hide_what_happened(inventory: Inventory) -> None:
    """Somebody who looks at a location after an alarm means the request that failed."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    failed = inventory.request("a.test:443")
    request_ends.finish(failed.id, "", Status.AUTOMATION_FAILED)
    planned = new_requests.create(
        failed.endpoint_id,
        action=Action.RENEW,
        plan=failed.plan,
        reason=requests.Reason("renewal-due", "two thirds of its life are over"),
        actor="renewal",
        scheduled_at=datetime.now(UTC) + timedelta(days=1),
    )

    assert requests.find("a.test:443").id == planned.id
    assert requests.find("a.test:443", begun=True).id == failed.id
    assert request_view.find("a.test:443", ui_url=UI).request.id == failed.id
    assert requests.find(str(planned.id), begun=True).id == planned.id


def test_a_renewal_that_has_begun_is_shown_while_it_waits(inventory: Inventory) -> None:
    """For its window, or to be tried again after a failure: it is not only planned any more."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    before = inventory.request("a.test:443")
    request_ends.finish(before.id, "", Status.AUTOMATION_SUCCESSFUL)
    renewal = inventory.request("a.test:443", "renewal-due")
    request_runs.take(renewal.id, "w", timedelta(hours=1))

    inventory.set_request(
        renewal,
        status=Status.AUTOMATION_SCHEDULED,
        scheduled_at=datetime.now(UTC) + timedelta(days=1),
    )

    assert request_view.find("a.test:443", ui_url=UI).request.id == renewal.id


def test_what_is_told_once_is_told_once(inventory: Inventory) -> None:
    """A step whose commit was answered by silence is gone through again."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    made = inventory.request("a.test:443")
    event = "certrail.certificate.issued"

    for once in ("first", "first", "second", None, None):
        with transaction() as connection:
            requests.announce(connection, made.id, event, once=once, serial="1")

    with transaction() as connection:
        told = connection.execute(
            select(outbox.c.once, outbox.c.payload)
            .where(outbox.c.request_id == made.id, outbox.c.event == event)
            .order_by(outbox.c.id)
        ).all()
    assert [once for once, _ in told] == ["first", "second", None, None]
    assert told[0].payload == {"location": "a.test:443", "action": "renew", "serial": "1"}
