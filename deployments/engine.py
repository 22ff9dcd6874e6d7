"""Run many flow runs in one event loop, and end each of them by its own will.

Prefect's engine expects a process per deployment run: it watches each run for
suspension with a thread, an event loop and a websocket of its own (holding up
the caller's loop until they stand), and takes any cancellation of the asyncio
task for a crash. Both are replaced here; everything else is Prefect's.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, ParamSpec, TypeVar

import anyio
import prefect.flow_engine
from prefect._flow_run_suspension import (
    FlowRunSuspensionRequest,
    register_flow_run_suspension_request,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import AsyncFlowRunEngine
from prefect.flows import Flow
from prefect.states import AwaitingRetry, Pending


class Ending(StrEnum):
    """Why a run is ended from outside."""

    CANCELLED = auto()  # somebody cancelled it
    HANDED_BACK = auto()  # this worker stops; another one goes on


@dataclass(slots=True)
class Control:
    """What the worker has to say to a run and to the child runs inside it."""

    ending: Ending | None = None


_control: ContextVar[Control | None] = ContextVar("certrail-run-control", default=None)


P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class InProcessEngine(AsyncFlowRunEngine[P, R]):
    """The engine of an async flow run that shares its event loop with others."""

    _control: Control | None = field(default_factory=_control.get)

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
        run = self.flow_run
        if run is not None and run.parent_task_run_id and not run.deployment_id:
            # No worker would pick it up: the parent takes it up again.
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


def install() -> None:
    """Make child flows of this process use this engine too.

    ``run_flow_async`` finds its engine by this module attribute; otherwise the
    children of a cancelled job would be shown as crashed.
    """
    prefect.flow_engine.AsyncFlowRunEngine = InProcessEngine  # type: ignore[misc]


async def execute(flow: Flow[..., Any], flow_run: FlowRun, control: Control) -> State[Any]:
    """Run an async *flow* as *flow_run* to its end and return the final state.

    The flow's own exceptions are in the state; what the orchestration says
    (Abort, Pause) is raised as Prefect raises it.
    """
    token = _control.set(control)
    try:
        parameters = prefect.flow_engine._flow_parameters(flow, flow_run, None)
        engine = InProcessEngine[..., Any](flow=flow, flow_run=flow_run, parameters=parameters)
        async with engine.start():
            while engine.is_running():
                async with engine.run_context():
                    _ = await engine.call_flow_fn()
        return engine.state
    finally:
        _control.reset(token)
