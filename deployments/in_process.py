"""A Prefect worker that executes the runs of its pool inside itself.

Prefect's own workers start a Python process for each run, 3.5 seconds of CPU
before its first step. This one runs the flows of its pool as tasks of one
event loop, so that hundreds of requests wait for their CAs at the same time.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn
from uuid import UUID

import anyio.abc
import httpx
from prefect._flow_run_suspension import mark_flow_run_suspension_requested
from prefect._internal.observers import FlowRunCancellingObserver, FlowRunSuspendingObserver
from prefect.client.schemas.objects import FlowRun, State, WorkerMetadata
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import Abort, Pause
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.states import AwaitingRetry, Cancelled
from prefect.workers.base import (
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
)

from certrail.cli._server import POOL_TYPE
from certrail.errors import InvalidRequest
from certrail.handover import Control, Ending
from certrail.log import plain
from deployments.engine import execute
from deployments.lean import without_results
from tasks._bells import run_due

_ENTRYPOINT_SECONDS = 30.0
_ENDING_SECONDS = 3.0
# So long a shard of a bulk job is left to the other workers while this one runs one already.
_LEFT_SECONDS = 4.0


class RunResult(BaseWorkerResult):
    """What became of a run; ``status_code`` 1 means that no state could be reported."""


class InProcessWorker(BaseWorker[BaseJobConfiguration, BaseVariables, RunResult]):
    """Executes the runs of a work pool inside its own event loop."""

    type = POOL_TYPE
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _description = "Runs certificate automation in the worker's own process."

    def __init__(self, *args: Any, watch: Watch, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watch = watch
        self._draining = False
        self._running: dict[UUID, tuple[asyncio.Task[State[Any]], Control, bool, bool]] = {}
        self._entrypoints: dict[UUID, tuple[float, str]] = {}

    @property
    def running(self) -> frozenset[UUID]:
        """The flow runs that are being executed now."""
        return frozenset(self._running)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration | None = None,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> RunResult:
        """Execute *flow_run* to its end. What it raises is told to the server, not to us."""
        identifier = f"{self.name}/{flow_run.id}"
        try:
            flow = _load(await self._entrypoint(flow_run))
        except (InvalidRequest, ImportError, AttributeError) as exc:
            await self._propose_crashed_state(flow_run, f"The flow cannot be loaded: {plain(exc)}")
            return RunResult(identifier=identifier, status_code=1)
        control = Control()
        task = asyncio.create_task(_execute(flow, flow_run, control), name=str(flow_run.id))
        self._running[flow_run.id] = (task, control, flow.isasync, _is_shard(flow_run))
        self._watch.add(flow_run.id, self)
        # Not when this call ends: where the loop of the worker breaks down, its runs
        # go on until they are handed back.
        task.add_done_callback(lambda _: self._forget(flow_run.id))
        if task_status is not None:
            task_status.started(1)
        await asyncio.wait({task})
        code = await self._settle(flow_run, task, control.ending)
        return RunResult(identifier=identifier, status_code=code)

    def cancel(self, flow_run_id: UUID) -> None:
        """End a run because somebody cancelled it; quiet when it is not here."""
        self._end(flow_run_id, Ending.CANCELLED)

    async def listen(self) -> None:
        """Take a run that was made in this process at once; others are found by polling."""
        with run_due.heard() as made:
            while True:
                await made.wait()
                made.clear()
                try:
                    await self.get_and_submit_flow_runs()
                except httpx.HTTPError as exc:
                    self._logger.debug("runs are looked for later: %s", plain(exc))

    async def drain(self, grace: float) -> None:
        """Take no more runs; let those here finish for *grace* seconds, then hand them back.

        A run that is handed back is scheduled again, for whichever worker
        comes: finished steps are known from their record.
        """
        self._draining = True
        if self._running:
            await asyncio.wait({task for task, *_ in self._running.values()}, timeout=grace)
        left = dict(self._running)
        for flow_run_id in left:
            self._end(flow_run_id, Ending.HANDED_BACK)
        if left:
            await asyncio.wait({task for task, *_ in left.values()}, timeout=_ENDING_SECONDS)
        for flow_run_id in list(self._running):
            # Held by a call in a thread, which ends with the process.
            try:
                await self.client.set_flow_run_state(flow_run_id, _goes_on(), force=True)
            except (httpx.HTTPError, RuntimeError) as exc:
                # A repair hands it on when its lease is over.
                self._logger.warning("Run %s is not handed back: %s", flow_run_id, plain(exc))

    def _end(self, flow_run_id: UUID, ending: Ending) -> None:
        if (found := self._running.get(flow_run_id)) is None:
            return
        task, control, is_async, _ = found
        if control.ending is None and is_async:
            control.ending = ending
            task.cancel()

    def _forget(self, flow_run_id: UUID) -> None:
        self._watch.remove(flow_run_id)
        self._running.pop(flow_run_id, None)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        # Prefect's version asks for deployment (twice), flow, labels and two
        # more states before it starts a process: nine calls that serve
        # infrastructure. Claiming the run by Pending is the one that counts.
        try:
            if await self._propose_pending_state(flow_run):
                await self.run(flow_run)
        except Exception as exc:  # noqa: BLE001 - hundreds of other runs share the process
            # The server, or its database, was away just then: what this run came to is in
            # the inventory, and the repair of every minute tells it.
            self._logger.warning("Flow run '%s' cannot be told of: %s", flow_run.id, plain(exc))
        finally:
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        if self._draining or (self._limiter and self._limiter.available_tokens <= 0):
            return []
        found = await super()._get_scheduled_flow_runs()
        here = sum(is_shard for *_, is_shard in self._running.values())
        now = datetime.now(UTC)
        kept = shared_out(
            [
                (
                    _is_shard(each.flow_run),
                    (now - (each.flow_run.expected_start_time or now)).total_seconds(),
                )
                for each in found
            ],
            here,
        )
        return [each for each, is_kept in zip(found, kept, strict=True) if is_kept]

    async def _worker_metadata(self) -> WorkerMetadata | None:
        # The base class walks through every installed package at each heartbeat.
        return None

    async def _entrypoint(self, flow_run: FlowRun) -> str:
        if flow_run.deployment_id is None:
            raise InvalidRequest("the run has no deployment")
        expires, known = self._entrypoints.get(flow_run.deployment_id, (0.0, ""))
        if time.monotonic() > expires:
            deployment = await self.client.read_deployment(flow_run.deployment_id)
            known = deployment.entrypoint or ""
            self._entrypoints[flow_run.deployment_id] = (
                time.monotonic() + _ENTRYPOINT_SECONDS,
                known,
            )
        return known

    async def _settle(
        self, flow_run: FlowRun, task: asyncio.Task[State[Any]], ending: Ending | None
    ) -> int:
        """Make sure that the server knows how a run ended."""
        if task.cancelled():
            # The engine told the server, unless it had not begun yet.
            is_cancelled = ending is Ending.CANCELLED
            told = "cancelled" if is_cancelled else "handed back"
            self._logger.info("Flow run '%s' was %s", flow_run.id, told)
            await self._settle_unstarted(flow_run, is_cancelled=is_cancelled)
            return 0
        error = task.exception()
        if error is None or isinstance(error, Abort | Pause):
            return 0
        state = (await self.client.read_flow_run(flow_run.id)).state
        if state is None or not (state.is_final() or state.is_paused() or state.is_scheduled()):
            message = f"The run ended without a state: {type(error).__name__}: {plain(error)}"
            await self._propose_crashed_state(flow_run, message)
        self._logger.error("Flow run '%s' ended badly", flow_run.id, exc_info=error)
        return 1

    async def _settle_unstarted(self, flow_run: FlowRun, *, is_cancelled: bool) -> None:
        state = (await self.client.read_flow_run(flow_run.id)).state
        if state is None or state.is_final() or state.is_scheduled():
            return
        ended: State[Any] = (
            Cancelled(message="Cancelled before its first step.") if is_cancelled else _goes_on()
        )
        await self.client.set_flow_run_state(flow_run.id, ended, force=True)


class Watch:
    """Hears from the server which runs are to be cancelled or suspended.

    One subscription each for the whole process, whatever the number of runs.
    """

    def __init__(self) -> None:
        self._workers: dict[UUID, InProcessWorker] = {}
        self._cancelling = FlowRunCancellingObserver(self._cancel, polling_interval=5)
        self._suspending = FlowRunSuspendingObserver(_suspend, polling_interval=5)

    async def __aenter__(self) -> Watch:
        await self._cancelling.__aenter__()  # type: ignore[no-untyped-call]
        await self._suspending.__aenter__()  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._suspending.__aexit__(*exc_info)
        await self._cancelling.__aexit__(*exc_info)

    def add(self, flow_run_id: UUID, worker: InProcessWorker) -> None:
        """Listen for *flow_run_id*, which *worker* executes."""
        self._workers[flow_run_id] = worker
        self._cancelling.add_in_flight_flow_run_id(flow_run_id)
        self._suspending.add_in_flight_flow_run_id(flow_run_id)

    def remove(self, flow_run_id: UUID) -> None:
        """Stop listening for *flow_run_id*."""
        self._workers.pop(flow_run_id, None)
        self._cancelling.remove_in_flight_flow_run_id(flow_run_id)
        self._suspending.remove_in_flight_flow_run_id(flow_run_id)

    def _cancel(self, flow_run_id: UUID) -> None:
        if (worker := self._workers.get(flow_run_id)) is not None:
            worker.cancel(flow_run_id)


def _goes_on() -> State[Any]:
    return AwaitingRetry(message="The worker was stopped; another one goes on.")


def shared_out(due: Sequence[tuple[bool, float]], shards_here: int) -> list[bool]:
    """Decide which due runs this worker takes: all but the shards that others should have.

    Without this the worker that asks first would take all shards of a job.

    Args:
        due: whether each run is a shard of a bulk job, and for how many seconds it has been due.
        shards_here: how many shards run in this process already.
    """
    kept = []
    for is_shard, seconds in due:
        leaves = is_shard and shards_here > 0 and seconds < _LEFT_SECONDS
        shards_here += is_shard and not leaves
        kept.append(not leaves)
    return kept


def _is_shard(flow_run: FlowRun) -> bool:
    return {"job_id", "number"} <= flow_run.parameters.keys()


def _suspend(flow_run_id: UUID, state: State[Any]) -> None:
    mark_flow_run_suspension_requested(flow_run_id, state)


async def _execute(flow: Flow[..., Any], flow_run: FlowRun, control: Control) -> State[Any]:
    if flow.isasync:
        return await execute(flow, flow_run, control)
    # A thread cannot be interrupted: such a run is neither cancelled nor handed back.
    return await asyncio.to_thread(
        run_flow,  # type: ignore[arg-type]
        flow,
        flow_run=flow_run,
        return_type="state",
    )


@lru_cache(maxsize=256)
def _load(entrypoint: str) -> Flow[..., Any]:
    """Import the flow named ``package.module.attribute``.

    Raises:
        InvalidRequest: not a module path, or not a flow.
    """
    module, _, name = entrypoint.rpartition(".")
    if not module or ":" in entrypoint or "/" in entrypoint:
        _refuse(entrypoint, "is not a module path like flows.reconcile.reconcile")
    flow = getattr(importlib.import_module(module), name)
    if not isinstance(flow, Flow):
        _refuse(entrypoint, "is not a flow")
    return without_results(flow) if flow.result_storage is None else flow


def _refuse(entrypoint: str, what: str) -> NoReturn:
    raise InvalidRequest(
        f"the deployment's entrypoint {entrypoint!r} {what}",
        remedy="Deploy it by module path, or to a work pool of the type process.",
    )
