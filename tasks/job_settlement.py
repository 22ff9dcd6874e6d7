"""Prefect's records of bulk jobs that are over, where nobody told it there."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import State, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Completed, Crashed, Failed

from certrail.jobs.status import JobStatus
from certrail.store import audit, job_ends, recorded
from certrail.store.recorded import EndedJob
from tasks._threads import in_thread

_PAGE = 200
_GRACE = timedelta(seconds=float(os.environ.get("CERTRAIL_SETTLE_SECONDS", "60")))
_RECENT = timedelta(hours=1)
_OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
_BROKEN = [StateType.CRASHED, StateType.FAILED]
_WAITING = [StateType.SCHEDULED, StateType.PAUSED]
_JOBS = FlowFilter(name=FlowFilterName(any_=["bulk-job"]))
_SHARDS = FlowFilter(name=FlowFilterName(any_=["bulk-shard"]))
_FLOWS = FlowFilter(name=FlowFilterName(any_=["bulk-job", "bulk-shard"]))
_STATES = {
    JobStatus.COMPLETED: Completed,
    JobStatus.FAILED: Failed,
    JobStatus.CANCELLED: Cancelled,
}


@task(
    name="Settle jobs",
    task_run_name="Settle jobs",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def settle_jobs() -> int:
    """Give the runs of jobs that are over, and of their shards, an end; returns how many got one.

    A job's own run ends as the job did, whatever a worker said that had lost it.
    Shards that died with their worker are nobody's any more, and none is to begin.
    """
    done = 0
    await in_thread(job_ends.free_shards)
    async with get_client() as client:
        runs = await _doubtful(client)
        ended = await in_thread(recorded.ended_jobs, [run.id for run in runs], _GRACE)
        for run in runs:
            job = ended.get(run.id)
            if job is None or (state := due(job, run)) is None:
                continue
            await client.set_flow_run_state(run.id, state, force=True)
            await in_thread(
                audit.note_now,
                "reconcile",
                "repair.end-run",
                str(run.id),
                {"name": run.name, "was": run.state_name, "is": state.name, "why": state.message},
            )
            get_run_logger().warning("%s: %s", run.name, state.message)
            done += 1
    return done


def due(job: EndedJob, run: FlowRun) -> State[Any] | None:
    """Return the state that a run of a job that is over is to have, None to leave it alone."""
    over = f"the job {job.name} is {job.status.text.lower()}"
    told = f"{over}; a worker died before it could tell here"
    if job.is_shard:
        if run.state is not None and run.state.is_final():
            return None
        if run.state is not None and run.state.type in _WAITING:
            return Cancelled(message=f"{over}; this run waited to go on with a shard of it")
        return Crashed(message=told)
    wanted: State[Any] = _STATES[job.status](message=told)
    return None if run.state is not None and run.state.type is wanted.type else wanted


async def _doubtful(client: PrefectClient) -> list[FlowRun]:
    """Return runs that are not over although nothing happens, and such as ended badly just now.

    A job's own run that is scheduled is left alone: Retry on its page opens the job again.
    """
    found = [
        *await _runs(client, _FLOWS, _OPEN),
        *await _runs(client, _SHARDS, _WAITING),
        *await _runs(client, _JOBS, [StateType.PAUSED]),
        *await _runs(client, _FLOWS, _BROKEN, ended_after=datetime.now(UTC) - _RECENT),
    ]
    now = datetime.now(UTC)
    return [run for run in found if run.state and now - run.state.timestamp > _GRACE]


async def _runs(
    client: PrefectClient,
    flows: FlowFilter,
    states: list[StateType],
    ended_after: datetime | None = None,
) -> list[FlowRun]:
    """Return all runs of *flows* in one of the *states*."""
    chosen = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
        end_time=FlowRunFilterEndTime(after_=ended_after) if ended_after else None,
    )
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_filter=flows,
            flow_run_filter=chosen,
            sort=FlowRunSort.ID_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found
