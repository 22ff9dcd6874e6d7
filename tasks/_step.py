"""The shell around each step: step row, tries, Prefect state, log line, event.

The work itself is a synchronous function of the library. Prefect keeps no
result and no cache: finished steps are known from our own record.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.states import Cancelled, Completed, Failed

from certrail.errors import CertrailError, Unreachable
from certrail.jobs.pauses import Pause
from certrail.log import plain
from certrail.model import Workflow
from certrail.steps import again
from certrail.steps.again import Verdict
from certrail.steps.outcome import Outcome, Work
from certrail.store import requests, step_begins, steps
from certrail.store.requests import Request
from certrail.tracker import STEPS, StepStatus, Title, task_run_name
from tasks import _pauses
from tasks._outbox import nudge
from tasks._places import parked
from tasks._run import StepTask, is_cancelled, must_hold, owner_here
from tasks._threads import in_thread

_log = logging.getLogger("certrail")

_PAUSE = float(os.environ.get("CERTRAIL_RETRY_SECONDS", "2"))
_RECORD_TRIES = 6


class _Defect(CertrailError):
    default_remedy = "This is a defect of Certrail: report it with the worker's log of this minute."


class Step:
    """A documented step, to be bound to the workflow that it is part of."""

    def __init__(
        self,
        title: Title,
        work: Callable[[Work], Outcome],
        *,
        attempts: int,
        is_done: Callable[[Request], bool],
    ) -> None:
        self.title = title
        self._work = work
        self._attempts = attempts
        self._is_done = is_done

    def of(self, workflow: Workflow) -> StepTask:
        """Return the Prefect task, named by title and number within *workflow*."""
        number = STEPS[workflow].index(self.title) + 1

        @task(
            name=self.title,
            task_run_name=task_run_name(workflow, self.title),
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        async def step(request_id: str) -> State[Any]:
            context = TaskRunContext.get()
            task_run_id = context.task_run.id if context else None
            return await self._run(UUID(request_id), number, task_run_id)

        async def call(request_id: str) -> State[Any]:
            # Prefect's overloads miss that an async task with return_state is awaitable.
            running = cast(Awaitable[State[Any]], step(request_id, return_state=True))
            return await running

        return call

    async def _run(self, request_id: UUID, number: int, task_run_id: UUID | None) -> State[Any]:
        log = get_run_logger()
        tries = _Tries(self._attempts)
        while True:
            if is_cancelled(request_id):
                return await self._cancel(request_id, number)
            tries.made += 1
            try:
                found = await in_thread(self._try, request_id, number, task_run_id, tries)
            except Unreachable as exc:
                # Our own database was away around the try. What the try did is in
                # the journal, so it can be made again.
                if tries.made >= _RECORD_TRIES:
                    raise
                log.warning("%s; trying again", exc)
                await self._sleep(request_id, _PAUSE * tries.made)
                continue
            if found is None:
                return await self._cancel(request_id, number)
            if isinstance(found, Pause):
                tries.made -= 1
                log.info("%s: %s", self.title, found.message)
                await self._sleep(request_id, found.left.total_seconds())
                continue
            if isinstance(found, Outcome):
                log.info("%s: %s", self.title, found.detail)
                nudge()
                name = "Skipped" if found.status is StepStatus.SKIPPED else None
                return Completed(name=name, message=found.detail)
            if found.verdict.is_final:
                error = found.error
                nudge()
                return Failed(message=f"{number}. {self.title}: {error}. {error.remedy}")
            pause = found.verdict.pause.total_seconds()
            log.warning("%s: %s; trying again in %.0f s", self.title, found.error, pause)
            await self._sleep(request_id, pause)

    def _try(
        self, request_id: UUID, number: int, task_run_id: UUID | None, tries: _Tries
    ) -> Outcome | _Failure | Pause | None:
        """Make one try in a worker thread, with the rows before and after it.

        Returns None when somebody asked the request to stop, and a pause when
        the CA is to be left alone: then nothing was tried.
        """
        if (pause := self._held_up(request_id, number)) is not None:
            return pause
        found = step_begins.begin_step(request_id, number, owner_here(), task_run_id)
        request = found.request
        if not found.begun:
            must_hold(request)
            if request.cancel_requested:
                return None
            finished = found.status in (StepStatus.COMPLETED, StepStatus.SKIPPED)
            if finished and self._is_done(request):
                return Outcome(found.status, found.detail)
            steps.begin(request_id, number, request.run_count, task_run_id)
        try:
            outcome = self._work(Work.of(request))
        except CertrailError as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001 - a defect must still end in a failed step
            _log.exception("step %s of request %s", self.title, request_id)
            error = _Defect(f"unexpected {type(exc).__name__}: {plain(exc)}")
        else:
            steps.end(request_id, number, outcome.status, outcome.detail)
            return outcome
        verdict = tries.after(error)
        steps.fail(request_id, number, error, final=verdict.is_final)
        _pauses.note(error, request, self.title)
        return _Failure(error, verdict)

    def _held_up(self, request_id: UUID, number: int) -> Pause | None:
        """Return the pause of the CA that the step has to wait for, and show it on the step."""
        if not _pauses.any_at(self.title):
            return None
        pause = _pauses.of(_pauses.ca_of(requests.get(request_id)))
        if pause is not None and steps.hold(request_id, number, f"waits: {pause.message}"):
            return pause
        return None

    async def _cancel(self, request_id: UUID, number: int) -> State[Any]:
        detail = "cancelled on request"
        await in_thread(steps.end, request_id, number, StepStatus.CANCELLED, detail)
        return Cancelled(message=f"{number}. {self.title}: {detail}")

    async def _sleep(self, request_id: UUID, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with parked():
            while (left := end - loop.time()) > 0 and not is_cancelled(request_id):
                await asyncio.sleep(min(left, 5.0))


@dataclass(frozen=True, slots=True)
class _Failure:
    """A try that failed, and what follows from it."""

    error: CertrailError
    verdict: Verdict


@dataclass(slots=True)
class _Tries:
    """What one run of a step has made so far: tries, and waits that the remote asked for."""

    most: int
    made: int = 0
    parked: timedelta = timedelta(0)

    def after(self, error: CertrailError) -> Verdict:
        # Jitter, because a bulk job's children fail at the same moment.
        seconds = _PAUSE * 4 ** min(self.made - 1, 3) * random.uniform(0.8, 1.2)  # noqa: S311
        pause = timedelta(seconds=seconds)
        verdict = again.after(
            error, tries=self.made, most=self.most, parked=self.parked, pause=pause
        )
        if verdict.code is again.Code.PARKED:
            self.made -= 1
            self.parked += verdict.pause
        return verdict


def step(
    title: Title, *, attempts: int = 3, is_done: Callable[[Request], bool] = lambda _: True
) -> Callable[[Callable[[Work], Outcome]], Step]:
    """Make a step of a function that does its work.

    Args:
        title: the documented title.
        attempts: tries in one run, while the error says that another can help.
        is_done: whether a step that an earlier run finished still counts as finished.
    """

    def wrap(work: Callable[[Work], Outcome]) -> Step:
        return Step(title, work, attempts=attempts, is_done=is_done)

    return wrap


def in_order(workflow: Workflow, *chosen: Step) -> tuple[StepTask, ...]:
    """Bind the steps of a workflow; refuses another order than the documented one."""
    titles = tuple(one.title for one in chosen)
    if titles != STEPS[workflow]:
        raise TypeError(f"{workflow} has the steps {STEPS[workflow]}, not {titles}")
    return tuple(one.of(workflow) for one in chosen)
