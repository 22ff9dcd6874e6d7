"""Budgets of requests that run alone: renewals and single requests wait their turn too.

Members of a bulk job have their places from the job. Here all requests of the
process draw on the same leases, so that a place costs no call of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID
from weakref import WeakKeyDictionary

from prefect import State, get_client
from prefect.context import FlowRunContext
from prefect.states import Scheduled

from certrail.errors import CertrailError
from certrail.handover import somebody_cancelled
from certrail.jobs import budgets
from certrail.jobs.pauses import Pause
from certrail.model import Workflow
from certrail.store import request_ends, requests
from certrail.store.requests import Request
from certrail.tracker import ACTIVE, Status
from tasks import _pauses, _places
from tasks._budgets import Budgets
from tasks._places import AWAITING_PLACE, Place
from tasks._run import StepTask, run_steps
from tasks._threads import in_lease_thread
from tasks._waiting import leave_until

# Less than a repair waits until it takes a run without a lease for dead (certrail/policy.py).
_PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.2
_RENEW_SECONDS = 1.0


async def run_in_turn(request_id: str, workflow: Workflow, steps: Sequence[StepTask]) -> State[Any]:
    """Run the steps of a request (:func:`run_steps`) as soon as its budgets have room.

    Whoever has a place already, as a member of a job, keeps that. A request
    that only waits for an approval, or is over, needs none.

    Raises:
        Pause: there is no room now; the run comes back by itself.
    """
    request = None
    if _places.held.get() is None:
        with suppress(CertrailError):  # the run itself says what is wrong
            request = await in_lease_thread(requests.get, UUID(request_id))
    if request is None or request.status not in ACTIVE or _only_waits(request):
        return await run_steps(request_id, workflow, steps)
    names = budgets.names(request.plan)
    keeper = _Keeper.here()
    if not await _may_begin(request, keeper, names):
        return await leave_until(request.id, _later(names))
    if (pause := _pauses.of(names)) is not None and _comes_back():
        keeper.give_back(names)
        return await leave_until(request.id, _after(pause))
    holds = True

    def leave() -> None:
        nonlocal holds
        holds = False
        keeper.give_back(names)

    async def enter() -> None:
        nonlocal holds
        await keeper.take(names)
        holds = True

    token = _places.held.set(Place(leave, enter))
    try:
        return await run_steps(request_id, workflow, steps)
    finally:
        _places.held.reset(token)
        if holds:
            keeper.give_back(names)


async def _may_begin(request: Request, keeper: _Keeper, names: Sequence[str]) -> bool:
    """Take a place of every budget; False if there is none within a few seconds.

    Longer it would keep others from the worker, and look dead: who waits holds no lease.
    A run without a deployment could not come back.
    """
    patience = _PATIENCE_SECONDS if _comes_back() else None
    try:
        async with asyncio.timeout(patience):
            await keeper.take(names)
    except TimeoutError:
        return False
    except asyncio.CancelledError:
        if somebody_cancelled():
            # It has not begun, so nobody else would note it.
            with suppress(CertrailError):
                await in_lease_thread(
                    request_ends.ask_to_cancel, request.id, "Prefect's Cancel button"
                )
        raise
    return True


def _comes_back() -> bool:
    """Whether the run has a deployment, whose workers take it up again."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is not None and run.deployment_id is not None


def _after(pause: Pause) -> State[Any]:
    """Return the state of a run that comes back when its CA may be asked again."""
    # Not all of them in the same moment.
    apart = timedelta(seconds=random.uniform(0, 2))  # noqa: S311 - no secret
    return Scheduled(name=AWAITING_PLACE, scheduled_time=pause.until + apart, message=pause.message)


def _later(names: Sequence[str]) -> State[Any]:
    """Return the state of a run that comes back; one that has waited long asks less often."""
    context = FlowRunContext.get()
    count = context.flow_run.run_count if context and context.flow_run else 1
    seconds = random.uniform(3, 6) * min(8, max(1, count))  # noqa: S311 - no secret
    return Scheduled(
        name=AWAITING_PLACE,
        scheduled_time=datetime.now(UTC) + timedelta(seconds=seconds),
        message=f"Waits for a place: {', '.join(names)}. The limits are on Prefect's Concurrency "
        "page.",
    )


def _only_waits(request: Request) -> bool:
    return request.status is Status.APPROVAL_PENDING


class _Keeper:
    """The leases of one event loop; a task of its own renews and returns them."""

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Keeper]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._budgets: Budgets | None = None
        self._wanted = asyncio.Event()
        self._tended = asyncio.Condition()
        # Without the context of whichever request happens to come first.
        self._task = asyncio.get_running_loop().create_task(
            self._tend(), context=contextvars.Context(), name="budgets of single requests"
        )

    @classmethod
    def here(cls) -> _Keeper:
        """Return the keeper of the running loop."""
        loop = asyncio.get_running_loop()
        found = cls._of_loop.get(loop)
        if found is None or found._task.done():
            found = cls._of_loop[loop] = cls()
        return found

    async def take(self, names: Sequence[str]) -> None:
        """Wait until every limit has a slot for one more, and take it."""
        while self._budgets is None or not self._budgets.try_take(names):
            async with self._tended:
                self._wanted.set()
                await self._tended.wait()

    def give_back(self, names: Sequence[str]) -> None:
        """Give a slot of each limit back."""
        if self._budgets is not None:
            self._budgets.give_back(names)

    async def _tend(self) -> None:
        loop = asyncio.get_running_loop()
        async with get_client() as client:
            self._budgets = Budgets(client)
            try:
                while True:
                    self._wanted.clear()
                    await _pauses.keep_known()
                    await self._budgets.tend()
                    async with self._tended:
                        self._tended.notify_all()
                    # Who comes first is served at once; where all is used up, not too often.
                    next_ = loop.time() + _LOOK_SECONDS
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wanted.wait(), _RENEW_SECONDS)
                    await asyncio.sleep(max(0.0, next_ - loop.time()))
            finally:
                await self._budgets.close()
