"""The page that a request leaves in Prefect: what it says to somebody at three in the morning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from certrail.configuration.plan import ConnectorRef, Plan
from certrail.model import Action, Workflow
from certrail.request_page import page
from certrail.store.request_view import RequestView
from certrail.store.requests import Reason, Request
from certrail.store.steps import Step
from certrail.tracker import STEPS, Status, StepStatus

NIGHT = datetime(2027, 2, 1, 3, tzinfo=UTC)


def _view(status: Status, *, cause: str | None = None, run: str = "run-1") -> RequestView:
    plan = Plan(
        location="www.example.test:443",
        names=("*.example.test",),
        addresses=(),
        sni=None,
        target=ConnectorRef(name="web01", slug="host-ssh"),
        workflow=Workflow.WEB_SERVER,
        profile="public_web",
        ca=ConnectorRef(name="le", slug="ca-acme"),
        dns=ConnectorRef(name="ns", slug="dns-rfc2136"),
    )
    request = Request(
        id=UUID("3f2a9c41-0000-4000-8000-000000000000"),
        endpoint_id=UUID(int=1),
        location=plan.location,
        workflow=plan.workflow,
        action=Action.RENEW,
        status=status,
        reason=Reason("requested", "asked by ada"),
        requested_by="ada",
        plan=plan,
        run_count=1,
        job_id=None,
        certificate_id=None,
        previous_certificate_id=None,
        staged=None,
        flow_run_id=UUID(int=2),
        cancel_requested=False,
        lease_owner=None,
        created_at=NIGHT,
        scheduled_at=None,
        started_at=NIGHT,
        ended_at=NIGHT + timedelta(minutes=1),
    )
    failed = 4 if cause else 0
    steps = tuple(
        Step(
            number=number,
            title=title,
            status=StepStatus.FAILED
            if number == failed
            else StepStatus.PENDING
            if failed and number > failed
            else StepStatus.COMPLETED,
            detail=None if number == failed else f"did {number}",
            started_at=NIGHT,
            ended_at=NIGHT,
            attempts=1,
            cause=cause if number == failed else None,
            remedy="Correct the file, then retry." if number == failed else None,
            retryable=False if number == failed else None,
            error="ActivationRefused" if number == failed else None,
        )
        for number, title in enumerate(STEPS[plan.workflow], start=1)
    )
    return RequestView(request, steps, None, None, f"http://ui/{run}")


def test_a_failure_comes_with_cause_remedy_and_what_to_type() -> None:
    """Nobody should have to look for the commands, or for what they need to be given."""
    text = page(_view(Status.AUTOMATION_FAILED, cause="nginx -t failed"), [])

    assert text.startswith("# renew www.example.test:443: automation failed\n")
    assert "**Step 4, Certificate installed, failed:** nginx -t failed" in text
    assert "**What to do:** Correct the file, then retry. A retry alone won't help." in text
    assert "certrail request retry 3f2a9c41 --wait\n" in text
    assert "certrail endpoint show www.example.test:443\n" in text
    assert "certrail connector check le web01 ns\n" in text


def test_what_others_wrote_cannot_change_the_page() -> None:
    """A CA's or a device's words are shown; they make no table cell, link or tag."""
    cause = "no <script>|[click](http://evil)\nnext *line*"

    text = page(_view(Status.AUTOMATION_FAILED, cause=cause), [])

    assert r"no \<script\>\|\[click\](http://evil) next \*line\*" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 4. ")]
    assert row.replace(r"\|", "").count("|") == 4
    assert r"\*.example.test" in text
    code = page(_view(Status.AUTOMATION_FAILED, cause="add `server_name a|b;` there_now"), [])
    assert r"add `server_name a\|b;` there\_now" in code


def test_the_requests_before_it_are_a_click_away() -> None:
    """Whether it ever worked, and since when it does not, is the second question."""
    view = _view(Status.CANCELLED)
    before = _view(Status.AUTOMATION_SUCCESSFUL, run="run-0")

    text = page(view, [before])

    assert "- [renew www.example.test:443](http://ui/run-0), automation successful" in text
    assert "certrail request retry" in text
    assert "certrail request retry" not in page(before, [])
