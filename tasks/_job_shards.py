"""The runs of a bulk job's shards: made, begun as workers are there, and begun again."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry

from certrail.errors import InvalidRequest
from certrail.jobs.turns import Standing, turns
from certrail.jobs.waves import Lane, Route
from certrail.settings import silent_after
from certrail.store import executors, job_results, job_shards, plans
from certrail.store.executors import DEFAULT_QUEUE
from certrail.store.job_shards import ShardState
from certrail.store.jobs import Job
from certrail.words import counted, quoted
from tasks import _children
from tasks._bells import run_due
from tasks._job_leases import LEASE, patiently
from tasks._server_time import server_now

_MOST_TRIES = 8
_ABANDONED = timedelta(seconds=max(5.0, LEASE.total_seconds()))
_WORKERS_EVERY = min(10.0, LEASE.total_seconds() / 2)
_WAITS = frozenset({"SCHEDULED", "PENDING", "PAUSED"})


class ShardRuns:
    """Sees to it that the shards of a job are run.

    Args:
        job: the job.
        run_id: its own flow run, which those of the shards hang from.
        client: of Prefect's server.
    """

    def __init__(self, job: Job, run_id: UUID, client: PrefectClient) -> None:
        self._job = job
        self._run_id = run_id
        self._client = client
        self._serving: Counter[Route] = Counter()
        self._asked = -_WORKERS_EVERY
        self._tried: dict[int, tuple[int, int]] = {}
        self._log = get_run_logger()

    async def keep_going(self, shards: list[ShardState]) -> None:
        """Have as many shards at work as there are workers; begin those again that died.

        Args:
            shards: all of the wave in hand.

        Raises:
            InvalidRequest: one was begun often enough without getting anywhere.
            Unreachable: Prefect's server or the database does not answer.
            httpx.HTTPError: Prefect's server does not answer, or not as it should.
        """
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
        is_running = state.type.value == "RUNNING"
        if is_running and await server_now(self._client) - state.timestamp < _ABANDONED:
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
            InvalidRequest: it was tried often enough.
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
