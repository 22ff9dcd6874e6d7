"""Putting Prefect's records right where a worker died before it could tell how things ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import State, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed

from certrail.agreement import is_shown_right
from certrail.model import Workflow
from certrail.store import audit, recorded
from certrail.store.recorded import Ended
from certrail.tracker import SUCCESSFUL, Status
from tasks import retelling
from tasks._server_time import server_now
from tasks._threads import in_thread

IDLE = "Nothing to do"
"""Name of the state of a repeated run that did nothing; such runs are not kept."""

_PAGE = 200
_GRACE = timedelta(seconds=float(os.environ.get("CERTRAIL_SETTLE_SECONDS", "60")))
_RECENT = timedelta(hours=1)
_OVERLAP = timedelta(minutes=10)
_MOST = 2000
_IDLE_KEPT = timedelta(minutes=5)
# Whoever makes a run binds it to its request within seconds.
_STRAY = timedelta(minutes=10)
_ACTOR = "reconcile"
_OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
_looked: datetime | None = None
"""When this process looked last for runs that broke."""

_REQUESTS = FlowFilter(name=FlowFilterName(any_=[str(workflow) for workflow in Workflow]))


@task(
    name="Settle records",
    task_run_name="Settle records",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def settle_records() -> dict[str, int]:
    """Give runs and steps that a dead worker left open the state that our rows have.

    Returns how many flow runs and task runs were corrected.
    """
    done: Counter[str] = Counter()
    async with get_client() as client:
        seen = await retelling.retell(client, _GRACE)
        for task_name, request_id in seen.told:
            await in_thread(_note_step, request_id, task_name)
            done["steps told again"] += 1
        for run in seen.short:
            await retelling.begin_again(client, run)
            await in_thread(_note_count, run)
            done["runs counted again"] += 1
        found = [*await _left_open(client), *await _broken(client), *seen.wrong]
        runs = list({run.id: run for run in found}.values())
        ended = await in_thread(recorded.ended, [run.id for run in runs], _GRACE)
        active = await in_thread(
            recorded.active, [str(one) for run in runs if (one := _named(run))]
        )
        now = await server_now(client)
        for run in runs:
            if (state := _due(run, ended, active, now)) is not None:
                # Prefect's rules for a forced state give back the slots that the run held, too.
                await client.set_flow_run_state(run.id, state, force=True)
                await in_thread(_note, "end-run", run, state)
                get_run_logger().warning("%s: %s", run.name, state.message)
                done["flow runs"] += 1
        for task_run in await _stuck(client):
            lost: State[Any] = Crashed(message="The worker that ran this died.")
            await client.set_task_run_state(task_run.id, lost, force=True)
            await in_thread(_note, "end-step", task_run, lost)
            done["task runs"] += 1
    return dict(done)


async def forget_idle() -> None:
    """Delete repeated runs that did nothing, so that people find the others."""
    async with get_client() as client:
        idle = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(name=FlowRunFilterStateName(any_=[IDLE])),
                end_time=FlowRunFilterEndTime(before_=datetime.now(UTC) - _IDLE_KEPT),
            ),
            limit=_PAGE,
        )
        for run in idle:
            try:
                await client.delete_flow_run(run.id)
            except ObjectNotFound:
                continue  # somebody else deleted it


def _due(
    run: FlowRun, ended: dict[UUID, Ended], active: set[str], now: datetime
) -> State[Any] | None:
    """Return the state that a run is to have, None to leave it alone."""
    found = ended.get(run.id)
    if found is None:
        return _abandoned(run, active, now)
    if run.state is None or is_shown_right(found.status, run.state.type.value):
        return None
    told = (
        f"{found.location}: {found.status.text.lower()}; its worker died before it could tell here"
    )
    if found.status in SUCCESSFUL:
        return Completed(message=told)
    return Cancelled(message=told) if found.status is Status.CANCELLED else Failed(message=told)


def _abandoned(run: FlowRun, active: set[str], now: datetime) -> State[Any] | None:
    """Return how a run ends that no request has: a form that died early, or a run left over."""
    state = run.state
    if state is None or state.is_final() or now - state.timestamp < _STRAY:
        return None
    if _named(run) is None:
        if not state.is_running():
            return None
        return Crashed(
            message="The worker died before the request was made. Nothing was ordered; press Retry."
        )
    return None if _named(run) in active else Crashed(message="No request belongs to it any more.")


def _named(run: FlowRun) -> str | None:
    """Return the id of the request that a run is for, None for a form that has none yet."""
    named = run.parameters.get("request_id") or run.labels.get("certrail.request")
    return str(named) if named else None


def _note(what: str, run: FlowRun | TaskRun, state: State[Any]) -> None:
    audit.note_now(
        _ACTOR,
        f"repair.{what}",
        str(run.id),
        {"name": run.name, "was": run.state_name, "is": state.name, "why": state.message},
    )


def _note_step(request_id: UUID, task_name: str) -> None:
    audit.note_now(
        _ACTOR,
        "repair.tell-step",
        str(request_id),
        {"step": task_name, "why": "what its worker told Prefect did not arrive"},
    )


def _note_count(run: FlowRun) -> None:
    why = "what told Prefect that it began was lost with its database's last moments"
    audit.note_now(_ACTOR, "repair.count-run", str(run.id), {"name": run.name, "why": why})


async def _left_open(client: PrefectClient) -> list[FlowRun]:
    found: list[FlowRun] = []
    # Apart: a large job's children are pending by the thousand, and would fill the page.
    for kinds in ([StateType.RUNNING, StateType.CANCELLING], [StateType.PENDING]):
        found += await client.read_flow_runs(
            flow_filter=_REQUESTS,
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))
            ),
            sort=FlowRunSort.START_TIME_ASC,
            limit=_PAGE,
        )
    return [run for run in found if _is_old(run.state)]


async def _broken(client: PrefectClient) -> list[FlowRun]:
    """Return runs that failed or crashed in Prefect since the last look, and a while before it.

    Most of them did here too. But where the server could not answer, a worker may tell
    of a run as failed minutes after its request went through.
    """
    global _looked
    begun = datetime.now(UTC)
    kinds = [StateType.CRASHED, StateType.FAILED]
    found: list[FlowRun] = []
    while len(found) < _MOST:
        page = await client.read_flow_runs(
            flow_filter=_REQUESTS,
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds)),
                end_time=FlowRunFilterEndTime(after_=(_looked or begun - _RECENT) - _OVERLAP),
            ),
            sort=FlowRunSort.END_TIME_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            break
    _looked = begun
    return found


async def _stuck(client: PrefectClient) -> list[TaskRun]:
    """Return task runs that are open although their flow run ended, or went on without them."""
    open_ones = await client.read_task_runs(
        flow_filter=_REQUESTS,
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_OPEN))
        ),
        limit=_PAGE,
    )
    old = [one for one in open_ones if one.flow_run_id and _is_old(one.state)]
    runs = await _by_id(client, {one.flow_run_id for one in old if one.flow_run_id})
    return [
        one
        for one in old
        if (run := runs.get(one.flow_run_id)) is not None
        # What ended just now may still be on its way into Prefect's database.
        and _is_old(run.state)
        and run.state is not None
        and (run.state.is_final() or run.run_count > one.flow_run_run_count > 0)
    ]


async def _by_id(client: PrefectClient, ids: Iterable[UUID]) -> dict[UUID | None, FlowRun]:
    wanted = list(ids)
    if not wanted:
        return {}
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=wanted)), limit=_PAGE
    )
    return {run.id: run for run in found}


def _is_old(state: State[Any] | None) -> bool:
    return state is not None and datetime.now(UTC) - state.timestamp > _GRACE
