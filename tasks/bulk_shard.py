"""One shard of a bulk job: its endpoints' requests, run at the same time in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect import State, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.context import AsyncClientContext
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.flows import Flow
from prefect.states import Completed, Failed, Scheduled

from certrail.errors import CertrailError, InvalidRequest, JournalConflict, Unreachable
from certrail.handover import somebody_cancelled
from certrail.jobs import budgets, threshold
from certrail.jobs.shares import Share
from certrail.jobs.waves import Lane, Route
from certrail.log import plain
from certrail.maintenance import Calendar
from certrail.model import Workflow
from certrail.store import job_ends, job_results, job_shards, jobs, plans, request_ends
from certrail.store.clock import LONGEST
from certrail.store.job_runs import Wishes
from certrail.store.job_shards import ShardState
from certrail.store.jobs import Job
from certrail.store.requests import Request
from certrail.words import counted
from tasks import _pauses, _places
from tasks._budgets import Budgets
from tasks._children import Children
from tasks._job_leases import LEASE, Hold, held_shard, patiently
from tasks._places import Place
from tasks._run import note_cancelled
from tasks._shard_places import ShardPlaces
from tasks._threads import in_lease_thread
from tasks._waiting import leave

_LOOK_SECONDS = 1.0
_CANCELS_SECONDS = 2.0
_TRIES = 5
_ROUNDS = 10
# The server works at all it is asked for at the same time, so that twenty beginnings end
# together, and nothing runs meanwhile. A few at a time, the first run while the next begin.
_BEGINNING = 3
_at_work: list[tuple[UUID, Route, Lane]] = []


async def run_shard(
    job_id: UUID, number: int, flows: Mapping[Workflow, Flow[..., Any]]
) -> State[Any]:
    """Run what is left of a shard and return its final state.

    Args:
        job_id: the job.
        number: of the shard.
        flows: the flow of each workflow.
    """
    log = get_run_logger()
    try:
        async with held_shard(job_id, number) as hold, _alone(hold.shard) as is_alone:
            if not is_alone:
                return await _pass_on(hold.shard)
            job = await patiently(lambda: jobs.by_id(job_id))
            client = AsyncClientContext.get_or_create()
            async with client as context:
                left = await _Runner(job, hold, flows, context.client).run()
            hold.is_through = not left
            whole = counted(hold.shard.size, "endpoint")
            return Completed(message=f"{hold.shard.size - left} of {whole} over")
    except CertrailError as exc:
        log.error("%s. %s", exc, exc.remedy)  # noqa: TRY400 - cause and remedy, no traceback
        return Failed(message=f"{exc}. {exc.remedy}")


@asynccontextmanager
async def _alone(shard: ShardState) -> AsyncIterator[bool]:
    """Note that this process works on a shard; yields False if it should leave it to another.

    A job has as many shards of a route at work as workers serve it, and Prefect
    gives all of them to whoever asks first: without this the others stay idle.
    After some rounds nobody else seems to come, and it is run here all the same.
    """
    route = (shard.job_id, shard.route, shard.lane)
    if route in _at_work and shard.run_count <= _ROUNDS:
        yield False
        return
    _at_work.append(route)
    try:
        yield True
    finally:
        _at_work.remove(route)


async def _pass_on(shard: ShardState) -> State[Any]:
    state: State[Any] = Scheduled(
        scheduled_time=datetime.now(UTC) + timedelta(seconds=_LOOK_SECONDS),
        message="Another worker is to take it: this one has a shard of the job already.",
    )
    await leave(state)
    return state


class _Runner:
    """Begins endpoints in their order, as places and budgets allow, and waits for their ends."""

    def __init__(
        self,
        job: Job,
        hold: Hold,
        flows: Mapping[Workflow, Flow[..., Any]],
        client: PrefectClient,
    ) -> None:
        self._job = job
        self._shard = shard = hold.shard
        self._owner = hold.owner
        self._places = ShardPlaces(
            job.concurrency,
            is_only=shard.is_only,
            lease_seconds=min(LEASE, LONGEST).total_seconds(),
        )
        self._flows = flows
        name = f"wave {shard.wave}, shard {shard.number}"
        self._children = Children(client, name, job.tag, job.flow_run_id)
        self._budgets = Budgets(client)
        self._waiting: deque[Request] = deque()
        self._of_run: dict[UUID, Request] = {}
        self._running: dict[asyncio.Task[None], Request] = {}
        self._tried: dict[UUID, int] = {}
        self._wishes = Wishes(pause=False, end=False)
        self._share: Share | None = None
        self._beginning = asyncio.Semaphore(_BEGINNING)
        self._lost = False
        self._stopped = False
        self._changed = asyncio.Event()
        self._log = get_run_logger()
        self._calendars: Mapping[str, Calendar] = {}

    async def run(self) -> int:
        """Go through the shard; returns how many endpoints of it are left."""
        found = await patiently(lambda: job_shards.open_requests(self._job.id, self._shard.number))
        self._waiting.extend(found)
        self._places.line = len(found)
        self._log.info("%d of %s left", len(found), counted(self._shard.size, "endpoint"))
        if self._job.in_window:
            self._calendars = await patiently(plans.calendars)
        beat = asyncio.create_task(self._beat())
        tend = asyncio.create_task(self._tend())
        heed = asyncio.create_task(self._heed_prefect())
        try:
            await self._dispatch()
        except asyncio.CancelledError:
            await self._end_all()
            raise
        finally:
            for task in (beat, tend, heed):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            with suppress(httpx.HTTPError):
                await self._budgets.close()
        if self._lost:
            raise JournalConflict("another worker goes on with this shard")
        state = await patiently(
            lambda: next(
                one
                for one in job_shards.shards(self._job.id, self._shard.wave)
                if one.number == self._shard.number
            )
        )
        return state.left

    async def _dispatch(self) -> None:
        while True:
            self._changed.clear()
            if self._lost or self._stopped or self._wishes.hold:
                self._waiting.clear()
                self._places.line = 0
            else:
                await self._begin_some()
            if not self._running and not self._waiting:
                return
            if not self._running and self._calendars and not self._any_open():
                return  # the job begins this shard again when a window opens
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _LOOK_SECONDS)

    async def _begin_some(self) -> None:
        """Begin the first waiting endpoints whose budgets have room; others wait their turn."""
        passed: deque[Request] = deque()
        full: set[str] = set()
        while self._waiting and self._places.free > self._places.returning:
            request = self._waiting.popleft()
            names = budgets.names(request.plan)
            held_up = full.intersection(names) or _pauses.of(names)
            if held_up or self._is_closed(request):
                passed.append(request)
                continue
            if not self._budgets.try_take(names):
                # Only those: the others may have room for an endpoint without these.
                full.update(self._budgets.full(names))
                passed.append(request)
                continue
            self._places.take()
            task = asyncio.create_task(self._one(request, names), name=request.location)
            self._running[task] = request
            task.add_done_callback(self._ended)
        # With one place to spare those that were passed begin as soon as they may.
        self._places.line = len(self._waiting) + bool(passed)
        self._waiting.extendleft(reversed(passed))

    async def _one(self, request: Request, names: tuple[str, ...]) -> None:
        """Run one endpoint's request to its end; its place is free while it only waits."""
        holds = True

        def leave() -> None:
            nonlocal holds
            holds = False
            self._give_back(names)

        async def enter() -> None:
            nonlocal holds
            # It comes back before others begin.
            self._places.returning += 1
            try:
                while not self._places.free or not self._budgets.try_take(names):
                    await asyncio.sleep(0.2)
                self._places.take()
                holds = True
            finally:
                self._places.returning -= 1

        token = _places.held.set(Place(leave, enter))
        run: FlowRun | None = None
        try:
            if (run := await self._begun(request)) is None:
                return
            self._of_run[run.id] = request
            state = await run_flow_async(
                self._flows[request.workflow],
                flow_run=run,
                parameters={"request_id": str(request.id)},
                return_type="state",
            )
            if state is not None and state.is_failed():
                await self._judge()
        except Pause as exc:
            # It waits for an approval or its window; a worker takes its run up alone then.
            self._log.info("%s: %s", request.location, exc)
        except Exception as exc:  # noqa: BLE001 - one endpoint must not end the others
            # The server was away, or said no. What the run did is in our record.
            self._log.warning("%s: %s: %s", request.location, type(exc).__name__, exc)
            await self._again(request)
        finally:
            _places.held.reset(token)
            if run is not None:
                self._of_run.pop(run.id, None)
                self._children.over(run.id)
            if holds:
                self._give_back(names)

    async def _judge(self) -> None:
        """Begin no more endpoints once too many failed; the job itself looks only now and then."""
        waves = await patiently(lambda: job_results.waves(self._job))
        begun = [wave for wave in waves if wave.number <= self._shard.wave]
        if threshold.stop(self._job.threshold, begun) is not None:
            self._stopped = True

    async def _begun(self, request: Request) -> FlowRun | None:
        """Return the endpoint's run, ready to be run; None when the shard is to rest before that.

        Nothing has been done yet, so that this is tried as long as Prefect does not answer.
        """
        while True:
            try:
                async with self._beginning:
                    if self._lost or self._stopped or self._wishes.hold:
                        return None
                    if request.flow_run_id is None:
                        return await self._children.begin(request)
                    return await self._children.again(request)
            except (httpx.HTTPError, Unreachable) as exc:
                self._log.warning("%s cannot begin now: %s", request.location, plain(exc))
                await asyncio.sleep(_LOOK_SECONDS)

    async def _again(self, request: Request) -> None:
        """Put a request whose run broke off back into the line, unless it is over."""
        self._tried[request.id] = self._tried.get(request.id, 0) + 1
        if self._tried[request.id] >= _TRIES:
            return
        await asyncio.sleep(min(10.0, 2.0 * self._tried[request.id]))
        left = await patiently(lambda: job_shards.open_requests(self._job.id, self._shard.number))
        self._waiting.extend(one for one in left if one.id == request.id)

    def _give_back(self, names: tuple[str, ...]) -> None:
        self._places.give_back()
        self._budgets.give_back(names)
        self._changed.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("an endpoint's run broke off", exc_info=error)

    async def _end_all(self) -> None:
        """Hand a cancellation on to the endpoints, and wait until each came to a safe point."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        if somebody_cancelled():
            with suppress(CertrailError):
                await in_lease_thread(job_ends.drop_shard, self._job.id, self._shard.number)

    async def _beat(self) -> None:
        """Keep the shard's lease, and learn what people want of the job."""
        while True:
            running = [request.id for request in self._running.values()]
            try:
                told = await in_lease_thread(
                    job_shards.renew_shard,
                    self._job.id,
                    self._shard.number,
                    self._owner,
                    LEASE,
                    running,
                    self._places.need(),
                )
                self._wishes = told.wishes
                for request_id in told.cancelled:
                    note_cancelled(request_id)
                if told.share is not None:
                    self._heed(told.share)
            except JournalConflict:
                self._lost = True
            except CertrailError:
                pass  # the database is away for a moment
            if self._wishes.hold or self._lost:
                self._changed.set()
            await asyncio.sleep(min(_LOOK_SECONDS, LEASE.total_seconds() / 3))

    def _heed(self, share: Share) -> None:
        if share != self._share:
            self._log.debug("%s: %s", counted(share.places, "place"), share.reason)
            self._share = share
        self._places.granted(share)
        self._changed.set()

    async def _heed_prefect(self) -> None:
        """Notice endpoints that somebody cancels on the page of their own run in Prefect.

        Prefect tells it to the process of a run, and these have none of their own.
        """
        heard: set[UUID] = set()
        while True:
            await asyncio.sleep(_CANCELS_SECONDS)
            asked = [run_id for run_id in self._of_run if run_id not in heard]
            if not asked:
                continue
            try:
                for run in await self._children.cancelled(asked):
                    if (request := self._of_run.get(run.id)) is not None:
                        await self._cancel_one(request)
                        heard.add(run.id)
            except (httpx.HTTPError, CertrailError) as exc:
                self._log.debug("cancellations: %s", exc)

    async def _cancel_one(self, request: Request) -> None:
        """Let one endpoint stop at its next safe point."""
        with suppress(InvalidRequest):
            await in_lease_thread(request_ends.ask_to_cancel, request.id, "Prefect's Cancel button")
        note_cancelled(request.id)

    async def _tend(self) -> None:
        while True:
            await self._budgets.tend()
            await _pauses.keep_known()
            self._changed.set()
            await asyncio.sleep(0.2)

    def _is_closed(self, request: Request) -> bool:
        calendar = self._calendars.get(request.plan.profile)
        return calendar is not None and not calendar.is_open(datetime.now(UTC))

    def _any_open(self) -> bool:
        return any(not self._is_closed(request) for request in self._waiting)
