"""Runs that wait: for an approval, or with their certificate for a maintenance window.

They leave the worker meanwhile. Prefect shows what is waited for, and an
operator can resume, move or cancel the run there.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import State, get_client
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Completed, Scheduled

from certrail.cli._prefect import approval_state
from certrail.renewal.hold import install_at
from certrail.store import approvals, database, request_runs, requests, steps
from certrail.store.requests import Request
from certrail.tracker import APPLYING, STEPS, Status, StepStatus, Title
from tasks._threads import in_lease_thread

_IN_PREFECT = "somebody in Prefect's pages"


async def must_be_approved(request_id: UUID) -> None:
    """Go on if the request needs no approval, or whoever resumed its run may give it.

    Raises:
        Pause: it goes on waiting.
    """
    request = await in_lease_thread(requests.get, request_id)
    if request.status is not Status.APPROVAL_PENDING:
        return
    if approvals.by_anyone(request):
        await in_lease_thread(approvals.approve, request_id, _IN_PREFECT)
        return
    # Prefect knows one password, not who has it: that is nobody's approval.
    await leave(approval_state(request))


async def window_of(request: Request, owner: str, title: Title) -> State[Any] | None:
    """Return what to wait for before the step *title*, None to go on.

    The lease is given back: whoever goes on takes it anew.
    """
    if title not in APPLYING or request.plan.hold is None:
        return None
    verdict = install_at(request.plan.hold, await in_lease_thread(database.now))
    if verdict.until is None:
        return None
    number = STEPS[request.workflow].index(title) + 1
    listed = await in_lease_thread(steps.of_request, request.id)
    if listed[number - 1].status in (StepStatus.COMPLETED, StepStatus.SKIPPED):
        return None
    await in_lease_thread(
        request_runs.wait, request.id, owner, verdict.until, verdict.message, number
    )
    return Scheduled(name="AwaitingWindow", scheduled_time=verdict.until, message=verdict.message)


async def leave_until(request_id: UUID, state: State[Any]) -> State[Any]:
    """Leave the worker with *state*.

    A run without a deployment could not be taken up again: it ends, and the
    request gets another run.

    Raises:
        Pause: the run is scheduled for later.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None:
        await in_lease_thread(requests.bind_run, request_id, None)
        return Completed(name="AwaitingWindow", message=state.message)
    await leave(state)
    return state


async def leave(state: State[Any]) -> None:
    """Leave the worker with *state*; the run has a deployment, and comes back.

    Raises:
        Pause: always.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    async with get_client() as client:
        await client.set_flow_run_state(context.flow_run.id, state, force=True)
    raise Pause(state.message or "", state=state)
