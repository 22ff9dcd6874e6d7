"""The run of a bulk job: waves of shards, its threshold, its pauses and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect import State, get_client, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.context import AsyncClientContext, FlowRunContext
from prefect.exceptions import Abort
from prefect.flow_runs import asuspend_flow_run
from prefect.states import Failed

from certrail.cli import _jobs
from certrail.errors import CertrailError, InvalidRequest, JournalConflict, Unreachable
from certrail.handover import somebody_cancelled
from certrail.jobs import threshold
from certrail.jobs.status import JobStatus
from certrail.jobs.threshold import Stop, Wave
from certrail.log import plain
from certrail.store import job_control, job_ends, job_results, job_runs, job_shards, jobs
from certrail.store.job_runs import Wishes
from certrail.store.jobs import Job
from certrail.words import counted
from tasks._bells import rung, shard_over
from tasks._job_ends import cancel, settle, state_of, verdict
from tasks._job_leases import LEASE, new_owner, patiently, taken
from tasks._job_page import JobPage
from tasks._job_shards import ShardRuns
from tasks._outbox import nudge
from tasks._run import retried_by_hand, scheduled_last
from tasks._threads import in_lease_thread

_LOOK_SECONDS = 0.5
_MOST_CAUSES = 10
_FOR_EVER_SECONDS = 10 * 365 * 86400
# What Prefect calls a run that somebody resumed, until a worker takes it.
_RESUMING = "Resuming"


async def run_job(job_id: UUID) -> State[Any]:
    """Run what is left of a job and return its flow run's final state.

    A job that is over is run again for its failed endpoints: that is what
    Prefect's Retry button asks for.
    """
    log = get_run_logger()
    try:
        async with _held(job_id) as (job, owner):
            if job.status is JobStatus.PAUSED:
                if not await _is_resumed_by_hand():
                    # A worker was stopped, or taken for dead, before the run rested.
                    log.info("paused; it rests again")
                    await _rest()
                # `certrail job resume` has said so already; this is Prefect's own button.
                await patiently(lambda: job_control.resume(job, "Prefect's Resume button"))
            if job.status.is_over:
                if not await _is_retried_by_hand():
                    # A repair that came late scheduled it again; nobody asked for more.
                    return state_of(job.status, f"{job.status.text.lower()} before this")
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


async def _is_resumed_by_hand() -> bool:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None:
        return False
    async with get_client() as client:
        return was_resumed(await client.read_flow_run_states(run.id))


def was_resumed(states: Sequence[State[Any]]) -> bool:
    """Return whether Prefect's Resume button had a run with these *states* scheduled last."""
    last = scheduled_last(states)
    return last is not None and last.name == _RESUMING


async def _rest() -> None:
    """Suspend this flow run, as good as for ever."""
    await asuspend_flow_run(timeout=_FOR_EVER_SECONDS, key=uuid4().hex)


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
                await cancel(job_id, owner)
        raise
    finally:
        with suppress(CertrailError):
            await in_lease_thread(job_runs.release, job_id, owner)


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
        self._shards = ShardRuns(job, self._run_id, client)
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
                    await self._shards.keep_going(shards)
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

    async def _pause(self) -> None:
        """Let the flow run rest until somebody resumes the job, here or in Prefect.

        Returns if that was done already.
        """
        if not await patiently(lambda: job_control.paused(self._job.id, self._owner)):
            return
        nudge()
        self._log.info("paused; `certrail job resume` goes on")
        self._suspension.raise_if_requested()
        await _rest()

    async def _end(self) -> State[Any]:
        job = self._job
        if self._stop or self._wishes.end:
            await patiently(lambda: job_ends.drop(job.id))
        counts = (await patiently(lambda: job_results.counts([job.id])))[job.id]
        present = await patiently(lambda: jobs.by_id(job.id))
        status, message = verdict(present, self._stop, counts)
        causes = (await patiently(lambda: job_results.causes(job.id)))[:_MOST_CAUSES]
        for cause in causes:
            self._log.error(
                "%d failed in %s, %s for example: %s. %s",
                *(cause.count, cause.step, cause.example, cause.message, cause.remedy),
            )
        try:
            await settle(self._client, self._run_id)
        except httpx.HTTPError as exc:
            self._log.warning("runs of endpoints that are over are ended later: %s", plain(exc))
        await self._page.endpoints(message, causes)
        await self._page.show(await self._waves(), last=True)
        if self._lost:
            raise JournalConflict("another worker goes on with this job")
        await patiently(lambda: job_ends.finish(job.id, status, message, actor=self._actor))
        nudge()
        return state_of(status, message)

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
