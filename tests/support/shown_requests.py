"""A request as it is shown, made without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from certrail.configuration.plan import ConnectorRef, Plan
from certrail.model import Action, Workflow
from certrail.store.request_view import RequestView
from certrail.store.requests import Reason, Request
from certrail.store.steps import Step
from certrail.tracker import STEPS, Status, StepStatus

_NIGHT = datetime(2027, 2, 1, 3, tzinfo=UTC)


def shown_request(status: Status, *, cause: str | None = None, run: str = "run-1") -> RequestView:
    """Return a renewal on a web server; with *cause* its fourth step failed."""
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
        created_at=_NIGHT,
        scheduled_at=None,
        started_at=_NIGHT,
        ended_at=_NIGHT + timedelta(minutes=1),
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
            started_at=_NIGHT,
            ended_at=_NIGHT,
            attempts=1,
            cause=cause if number == failed else None,
            remedy="Correct the file, then retry." if number == failed else None,
            retryable=False if number == failed else None,
            error="ActivationRefused" if number == failed else None,
        )
        for number, title in enumerate(STEPS[plan.workflow], start=1)
    )
    return RequestView(request, steps, None, None, f"http://ui/{run}")
