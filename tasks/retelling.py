"""Steps whose end Prefect does not show: told once more; and runs that it shows ended otherwise.

What a task run tells is an event on a connection that nobody answers on. A
worker that dies takes along what it has not sent, and so does a connection, a
server or a Redis that breaks at that moment; our row says how the step ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import State
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import TaskRunCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.states import Completed, Failed, to_state_create

from certrail.agreement import RequestRow, StepRow, TaskRecord, is_shown_right, untold
from certrail.store import database, recorded
from certrail.tracker import Status, StepStatus, task_run_name
from tasks._threads import in_thread

_KEY = "certrail.told-again"
_PAGE = 200
_AT_ONCE = 1000
_FIRST_LOOK_BACK = timedelta(hours=1)

_reached: datetime | None = None
"""Requests that ended before were looked at by this process."""


async def retell(
    client: PrefectClient, grace: timedelta
) -> tuple[list[tuple[str, UUID]], list[FlowRun]]:
    """Look at the requests that ended since the last call, *grace* ago or longer.

    Returns the names of the task runs that were corrected, with their requests; and
    the flow runs that are over, but not as their requests are.
    """
    global _reached
    begin = _reached or await in_thread(database.now) - _FIRST_LOOK_BACK
    over, reached = await in_thread(recorded.over_since, begin, grace, _AT_ONCE)
    told: list[tuple[str, UUID]] = []
    wrong: list[FlowRun] = []
    for start in range(0, len(over), _PAGE):
        page = over[start : start + _PAGE]
        ids = [row.flow_run_id for row in page if row.flow_run_id]
        wrong += await _ended_otherwise(client, {row.flow_run_id: row.status for row in page}, ids)
        tasks = await _tasks(client, ids)
        for row in page:
            for step, task_run_id in untold(row, tasks[row.flow_run_id]):
                name = task_run_name(row.workflow, step.title)
                await _tell(client, row, step, name, task_run_id)
                told.append((name, row.id))
    _reached = reached
    return told, wrong


async def _ended_otherwise(
    client: PrefectClient, statuses: Mapping[UUID | None, Status], ids: list[UUID]
) -> list[FlowRun]:
    if not ids:
        return []
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=_PAGE
    )
    return [
        run
        for run in runs
        if run.state is not None
        and run.state.is_final()
        and not is_shown_right(statuses[run.id], run.state.type.value)
    ]


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
