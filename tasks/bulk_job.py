"""The run of a bulk job: waves of shards, its threshold, its pauses and its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect import State, get_client, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.context import AsyncClientContext, FlowRunContext
from prefect.exceptions import Abort, ObjectNotFound
from prefect.flow_runs import asuspend_flow_run
from prefect.states import AwaitingRetry, Cancelled, Completed, Failed

from certrail.cli import _jobs
from certrail.errors import CertrailError, InvalidRequest, JournalConflict, Unreachable
from certrail.handover import somebody_cancelled
from certrail.jobs import threshold
from certrail.jobs.status import Counts, JobStatus
from certrail.jobs.threshold import Stop, Wave
from certrail.jobs.turns import Standing, turns
from certrail.jobs.waves import Lane, Route
from certrail.log import plain
from certrail.settings import silent_after
from certrail.store import (
    executors,
    job_control,
    job_ends,
    job_results,
    job_runs,
    job_shards,
    jobs,
    plans,
)
from certrail.store.executors import DEFAULT_QUEUE
from certrail.store.job_runs import Wishes
from certrail.store.job_shards import ShardState
from certrail.store.jobs import Job
from certrail.words import counted, quoted
from tasks import _children
from tasks._bells import run_due, rung, shard_over
from tasks._job_leases import LEASE, new_owner, patiently, taken
from tasks._job_page import JobPage
from tasks._outbox import nudge
from tasks._run import retried_by_hand
from tasks._threads import in_lease_thread, in_thread

_LOOK_SECONDS = 0.5
_MOST_TRIES = 8
_MOST_CAUSES = 10
# So long a cancelled job waits for its endpoints to end the step in hand.
_SAFE_POINT_SECONDS = 60.0
_ABANDONED = timedelta(seconds=max(5.0, LEASE.total_seconds()))
_WORKERS_EVERY = min(10.0, LEASE.total_seconds() / 2)
_WAITS = frozenset({"SCHEDULED", "PENDING", "PAUSED"})


async def run_job(job_id: UUID) -> State[Any]:
    """Run what is left of a job and return its flow run's final state.

    A job that is over is run again for its failed endpoints: that is what
    Prefect's Retry button asks for.
    """
    log = get_run_logger()
    try:
        async with _held(job_id) as (job, owner):
            if job.status is JobStatus.PAUSED:
                # `certrail job resume` has said so already; this is Prefect's own button.
                await patiently(lambda: job_control.resume(job, "Prefect's Resume button"))
            if job.status.is_over:
                if not await _is_retried_by_hand():
                    # A repair that came late scheduled it again; nobody asked for more.
                    return _state(job.status, f"{job.status.text.lower()} before this")
                count = await patiently(lambda: _jobs.reopen(job, "Prefect's Retry button"))
                log.info(counted(count, "endpoint runs again", "endpoints run again"))
            await patiently(lambda: job_runs.begin(job_id))
            job = await patiently(lambda: jobs.by_id(job_id))
            async with AsyncClientContext.get_or_create() as context:
                return await _Run(job, owner, context.client).to_its_end()
    except JournalConflict as exc:
        # Its word about this flow run is the one that counts: ours must not end it.
        if await _is_carried_by_this_run(job_id):
            log.warning("%s", exc)
            raise Abort(str(exc)) from exc
        return Failed(message=f"{exc}. {exc.remedy}")
    except CertrailError as exc:
        log.error("%s. %s", exc, exc.remedy)  # noqa: TRY400 - cause and remedy, no traceback
        return Failed(message=f"{exc}. {exc.remedy}")


async def _is_retried_by_hand() -> bool:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is not None and await retried_by_hand(run.id)


async def _is_carried_by_this_run(job_id: UUID) -> bool:
    context = FlowRunContext.get()
    job = await patiently(lambda: jobs.by_id(job_id))
    return bool(
        context and context.flow_run and job.is_held and job.flow_run_id == context.flow_run.id
    )


@asynccontextmanager
async def _held(job_id: UUID) -> AsyncIterator[tuple[Job, str]]:
    owner = new_owner()
    job = await taken(lambda: job_runs.take(job_id, owner, LEASE))
    try:
        yield job, owner
    except asyncio.CancelledError:
        with suppress(CertrailError):
            if somebody_cancelled():
                await _cancel(job_id, owner)
        raise
    finally:
        with suppress(CertrailError):
            await in_lease_thread(job_runs.release, job_id, owner)


async def _cancel(job_id: UUID, owner: str) -> None:
    """Cancel a job whose flow run was cancelled in Prefect; it is over when its endpoints are."""
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
                await _settle(client, job.flow_run_id)


async def _settle(client: PrefectClient, run_id: UUID) -> None:
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


class _Run:
    """One run of a job by whoever holds it."""

    def __init__(self, job: Job, owner: str, client: PrefectClient) -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        self._run_id: UUID = context.flow_run.id
        self._suspension = context.flow_run_suspension_request
        self._job = job
        self._owner = owner
        self._actor = f"worker {owner}"
        self._client = client
        self._wishes = Wishes(pause=job.pause_requested, end=job.cancel_requested)
        self._lost = False
        self._stop: Stop | None = None
        self._page = JobPage(job, self._run_id)
        self._serving: Counter[Route] = Counter()
        self._asked = -_WORKERS_EVERY
        self._tried: dict[int, tuple[int, int]] = {}
        self._log = get_run_logger()

    async def to_its_end(self) -> State[Any]:
        """Go through the waves; returns the final state."""
        nudge()
        beat = asyncio.create_task(self._beat())
        try:
            while (wave := await self._next()) is not None:
                await self._go_through(wave.number)
                if self._lost:
                    raise JournalConflict("another worker goes on with this job")
                if self._stop or self._wishes.end:
                    break
                if self._wishes.pause:
                    await self._pause()
                    # Resumed before it rested: the next beat learns it, and the wave goes on.
                    await asyncio.sleep(_LOOK_SECONDS)
            # With the beat, since Prefect's server may be away for longer than the lease lasts.
            return await self._end()
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat

    async def _next(self) -> Wave | None:
        waves = await self._waves()
        return next((wave for wave in waves if wave.counts.left), None)

    async def _waves(self) -> list[Wave]:
        return await patiently(lambda: job_results.waves(self._job))

    async def _go_through(self, number: int) -> None:
        """Run the shards of a wave until all of its endpoints are over, or the job is to rest."""
        with shard_over.heard() as over:
            await self._tend_shards(number, over)

    async def _tend_shards(self, number: int, over: asyncio.Event) -> None:
        named = False
        while True:
            waves = await self._waves()
            shards = await patiently(lambda: job_shards.shards(self._job.id, number))
            await self._page.show(waves)
            await self._judge(waves, number)
            await self._heed_prefect()
            held = [shard for shard in shards if shard.is_held]
            rests = self._wishes.hold or self._stop is not None or self._lost
            left = sum(wave.counts.left for wave in waves if wave.number == number)
            if not held and (rests or not left):
                return
            if not named:
                named = True
                size = counted(sum(shard.left for shard in shards), "endpoint")
                self._log.info("wave %d of %d begins: %s", number, len(waves), size)
            if not rests:
                try:
                    await self._keep_going(shards)
                except (httpx.HTTPError, Unreachable) as exc:
                    self._log.warning("Prefect's server does not answer: %s", exc)
                except InvalidRequest as exc:
                    await self._give_up(Stop("shard-broken", f"{exc}. {exc.remedy}"))
            await rung(over, _LOOK_SECONDS)

    async def _heed_prefect(self) -> None:
        """Take a pause that somebody asked for on the run's page for one of the job."""
        if self._suspension.is_requested() and not self._wishes.pause:
            with suppress(InvalidRequest):
                await patiently(
                    lambda: job_control.ask_to_pause(self._job, "Prefect's Pause button")
                )
            self._wishes = Wishes(pause=True, end=self._wishes.end)

    async def _judge(self, waves: list[Wave], number: int) -> None:
        if self._stop is not None:
            return
        begun = [wave for wave in waves if wave.number <= number]
        if (why := threshold.stop(self._job.threshold, begun)) is not None:
            await self._give_up(why)

    async def _give_up(self, why: Stop) -> None:
        self._stop = why
        self._log.error("stopped: %s", why.message)
        await patiently(
            lambda: job_ends.stop(self._job.id, why.code, why.message, actor=self._actor)
        )

    async def _keep_going(self, shards: list[ShardState]) -> None:
        """Have as many shards at work as there are workers; begin those again that died."""
        if self._job.in_window and await self._is_closed():
            return
        due = turns(
            [Standing(one.number, one.route, one.lane, one.left, one.is_held) for one in shards],
            await self._workers(shards),
            self._job.concurrency,
        )
        called = [shard for shard in shards if shard.number in due and not shard.is_held]
        # Of all before the first begins, which would have all places otherwise.
        for shard in called:
            await self._claim(shard)
        for shard in called:
            await self._begin(shard)

    async def _claim(self, shard: ShardState) -> None:
        wanted = min(shard.left, self._job.concurrency)
        if shard.wanted != wanted:
            await patiently(
                lambda: job_shards.bind_shard(self._job.id, shard.number, wanted=wanted)
            )

    async def _begin(self, shard: ShardState) -> None:
        if shard.flow_run_id is None:
            await self._make(shard)
            return
        try:
            run = await self._client.read_flow_run(shard.flow_run_id)
        except ObjectNotFound:
            await self._make(shard)
            return
        state = run.state
        if state is None or state.type.value in _WAITS:
            return  # a worker will take it, or is about to
        if state.type.value == "RUNNING" and datetime.now(UTC) - state.timestamp < _ABANDONED:
            return  # it begins this moment
        self._count_try(shard)
        left = counted(shard.left, "endpoint is left", "endpoints are left")
        self._log.info("shard %d goes on: %s", shard.number, left)
        await self._client.set_flow_run_state(
            shard.flow_run_id, AwaitingRetry(message="the job goes on with it"), force=True
        )

    def _count_try(self, shard: ShardState) -> None:
        """Give up on a shard that is begun again and again without getting anywhere.

        Raises:
            Unreachable: it was tried often enough.
        """
        left, tries = self._tried.get(shard.number, (-1, 0))
        tries = tries + 1 if left == shard.left else 1
        self._tried[shard.number] = (shard.left, tries)
        if tries > _MOST_TRIES:
            raise InvalidRequest(
                f"shard {shard.number} ended {tries} times without a result",
                remedy="Look at its log in Prefect and at the worker's; then "
                f"`certrail job retry {quoted(self._job.name)}`.",
            )

    async def _make(self, shard: ShardState) -> None:
        task_run_id = shard.task_run_id or await self._tracking(shard)
        deployment = await self._client.read_deployment_by_name(f"bulk-shard/{shard.route.pool}")
        run = await self._client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"job_id": str(self._job.id), "number": shard.number},
            name=f"{self._job.flow_run_name}, wave {shard.wave}, shard {shard.number}",
            idempotency_key=f"{self._job.id}-{shard.number}-{shard.flow_run_id}",
            parent_task_run_id=task_run_id,
            work_queue_name=shard.route.queue,
        )
        await patiently(
            lambda: job_shards.bind_shard(self._job.id, shard.number, flow_run_id=run.id)
        )
        run_due.ring()

    async def _tracking(self, shard: ShardState) -> UUID:
        """Make the task run of the job's own run that the shard's run hangs from."""
        lane = ", failed before" if shard.lane is Lane.FAILING else ""
        only = f", for {shard.route.queue} alone" if shard.route.queue else ""
        size = counted(shard.size, "endpoint")
        name = f"wave {shard.wave}, shard {shard.number}: {size}{only}{lane}"
        made = await _children.tracking(self._client, self._run_id, name)
        await patiently(lambda: job_shards.bind_shard(self._job.id, shard.number, task_run_id=made))
        return made

    async def _workers(self, shards: list[ShardState]) -> Counter[Route]:
        """Return how many workers serve the route of each shard, asked now and then."""
        now = asyncio.get_running_loop().time()
        if now - self._asked >= _WORKERS_EVERY:
            self._asked = now
            served = await patiently(lambda: executors.serving(silent_after()))
            routes = {one.route: (one.route.pool, one.route.queue) for one in shards if one.left}
            self._serving = Counter(
                {
                    route: served.get((pool, queue or DEFAULT_QUEUE), 0)
                    for route, (pool, queue) in routes.items()
                }
            )
            for route in sorted(routes, key=str):
                if not self._serving[route]:
                    where = f"executor {route.queue}" if route.queue else "worker"
                    self._log.warning(
                        "no %s serves the pool %s; endpoints there wait", where, route.pool
                    )
        return self._serving

    async def _is_closed(self) -> bool:
        calendars = await patiently(plans.calendars)
        now = datetime.now(UTC)
        used = await patiently(lambda: job_results.open_profiles(self._job.id))
        return not any(name not in calendars or calendars[name].is_open(now) for name in used)

    async def _pause(self) -> None:
        """Let the flow run rest until somebody resumes the job, here or in Prefect.

        Returns if that was done already.
        """
        if not await patiently(lambda: job_control.paused(self._job.id, self._owner)):
            return
        nudge()
        self._log.info("paused; `certrail job resume` goes on")
        self._suspension.raise_if_requested()
        await asuspend_flow_run(timeout=10 * 365 * 86400, key=uuid4().hex)

    async def _end(self) -> State[Any]:
        job = self._job
        if self._stop or self._wishes.end:
            await patiently(lambda: job_ends.drop(job.id))
        counts = (await patiently(lambda: job_results.counts([job.id])))[job.id]
        present = await patiently(lambda: jobs.by_id(job.id))
        status, message = _verdict(present, self._stop, counts)
        causes = (await patiently(lambda: job_results.causes(job.id)))[:_MOST_CAUSES]
        for cause in causes:
            self._log.error(
                "%d failed in %s, %s for example: %s. %s",
                *(cause.count, cause.step, cause.example, cause.message, cause.remedy),
            )
        try:
            await _settle(self._client, self._run_id)
        except httpx.HTTPError as exc:
            self._log.warning("runs of endpoints that are over are ended later: %s", plain(exc))
        await self._page.endpoints(message, causes)
        await self._page.show(await self._waves(), last=True)
        if self._lost:
            raise JournalConflict("another worker goes on with this job")
        await patiently(lambda: job_ends.finish(job.id, status, message, actor=self._actor))
        nudge()
        return _state(status, message)

    async def _beat(self) -> None:
        while True:
            try:
                self._wishes = await in_lease_thread(
                    job_runs.renew, self._job.id, self._owner, LEASE
                )
            except JournalConflict:
                self._lost = True
            except CertrailError:
                pass  # the database is away for a moment
            await asyncio.sleep(min(_LOOK_SECONDS, LEASE.total_seconds() / 3))


def _state(status: JobStatus, message: str) -> State[Any]:
    if status is JobStatus.COMPLETED:
        return Completed(message=message)
    return Cancelled(message=message) if status is JobStatus.CANCELLED else Failed(message=message)


def _verdict(job: Job, stop: Stop | None, counts: Counts) -> tuple[JobStatus, str]:
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
