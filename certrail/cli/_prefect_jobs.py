"""Bulk jobs in Prefect: their flow runs, and the global limits that they share."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from certrail.cli import _prefect
from certrail.errors import Unreachable
from certrail.jobs.budgets import Limit
from certrail.jobs.status import JobStatus
from certrail.store import job_ends, job_results, job_runs
from certrail.store.jobs import Job

DEPLOYMENT = "bulk-job/job"
_PAGE = 200


def limits() -> dict[str, Limit]:
    """Return the global concurrency limits that are set, by name; also those switched off.

    Raises:
        Unreachable: Prefect's API does not answer.
    """
    found: dict[str, Limit] = {}
    with _prefect.client() as opened:
        while True:
            page = opened.read_global_concurrency_limits(limit=_PAGE, offset=len(found))
            for one in page:
                found[one.name] = Limit(one.limit, one.slot_decay_per_second, one.active)
            if len(page) < _PAGE:
                return found


def start_run(job: Job) -> UUID:
    """Make the flow run that carries *job*; asked twice, it is the same run.

    Raises:
        Unreachable: Prefect's API does not answer, or was not set up.
    """
    return _make(job, key=str(job.id), at=job.scheduled_at)


def run_again(job: Job, why: str, *, at: datetime | None = None) -> UUID:
    """Let a worker take the job's flow run again; a new one if it is gone.

    Raises:
        Unreachable: see :func:`start_run`.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import AwaitingRetry

    if job.flow_run_id is not None:
        with _prefect.client() as opened:
            try:
                opened.set_flow_run_state(job.flow_run_id, AwaitingRetry(message=why), force=True)
            except ObjectNotFound:
                pass
            else:
                return job.flow_run_id
    return _make(job, key=f"{job.id}-{job.run_count}-{job.flow_run_id}", at=at)


def resume_run(job: Job) -> None:
    """Let the flow run of a job that paused go on; one that never stopped is left alone.

    Raises:
        Unreachable: see :func:`start_run`.
    """
    if job.status is not JobStatus.PAUSED:
        return
    job_runs.bind(job.id, run_again(job, "resumed"))


def end_unheld(job: Job, actor: str) -> None:
    """End a cancelled job that no worker holds, here and in Prefect; *actor* does it.

    Raises:
        Unreachable: Prefect's API does not answer; the job is cancelled all the same.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelled

    job_ends.drop(job.id)
    if job_results.counts([job.id])[job.id].left:
        return  # somebody still runs requests of it; the repair of every minute ends it
    when = "while no worker had it" if job.run_count else "before it began"
    job_ends.finish(job.id, JobStatus.CANCELLED, f"cancelled {when}", actor=actor)
    if job.flow_run_id is None:
        return
    with _prefect.client() as opened:
        try:
            opened.set_flow_run_state(
                job.flow_run_id,
                Cancelled(message="cancelled with `certrail job cancel`"),
                force=True,
            )
        except ObjectNotFound:
            return


def _make(job: Job, *, key: str, at: datetime | None) -> UUID:
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Scheduled

    with _prefect.client() as opened:
        try:
            deployment = opened.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound as exc:
            raise Unreachable(
                f"Prefect's server has no deployment {DEPLOYMENT}",
                remedy="`certrail up` makes it; `certrail doctor` says what else is missing.",
            ) from exc
        run: Any = opened.create_flow_run_from_deployment(
            deployment.id,
            parameters={"job_id": str(job.id)},
            name=job.flow_run_name,
            tags=[job.tag],
            idempotency_key=key,
            labels={"certrail.job": job.name},
            state=Scheduled(scheduled_time=_prefect.moment(at)),
        )
    return UUID(str(run.id))
