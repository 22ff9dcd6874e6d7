"""Keeping Prefect and our record together, and noticing what nobody else would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.runtime import flow_run
from prefect.states import Crashed

from certrail.cli import _prefect
from certrail.errors import CertrailError
from certrail.renewal.follow import Follow, RunSeen, follow
from certrail.settings import silent_after
from certrail.store import approvals, audit, executors, request_ends, request_schedule
from certrail.store.requests import Request
from certrail.tracker import Status
from certrail.words import counted
from tasks._places import AWAITING_PLACE
from tasks._server_time import server_now
from tasks._threads import in_thread

_ACTOR = "reconcile"
_IN_PREFECT = "an operator in Prefect"
_PAGE = 200
_FOLLOWED = 1000
_STUCK = timedelta(minutes=10)
_HELD_SLOT = timedelta(minutes=5)
HOUSEKEEPING = "housekeeping"
_BUSY = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


@task(
    name="Follow Prefect",
    task_run_name="Follow Prefect",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def follow_prefect() -> int:
    """Take over what operators did to scheduled runs in Prefect: moved, or cancelled.

    Returns how many requests changed.
    """
    changed = 0
    listed = await in_thread(request_schedule.scheduled, _FOLLOWED)
    async with get_client() as client:
        seen = await runs_by_id(client, [r.flow_run_id for r in listed if r.flow_run_id])
        for request in listed:
            run = seen.get(request.flow_run_id) if request.flow_run_id else None
            if run is not None and run.state is not None and run.state.name == AWAITING_PLACE:
                continue  # nobody moved it: it began, and a budget was used up
            verdict = follow(_seen(run), scheduled_at=request.scheduled_at, told_at=request.told_at)
            if verdict is Follow.LEAVE or run is None:
                continue
            if verdict is Follow.CANCEL:
                verdict = await _cancelled(client, request, run)
            else:
                await in_thread(request_schedule.adopt, request.id, _begins(run), _IN_PREFECT)
            changed += 1
            get_run_logger().info("%s: %s in Prefect", request.location, verdict)
    return changed


async def _cancelled(client: PrefectClient, request: Request, run: FlowRun) -> Follow:
    """Cancel a request whose *run* somebody cancelled; or move it, if they copied it before.

    Prefect's pages have no field for the time of a run. What they have is *Copy to new
    run*, with a time, and then *Cancel*. The copy has neither the name of the request's run
    nor its labels, nor waits it for the executor that reaches the target: it is replaced.
    """
    if (copy := await _copied(client, request, run)) is None:
        await in_thread(_cancel, request)
        return Follow.CANCEL
    at = _begins(copy)
    again = await in_thread(_run_instead, request, copy, at)
    # The copy goes last: a turn that dies in between does all of this again.
    await in_thread(request_schedule.adopt, request.id, at, _IN_PREFECT, flow_run_id=again)
    await client.delete_flow_run(copy.id)
    return Follow.ADOPT


def _run_instead(request: Request, copy: FlowRun, at: datetime) -> UUID:
    with _prefect.runs() as opened:
        return opened.start(request, key=f"{request.id}-{copy.id}", at=at)


async def _copied(client: PrefectClient, request: Request, run: FlowRun) -> FlowRun | None:
    """Return another run of the same request that is still to begin."""
    if run.deployment_id is None:
        return None
    offset = 0
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
            ),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id])),
            limit=_PAGE,
            offset=offset,
        )
        for other in page:
            if other.parameters.get("request_id") == str(request.id) and other.id != run.id:
                return other
        if len(page) < _PAGE:
            return None
        offset += _PAGE


@task(
    name="End what is over",
    task_run_name="End what is over",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def end_what_is_over() -> None:
    """Expire approvals that nobody gave, and cancel runs of requests that ended without them."""
    for request in await in_thread(approvals.overdue):
        await in_thread(approvals.expire, request)
        get_run_logger().warning("%s: nobody approved it in time", request.location)
    for request in await in_thread(request_schedule.ended_elsewhere, _PAGE):
        try:
            await in_thread(_prefect.cancel_run, request)
        except CertrailError as exc:
            get_run_logger().warning("%s: %s", request.location, exc)
            continue
        await in_thread(request_schedule.prefect_knows, request.id)


@task(
    name="Find silent executors",
    task_run_name="Find silent executors",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def find_silent_executors() -> int:
    """Tell, once, which agents and sensors have fallen silent."""
    found = await in_thread(executors.find_silent, silent_after())
    for one in found:
        get_run_logger().warning(
            "%s of the pool %s is silent; %s for it",
            one.name,
            one.pool,
            counted(one.waiting, "request waits", "requests wait"),
        )
    return len(found)


@task(
    name="End dead runs",
    task_run_name="End dead runs",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def end_dead_runs() -> int:
    """End housekeeping that nobody works on any more, and give back slots that no run holds.

    Runs of requests are ended by our own record, see :mod:`tasks.settlement`.
    Returns how many were ended.
    """
    async with get_client() as client:
        deployments = await _deployments(client)
        keeping = [d.id for d in deployments if HOUSEKEEPING in d.tags]
        ended = await _end(client, await _busy(client, keeping, _STUCK))
        for deployment in deployments:
            await _free_slots(client, deployment)
    return ended


async def _deployments(client: PrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while True:  # each saved report with a schedule is one
        page = await client.read_deployments(limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return found


async def runs_by_id(client: PrefectClient, ids: list[UUID]) -> dict[UUID, FlowRun]:
    """Return the flow runs that Prefect has, by id."""
    found: dict[UUID, FlowRun] = {}
    for start in range(0, len(ids), _PAGE):
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + _PAGE])),
            limit=_PAGE,
        )
        found |= {run.id: run for run in page}
    return found


def _seen(run: FlowRun | None) -> RunSeen:
    if run is None or run.state is None:
        return RunSeen(None)
    at = run.state.state_details.scheduled_time
    return RunSeen(run.state.type.value, _plain(at) if at else None)


def _begins(run: FlowRun) -> datetime:
    assert run.state is not None
    at = run.state.state_details.scheduled_time
    assert at is not None
    return _plain(at)


def _plain(moment: Any) -> datetime:
    return datetime.fromtimestamp(moment.timestamp(), UTC)


def _cancel(request: Request) -> None:
    request_ends.finish(request.id, "", Status.CANCELLED, because="operator")
    audit.note_now(_IN_PREFECT, "request.cancel", str(request.id), {"location": request.location})


async def _busy(client: PrefectClient, ids: list[UUID], since: timedelta) -> list[FlowRun]:
    """Return runs of deployments that have been under way, in one state, for a while."""
    if not ids:
        return []
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_BUSY))
        ),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=ids)),
        limit=_PAGE,
    )
    before = await server_now(client) - since
    return [
        run
        for run in found
        # Where the server's clock was put right meanwhile, the run that looks seems to be old.
        if run.state and run.state.timestamp < before and str(run.id) != flow_run.id
    ]


async def _end(client: PrefectClient, dead: list[FlowRun]) -> int:
    for run in dead:
        # Not by force: Prefect's own rules then give back the slots it held.
        await client.set_flow_run_state(
            run.id, Crashed(message="housekeeping takes seconds: the worker that ran it died")
        )
        await in_thread(
            audit.note_now,
            _ACTOR,
            "repair.end-run",
            str(run.id),
            {"name": run.name, "was": run.state_name, "is": "Crashed"},
        )
        get_run_logger().warning("%s was %s: its worker died", run.name, run.state_name)
    return len(dead)


async def _free_slots(client: PrefectClient, deployment: DeploymentResponse) -> None:
    """Give back slots of a deployment's limit that no run holds."""
    limit = deployment.global_concurrency_limit
    if limit is None or not limit.active_slots:
        return
    if limit.updated is None or limit.updated > await server_now(client) - _HELD_SLOT:
        return
    busy = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_BUSY))
        ),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        limit=_PAGE,
    )
    if len(busy) >= limit.active_slots:
        return
    await client.update_global_concurrency_limit(
        limit.name, GlobalConcurrencyLimitUpdate(active_slots=len(busy))
    )
    await in_thread(
        audit.note_now,
        _ACTOR,
        "repair.free-slots",
        deployment.name,
        {"limit": limit.name, "held": limit.active_slots, "used": len(busy)},
    )
