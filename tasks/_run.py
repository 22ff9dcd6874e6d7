"""One run of a request: lease, steps in order, final state."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from prefect import State, get_client, get_run_logger
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed

from blocks._base import forget_connectors
from certrail.cli import _starting
from certrail.cli._prefect import approval_state
from certrail.errors import CertrailError, InvalidRequest, JournalConflict
from certrail.handover import somebody_cancelled
from certrail.model import Workflow
from certrail.store import request_ends, request_runs, requests
from certrail.store.requests import Request
from certrail.tracker import ACTIVE, STEPS, SUCCESSFUL, Status
from tasks._outbox import nudge
from tasks._page import leave_page
from tasks._threads import in_lease_thread
from tasks._waiting import leave, leave_until, must_be_approved, window_of

StepTask = Callable[[str], Awaitable[State[Any]]]

_LEASE = timedelta(seconds=float(os.environ.get("CERTRAIL_LEASE_SECONDS", "60")))

# What Retry in either of Prefect's UIs and `prefect flow-run retry` say.
_BY_HAND = ("Retry from the UI", "Retried via CLI")

_cancelled: set[UUID] = set()
_owners: dict[UUID, set[str]] = {}
_owner: ContextVar[str] = ContextVar("certrail-lease-owner", default="")


async def run_steps(request_id: str, workflow: Workflow, steps: Sequence[StepTask]) -> State[Any]:
    """Run the steps of a request one after the other and return the flow's final state.

    A step that failed or was cancelled ends the run. Steps that an earlier
    run finished return at once.
    """
    log = get_run_logger()
    waiting: State[Any] | None = None
    try:
        if _is_begun_again() and (over := await _over(UUID(request_id))) is not None:
            return over
        async with _held(UUID(request_id)) as (request, owner):
            if request.workflow is not workflow:
                raise InvalidRequest(f"this is a {request.workflow} request, not {workflow}")
            nudge()
            for title, step in zip(STEPS[workflow], steps, strict=True):
                waiting = await window_of(request, owner, title)
                if waiting is not None:
                    break
                state = await step(request_id)
                if state.is_cancelled():
                    await _end(request, owner, Status.CANCELLED)
                    return Cancelled(message=state.message)
                if not state.is_completed():
                    await _end(request, owner, Status.AUTOMATION_FAILED)
                    return Failed(message=state.message)
            else:
                done = (
                    Status.CERTIFICATE_DELIVERED
                    if workflow is Workflow.DELIVERY
                    else Status.AUTOMATION_SUCCESSFUL
                )
                await _end(request, owner, done)
                return Completed(message=f"{request.location}: {done.text.lower()}")
        assert waiting is not None
        log.info("%s", waiting.message)
        return await leave_until(UUID(request_id), waiting)
    except CertrailError as exc:
        if isinstance(exc, InvalidRequest) and not await _is_active(UUID(request_id)):
            over = await _over(UUID(request_id))
            # Of a run that never began before, it is only seen here that Retry was pressed.
            return over or await run_steps(request_id, workflow, steps)
        log.error("%s. %s", exc, exc.remedy)  # noqa: TRY400 - cause and remedy, no traceback
        return Failed(message=f"{exc}. {exc.remedy}")


async def _over(request_id: UUID) -> State[Any] | None:
    """Return the state of a run that was begun again although its request is over.

    Retry on the run's page means the same as `certrail request retry`: the
    request is opened again, and None is returned for it to go on.

    Raises:
        CertrailError: it cannot be opened again now.
        Pause: it is open again, and waits for approval.
    """
    request = await in_lease_thread(requests.get, request_id)
    if request.status in ACTIVE:
        return None
    told = f"{request.location}: {request.status.text.lower()} before this; nothing was done"
    if request.status in SUCCESSFUL:
        return Completed(message=told)
    if request.flow_run_id is not None and await retried_by_hand(request.flow_run_id):
        try:
            opened = await in_lease_thread(_starting.reopen, request, "Prefect UI")
        except InvalidRequest as exc:
            told = f"{exc}. {exc.remedy}"
        else:
            if opened.status is Status.APPROVAL_PENDING:
                # To retry is not to approve, not even where anybody may.
                await leave(approval_state(opened))
            return None
    return Cancelled(message=told) if request.status is Status.CANCELLED else Failed(message=told)


async def _is_active(request_id: UUID) -> bool:
    request = await in_lease_thread(requests.get, request_id)
    return request.status in ACTIVE


def _is_begun_again() -> bool:
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.run_count > 1


async def retried_by_hand(run_id: UUID) -> bool:
    """Return whether it was a person who had the run scheduled again last."""
    # What a repair or a stopping worker scheduled again must not bring a cancelled request back.
    async with get_client() as client:
        last = scheduled_last(await client.read_flow_run_states(run_id))
    return last is not None and (last.message or "") in _BY_HAND


def scheduled_last(states: Sequence[State[Any]]) -> State[Any] | None:
    """Return the last of a run's *states* that had it scheduled, None if none did."""
    asked = [state for state in states if state.is_scheduled()]
    return max(asked, key=lambda state: state.timestamp, default=None)


def is_cancelled(request_id: UUID) -> bool:
    """Return whether this process has heard that the request is to stop."""
    return request_id in _cancelled


def note_cancelled(request_id: UUID) -> None:
    """Note that somebody asked a request that runs here to stop."""
    if request_id in _owners:
        _cancelled.add(request_id)


def owner_here() -> str:
    """Return the name under which the run of this context holds its request, "" for none.

    Not one for the whole process: where a lease ran out under a living run, the next run of the
    request is often in the same process, and both would do what is left to be done.
    """
    return _owner.get()


def must_hold(request: Request) -> None:
    """Check that the run of this context still has the request.

    Raises:
        JournalConflict: the lease ran out meanwhile and another run took over.
    """
    if request.lease_owner != owner_here():
        raise JournalConflict(f"{request.lease_owner or 'nobody'} holds this request now")


@asynccontextmanager
async def _held(request_id: UUID) -> AsyncIterator[tuple[Request, str]]:
    """Hold the request's lease, renewing it, until the block ends; yields the owner too."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    try:
        request = await _take(request_id, owner)
    except InvalidRequest:
        # Asked only now: most requests need no approval, or have it.
        await must_be_approved(request_id)
        request = await _take(request_id, owner)
    _owners.setdefault(request_id, set()).add(owner)
    token = _owner.set(owner)
    if request.run_count > 1:
        forget_connectors()
    beat = asyncio.create_task(_renew(request_id, owner))
    try:
        yield request, owner
    except asyncio.CancelledError:
        # The step in hand has ended by now.
        if somebody_cancelled():
            await in_lease_thread(
                request_ends.finish, request_id, owner, Status.CANCELLED, because="operator"
            )
        else:
            await in_lease_thread(request_runs.release, request_id, owner)
        raise
    finally:
        _owner.reset(token)
        _owners[request_id].discard(owner)
        if not _owners[request_id]:
            del _owners[request_id]
            _cancelled.discard(request_id)
        beat.cancel()
        with suppress(asyncio.CancelledError):
            await beat


async def _take(request_id: UUID, owner: str) -> Request:
    context = FlowRunContext.get()
    run_id = context.flow_run.id if context is not None and context.flow_run else None
    # A worker that was killed leaves its lease behind; it runs out by itself.
    deadline = asyncio.get_running_loop().time() + 2 * _LEASE.total_seconds()
    while True:
        try:
            return await in_lease_thread(
                partial(request_runs.take, request_id, owner, _LEASE, flow_run_id=run_id)
            )
        except JournalConflict:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(min(1.0, _LEASE.total_seconds() / 4))


async def _renew(request_id: UUID, owner: str) -> None:
    while True:
        await asyncio.sleep(_LEASE.total_seconds() / 3)
        with suppress(CertrailError):
            if await in_lease_thread(request_runs.renew_leases, owner, [request_id], _LEASE):
                _cancelled.add(request_id)


async def _end(request: Request, owner: str, status: Status) -> None:
    await in_lease_thread(request_ends.finish, request.id, owner, status)
    nudge()
    # A page costs as much as a step, so it is for what somebody will look into.
    if request.job_id is None and (status not in SUCCESSFUL or request.run_count > 1):
        await leave_page(request.id)
