"""How a bulk job ends: cancelled in Prefect, stopped, or by its threshold."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from prefect import State, get_client
from prefect.client.orchestration import PrefectClient
from prefect.states import Cancelled, Completed, Failed

from certrail.errors import InvalidRequest
from certrail.jobs import threshold
from certrail.jobs.status import Counts, JobStatus
from certrail.jobs.threshold import Stop
from certrail.store import job_control, job_ends, job_results, jobs
from certrail.store.jobs import Job
from tasks import _children
from tasks._threads import in_lease_thread, in_thread

_LOOK_SECONDS = 0.5
# So long a cancelled job waits for its endpoints to end the step in hand.
_SAFE_POINT_SECONDS = 60.0


async def cancel(job_id: UUID, owner: str) -> None:
    """Cancel a job whose flow run was cancelled in Prefect; it is over when its endpoints are.

    Raises:
        CertrailError: the database did not answer; the repair goes on with it.
    """
    job = await in_lease_thread(jobs.by_id, job_id)
    if job.status.is_over:
        return
    with suppress(InvalidRequest):
        await in_lease_thread(job_control.ask_to_cancel, job, "Prefect's Cancel button")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SAFE_POINT_SECONDS
    while (
        loop.time() < deadline
        and (await in_lease_thread(job_results.counts, [job_id]))[job_id].left
    ):
        await asyncio.sleep(_LOOK_SECONDS)
        await in_lease_thread(job_ends.drop, job_id)
    told, actor = "cancelled in Prefect", f"worker {owner}"
    await in_lease_thread(job_ends.finish, job_id, JobStatus.CANCELLED, told, actor=actor)
    if job.flow_run_id is not None:
        # A run whose worker died is nobody's to end, once its shard is cancelled too.
        with suppress(httpx.HTTPError):
            async with get_client() as client:
                await settle(client, job.flow_run_id)


async def settle(client: PrefectClient, run_id: UUID) -> None:
    """Let no run of the job stay unfinished in Prefect whose request is over."""
    open_ = await _children.unfinished(client, run_id)
    carried = {
        run.id: UUID(run.parameters["request_id"])
        for run in open_
        if "request_id" in run.parameters
    }
    if carried:
        ended = await in_thread(job_ends.ended, carried)
        await _children.settle(client, ended)


def state_of(status: JobStatus, message: str) -> State[Any]:
    """Return the final state of the flow run of a job that ended with *status*."""
    if status is JobStatus.COMPLETED:
        return Completed(message=message)
    return Cancelled(message=message) if status is JobStatus.CANCELLED else Failed(message=message)


def verdict(job: Job, stop: Stop | None, counts: Counts) -> tuple[JobStatus, str]:
    """Return how a job ends, and the sentence that tells it.

    Args:
        job: as it is recorded now.
        stop: why the run in hand stopped it, if it did.
        counts: of all its endpoints.
    """
    sums = f"{counts.successful} of {counts.eligible} successful, {counts.failed} failed"
    if counts.cancelled:
        sums += f", {counts.cancelled} cancelled"
    if job.cancel_requested:
        return JobStatus.CANCELLED, f"cancelled: {sums}"
    if stop is not None or job.stop_code:
        why = stop.message if stop else job.stop_message
        return JobStatus.FAILED, f"stopped: {why}; {sums}"
    if threshold.verdict(job.threshold, counts):
        return JobStatus.COMPLETED, sums
    return JobStatus.FAILED, sums
