"""Steps whose end Prefect does not show: told once more; and runs that it shows ended otherwise.

What a task run tells is an event on a connection that nobody answers on. A
worker that dies takes along what it has not sent, and so does a connection, a
server or a Redis that breaks at that moment; our row says how the step ended.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from prefect import State
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import TaskRunCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.states import Completed, Failed, Running, to_state_create

from certrail.agreement import (
    RequestRow,
    StepRow,
    TaskRecord,
    is_counted_short,
    is_shown_right,
    untold,
)
from certrail.store import database, recorded
from certrail.tracker import StepStatus, task_run_name
from tasks._threads import in_thread

_KEY = "certrail.told-again"
_PAGE = 200
_AT_ONCE = 1000
_FIRST_LOOK_BACK = timedelta(hours=1)

_reached: datetime | None = None
"""Requests that ended before were looked at by this process."""


@dataclass(frozen=True)
class Found:
    """What Prefect showed of requests that are over.

    Attributes:
        told: names of the task runs that were corrected, with their requests.
        wrong: flow runs that are over, but not as their requests are.
        short: flow runs that are shown right, but with fewer beginnings than there were.
    """

    told: list[tuple[str, UUID]] = field(default_factory=list)
    wrong: list[FlowRun] = field(default_factory=list)
    short: list[FlowRun] = field(default_factory=list)


async def retell(client: PrefectClient, grace: timedelta) -> Found:
    """Look at the requests that ended since the last call, *grace* ago or longer.

    Task runs are corrected here; flow runs are returned.
    """
    global _reached
    begin = _reached or await in_thread(database.now) - _FIRST_LOOK_BACK
    over, reached = await in_thread(recorded.over_since, begin, grace, _AT_ONCE)
    found = Found()
    for start in range(0, len(over), _PAGE):
        page = over[start : start + _PAGE]
        rows = {row.flow_run_id: row for row in page if row.flow_run_id}
        ids = list(rows)
        for run in await _over(client, ids):
            row = rows[run.id]
            assert run.state is not None
            assert run.created is not None
            if not is_shown_right(row.status, run.state.type.value):
                found.wrong.append(run)
            elif is_counted_short(row, run_count=run.run_count, created_at=run.created):
                found.short.append(run)
        tasks = await _tasks(client, ids)
        for row in page:
            for step, task_run_id in untold(row, tasks[row.flow_run_id]):
                name = task_run_name(row.workflow, step.title)
                await _tell(client, row, step, name, task_run_id)
                found.told.append((name, row.id))
    _reached = reached
    return found


async def begin_again(client: PrefectClient, run: FlowRun) -> None:
    """Tell of a run that is over once more that it began, and how it ended: Prefect counts it."""
    assert run.state is not None
    ended = run.state.model_copy(update={"id": uuid4()})
    await client.set_flow_run_state(run.id, Running(), force=True)
    await client.set_flow_run_state(run.id, ended, force=True)


async def _over(client: PrefectClient, ids: list[UUID]) -> list[FlowRun]:
    if not ids:
        return []
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=_PAGE
    )
    return [run for run in runs if run.state is not None and run.state.is_final() and run.created]


async def _tasks(
    client: PrefectClient, flow_run_ids: list[UUID]
) -> defaultdict[UUID | None, list[TaskRecord]]:
    found: defaultdict[UUID | None, list[TaskRecord]] = defaultdict(list)
    offset = 0
    while flow_run_ids:
        page = await client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=flow_run_ids)),
            limit=_PAGE,
            offset=offset,
        )
        for one in page:
            found[one.flow_run_id].append(_record(one))
        if len(page) < _PAGE:
            break
        offset += _PAGE
    return found


def _record(run: TaskRun) -> TaskRecord:
    return TaskRecord(
        id=run.id,
        name=run.name,
        attempt=run.flow_run_run_count,
        kind=run.state_type.value if run.state_type else "PENDING",
        state=run.state_name or "Pending",
        message=(run.state.message if run.state else "") or "",
    )


async def _tell(
    client: PrefectClient, row: RequestRow, step: StepRow, name: str, task_run_id: UUID | None
) -> None:
    state = _state(step)
    if task_run_id is not None:
        await client.set_task_run_state(task_run_id, state, force=True)
        return
    # Once for each step: the server returns the one that there is.
    wanted = TaskRunCreate(
        name=name,
        flow_run_id=row.flow_run_id,
        task_key=_KEY,
        dynamic_key=str(step.number),
        state=to_state_create(state),
    )
    reply = await client._client.post("/task_runs/", json=wanted.model_dump(mode="json"))
    reply.raise_for_status()


def _state(step: StepRow) -> State[Any]:
    if step.status is StepStatus.FAILED:
        return Failed(message=step.cause)
    if step.status is StepStatus.SKIPPED:
        return Completed(name="Skipped", message=step.detail)
    return Completed(message=step.detail)
