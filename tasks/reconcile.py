"""Repairing what a crash left: requests without a run, runs without a worker, stray challenges."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun

from certrail.cli import _prefect, _prefect_jobs
from certrail.errors import CertrailError
from certrail.jobs.status import JobStatus
from certrail.policy import Repair, RunFacts, repair
from certrail.steps import validation
from certrail.steps.outcome import Work
from certrail.store import audit, job_control, job_runs, jobs, request_ends, request_runs, requests
from certrail.store.jobs import Job
from certrail.store.requests import Request
from certrail.tracker import Status
from tasks._children import end_steps
from tasks._connections import responder
from tasks._threads import in_thread
from tasks.upkeep import runs_by_id

_YOUNG = timedelta(seconds=30)


@task(
    name="Repair requests",
    task_run_name="Repair requests",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def repair_requests() -> dict[str, int]:
    """Bring every active request that no worker holds back on its way.

    Returns how often each repair was made.
    """
    log = get_run_logger()
    done: Counter[str] = Counter()
    async with get_client() as client:
        unattended = await in_thread(request_runs.unattended, _YOUNG)
        runs = await runs_by_id(client, [r.flow_run_id for r in unattended if r.flow_run_id])
        for request in unattended:
            run = runs.get(request.flow_run_id) if request.flow_run_id else None
            verdict = repair(_facts(request, run))
            if verdict is Repair.LEAVE:
                continue
            try:
                if verdict is Repair.RUN_AGAIN and request.flow_run_id:
                    await end_steps(client, request.flow_run_id)
                await in_thread(_apply, request, verdict)
            except CertrailError as exc:
                # One request must not keep the others from being repaired.
                log.warning("%s: %s. %s", request.location, exc, exc.remedy)
                continue
            done[verdict] += 1
            await in_thread(_note, request, run, verdict)
            log.warning("%s %s: %s", verdict, request.location, request.id)
    return dict(done)


@task(
    name="Repair jobs",
    task_run_name="Repair jobs",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def repair_jobs() -> int:
    """Bring every open bulk job that no worker holds back on its way; returns how many."""
    log = get_run_logger()
    done = 0
    async with get_client() as client:
        unattended = await in_thread(jobs.unattended, _YOUNG)
        runs = await runs_by_id(client, [job.flow_run_id for job in unattended if job.flow_run_id])
        for job in unattended:
            run = runs.get(job.flow_run_id) if job.flow_run_id else None
            verdict = due(job, run)
            if verdict is Repair.LEAVE:
                continue
            try:
                await in_thread(apply_to_job, job, verdict)
            except CertrailError as exc:
                log.warning("job %s: %s. %s", job.name, exc, exc.remedy)
                continue
            done += 1
            await in_thread(
                audit.note_now, "reconcile", f"repair.{verdict}", job.name, {"job_id": str(job.id)}
            )
            log.warning("%s job %s", verdict, job.name)
    return done


@task(
    name="Withdraw stray challenges",
    task_run_name="Withdraw stray challenges",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def withdraw_challenges() -> int:
    """Remove challenge records and files that requests which are over left behind."""
    left = await in_thread(requests.with_leftovers)
    for request in left:
        try:
            await in_thread(validation.clean_up, Work.of(request), responder)
        except CertrailError as exc:
            get_run_logger().warning("%s: %s. %s", request.location, exc, exc.remedy)
            continue
        await in_thread(
            audit.note_now,
            "reconcile",
            "repair.withdraw-challenge",
            request.location,
            {"request_id": str(request.id)},
        )
    return len(left)


def _facts(request: Request, run: FlowRun | None) -> RunFacts:
    asked = request.cancel_requested
    if run is None or run.state is None:
        return RunFacts(False, None, timedelta(0), cancel_requested=asked)
    return RunFacts(
        leased=False,
        cancel_requested=asked,
        state=run.state.type.value,
        state_age=datetime.now(UTC) - run.state.timestamp,
        waits_for_approval=request.status is Status.APPROVAL_PENDING,
    )


def _note(request: Request, run: FlowRun | None, verdict: Repair) -> None:
    audit.note_now(
        "reconcile",
        f"repair.{verdict}",
        request.location,
        {
            "request_id": str(request.id),
            "prefect": run.state_name if run else None,
            "lease": request.lease_owner,
        },
    )


def due(job: Job, run: FlowRun | None) -> Repair:
    """Decide what to do about an open job that no worker holds, from its run in Prefect.

    One that pauses waits for a person: it is only cancelled.
    """
    verdict = repair(_job_facts(job, run))
    if job.status is JobStatus.PAUSED and verdict is not Repair.CANCEL:
        return Repair.LEAVE
    return verdict


def _job_facts(job: Job, run: FlowRun | None) -> RunFacts:
    if run is None or run.state is None:
        return RunFacts(False, None, timedelta(0), cancel_requested=job.cancel_requested)
    state = run.state.type.value
    return RunFacts(
        leased=False,
        cancel_requested=job.cancel_requested,
        # The job was resumed; its run was not told, or rested only afterwards.
        state="CRASHED" if state == "PAUSED" else state,
        state_age=datetime.now(UTC) - run.state.timestamp,
    )


def apply_to_job(job: Job, verdict: Repair) -> None:
    """Do to a job what was decided, unless something has happened to it since it was read.

    Raises:
        CertrailError: Prefect does not answer.
    """
    present = jobs.by_id(job.id)
    if present.status is not job.status or present.is_held:
        return  # it went on, rests, or ended
    if verdict is Repair.CANCEL:
        if not job.cancel_requested:
            job_control.ask_to_cancel(job, "Prefect's Cancel button")
        _prefect_jobs.end_unheld(job, "reconcile")
    elif job.flow_run_id is None:
        job_runs.bind(job.id, _prefect_jobs.start_run(job))
    else:
        why = "the worker that ran this died; another one goes on"
        job_runs.bind(job.id, _prefect_jobs.run_again(job, why, at=job.scheduled_at))


def _apply(request: Request, verdict: Repair) -> None:
    if verdict is Repair.CANCEL:
        request_ends.finish(
            request.id, request.lease_owner or "", Status.CANCELLED, because="operator"
        )
        return
    if verdict is Repair.RUN_AGAIN or request.flow_run_id:
        why = "the worker that ran this died; another one goes on"
        run_id = _prefect.retry_run(request, why, at=request.scheduled_at)
    else:
        run_id = _prefect.start_run(request)
    requests.bind_run(request.id, run_id)
