"""Run many flow runs in one event loop, and end each of them by its own will.

Prefect's engine expects a process per deployment run: it watches each run for
suspension with a thread, an event loop and a websocket of its own (holding up
the caller's loop until they stand), and takes any cancellation of the asyncio
task for a crash. Both are replaced here. It also asks the server things that
the process knows (:mod:`deployments.lean`). Everything else is Prefect's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

import anyio
import prefect.flow_engine
import prefect.task_engine
from prefect._flow_run_suspension import (
    FlowRunSuspensionRequest,
    register_flow_run_suspension_request,
)
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, RunInput, State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.flow_engine import AsyncFlowRunEngine
from prefect.flows import Flow
from prefect.results import ResultStore
from prefect.states import AwaitingRetry, Pending
from prefect.task_engine import AsyncTaskRunEngine

from certrail.handover import Control, Ending, control
from deployments import telling
from deployments.lean import NoResultStore, asking_again, creating, knowing, leaving

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class InProcessEngine(AsyncFlowRunEngine[P, R]):
    """The engine of an async flow run that shares its event loop with others."""

    _control: Control | None = field(default_factory=control.get)
    _created_here: bool = False
    _is_given: bool = False
    _lean: PrefectClient | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._is_given = self.flow_run is not None
        # A bulk job makes the runs of its endpoints as running, in this process.
        self._created_here = bool(
            self.flow_run and self.flow_run.state and self.flow_run.state.is_running()
        )

    @property
    def client(self) -> PrefectClient:
        """Prefect's client; for a member of a bulk job one that leaves its run as it was made."""
        if self._lean is None:
            client = super().client
            is_made = self._is_given and self._is_member
            self._lean = leaving(client) if is_made else asking_again(client)
        return self._lean

    @property
    def heartbeat_seconds(self) -> int | None:
        """None: leases say which runs live, without a thread and an event every 30 s for each."""
        return None

    @property
    def _is_member(self) -> bool:
        return bool(self._started_with_in_process_parent_flow_run_context)

    async def create_flow_run(self, client: PrefectClient) -> FlowRun:
        """Create the run as running: it begins here and now, in this process."""
        created = await super().create_flow_run(creating(client))
        # A child that an earlier run of its parent made is taken up as it is.
        self._created_here = bool(created.state and created.state.is_running())
        return created

    async def load_subflow_run(
        self, parent_task_run: TaskRun, client: PrefectClient, context: FlowRunContext
    ) -> FlowRun | None:
        """Look for a child that an earlier run of the parent made, if there was one."""
        if context.flow_run is not None and context.flow_run.run_count <= 1:
            return None
        return await super().load_subflow_run(parent_task_run, client, context)

    async def begin_run(self) -> State[Any]:
        """Enter the running state, unless the run was created in it."""
        if self._created_here and not self.flow.flow_run_name:
            self._created_here = False
            assert self.flow_run is not None
            assert self.flow_run.state is not None
            await self.call_hooks(self.flow_run.state)
            return self.flow_run.state
        return await super().begin_run()

    @asynccontextmanager
    async def setup_run_context(
        self, client: PrefectClient | None = None
    ) -> AsyncGenerator[None, None]:
        """Enter the run's context without asking the server for the run that is at hand."""
        client = client or self.client
        if self.flow_run is not None and self.flow_run.run_count <= 1:
            client = knowing(client, self.flow_run)
        async with super().setup_run_context(client):
            yield

    async def set_state(self, state: State[Any], force: bool = False) -> State[Any]:
        """Propose a state; what the server counts is counted here too."""
        entered = await super().set_state(state, force)
        if self.flow_run is not None and entered.is_running():
            self.flow_run.run_count += 1
            if self.flow_run.start_time is None:
                self.flow_run.start_time = cast(Any, entered.timestamp)
        return entered

    async def handle_exception(
        self,
        exc: Exception,
        msg: str | None = None,
        result_store: ResultStore | None = None,
    ) -> State[Any]:
        """Tell what the flow raised in words; Prefect also pickles it into a file."""
        return await super().handle_exception(exc, msg, cast(ResultStore, NoResultStore()))

    async def handle_crash(self, exc: BaseException) -> None:
        """Say cancelled, or hand the run back, when that is what ended the task."""
        ending = self._control.ending if self._control else None
        if ending is Ending.CANCELLED:
            await self.handle_cancellation(exc)
        elif ending is Ending.HANDED_BACK:
            with anyio.CancelScope(shield=True):
                await self.set_state(self._waiting_state(), force=True)
            self._raised = exc  # type: ignore[assignment]
        else:
            await super().handle_crash(exc)

    def _waiting_state(self) -> State[Any]:
        if self._is_member:
            # Not for a worker to pick up by itself: the parent takes it up again.
            return Pending(message="The worker was stopped; the job goes on with another one.")
        return AwaitingRetry(message="The worker was stopped; another one goes on with this run.")

    @contextmanager
    def setup_flow_run_suspension_request(
        self,
    ) -> Generator[FlowRunSuspensionRequest, None, None]:
        """Register the run; the worker watches all of its runs with one subscription."""
        assert self.flow_run is not None
        request = self._get_flow_run_suspension_request()
        with register_flow_run_suspension_request(self.flow_run.id, request):
            request.raise_if_requested()
            yield request


@dataclass
class InProcessTaskEngine(AsyncTaskRunEngine[P, R]):
    """The engine of an async task: it reports running and the end, not that it was about to run."""

    @asynccontextmanager
    async def initialize_run(
        self,
        task_run_id: UUID | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> AsyncGenerator[InProcessTaskEngine[P, R], Any]:
        """Make the task run without its event Pending, a third of what a task costs the server."""
        if self.task_run is None:
            self.task_run = await self.task.create_local_run(
                id=task_run_id,
                parameters=self.parameters,
                flow_run_context=FlowRunContext.get(),
                parent_task_run_context=TaskRunContext.get(),
                wait_for=self.wait_for,
                extra_task_inputs=dependencies,
            )
        async with super().initialize_run(task_run_id, dependencies):
            yield self


def install() -> None:
    """Make child flows and tasks of this process use these engines too.

    Prefect finds its engines by these module attributes; otherwise the
    children of a cancelled job would be shown as crashed.
    """
    prefect.flow_engine.AsyncFlowRunEngine = InProcessEngine  # type: ignore[misc]
    prefect.task_engine.AsyncTaskRunEngine = InProcessTaskEngine  # type: ignore[misc]
    telling.install()


async def execute(flow: Flow[..., Any], flow_run: FlowRun, said: Control) -> State[Any]:
    """Run an async *flow* as *flow_run* to its end and return the final state.

    *said* is where the worker notes why it ends the run.

    The flow's own exceptions are in the state; what the orchestration says
    (Abort, Pause) is raised as Prefect raises it.
    """
    token = control.set(said)
    try:
        parameters = prefect.flow_engine._flow_parameters(flow, flow_run, None)
        engine = InProcessEngine[..., Any](flow=flow, flow_run=flow_run, parameters=parameters)
        async with engine.start():
            while engine.is_running():
                async with engine.run_context():
                    _ = await engine.call_flow_fn()
        return engine.state
    finally:
        control.reset(token)
