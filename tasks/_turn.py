"""Budgets of a request that runs alone: renewals and single requests wait their turn too.

Members of a bulk job have their places from the job. Here one call takes a
slot of every limit that the request draws on, or of none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect import State, get_client, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.context import FlowRunContext
from prefect.states import Scheduled

from certrail.errors import CertrailError
from certrail.handover import is_handed_back
from certrail.jobs import budgets
from certrail.model import Workflow
from certrail.store import request_runs, requests
from certrail.store.requests import Request
from certrail.tracker import ACTIVE, Status
from tasks import _places
from tasks._budgets import LEASE_SECONDS, Kind, look
from tasks._places import AWAITING_PLACE, Place
from tasks._run import StepTask, run_steps
from tasks._threads import in_lease_thread
from tasks._waiting import leave_until

_KNOWN_SECONDS = 300.0
_PATIENCE_SECONDS = 5.0
_SHORTEST_WAIT = 0.5
_LONGEST_WAIT = 2.0

_kinds: dict[str, tuple[float, Kind]] = {}


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
    if request is None or not _counts(request):
        return await run_steps(request_id, workflow, steps)
    async with get_client() as client:
        turn = _Turn(request, client)
        if not await turn.begin():
            return await leave_until(request.id, turn.later())
        token = _places.held.set(Place(turn.leave, turn.again))
        try:
            return await run_steps(request_id, workflow, steps)
        finally:
            _places.held.reset(token)
            await turn.end()


class _Turn:
    """The slots of one request."""

    def __init__(self, request: Request, client: PrefectClient) -> None:
        self._request = request
        self._client = client
        self._names = budgets.names(request.plan)
        self._lease: UUID | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def begin(self) -> bool:
        """Take a slot of every limit; False if there is none within a few seconds.

        Longer it would keep others from the worker, and look dead: who waits holds no lease.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._take()
        except TimeoutError:
            await self.end()
            return False
        except asyncio.CancelledError as exc:
            await self.end()
            if not is_handed_back(exc):
                # It has not begun, so nobody else would note it.
                with suppress(CertrailError):
                    await in_lease_thread(
                        request_runs.ask_to_cancel, self._request.id, "Prefect's Cancel button"
                    )
            raise
        return True

    def later(self) -> State[Any]:
        """Return the state of a run that comes back; those that have waited long ask less often."""
        context = FlowRunContext.get()
        count = context.flow_run.run_count if context and context.flow_run else 1
        seconds = random.uniform(10, 20) * min(4, max(1, count))  # noqa: S311 - no secret
        return Scheduled(
            name=AWAITING_PLACE,
            scheduled_time=datetime.now(UTC) + timedelta(seconds=seconds),
            message=f"Waits for a place: {', '.join(self._names)}. The limits are on Prefect's "
            "Concurrency page.",
        )

    async def again(self) -> None:
        """Take slots again after :meth:`leave`; the request's lease is kept meanwhile."""
        await self._take()

    def leave(self) -> None:
        """Give the slots back while the request only waits."""
        task = asyncio.create_task(self.end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def end(self) -> None:
        """Give the slots back; a lease that cannot be given back ends by itself."""
        lease, self._lease = self._lease, None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        if lease is not None:
            with suppress(httpx.HTTPError):
                await self._client.release_concurrency_slots_with_lease(lease)

    async def _take(self) -> None:
        try:
            kinds = {name: await self._kind(name) for name in self._names}
            if given_back := [name for name in self._names if kinds[name] is Kind.SLOTS]:
                await _until(lambda: self._lease_slots(given_back))
            if rates := [name for name in self._names if kinds[name] is Kind.RATE]:
                await _until(lambda: self._use_up(rates))
        except httpx.HTTPError as exc:
            # A renewal that could be made is not given up for its place in the line.
            get_run_logger().warning("goes on without a place, Prefect gives none: %s", exc)

    async def _lease_slots(self, names: list[str]) -> None:
        reply = await self._client.increment_concurrency_slots_with_lease(
            names, 1, "concurrency", LEASE_SECONDS
        )
        self._lease = UUID(reply.json()["lease_id"])
        self._renewing = asyncio.create_task(self._renew())

    async def _use_up(self, names: list[str]) -> None:
        await self._client.increment_concurrency_slots(names, 1, "rate_limit")

    async def _renew(self) -> None:
        while (lease := self._lease) is not None:
            await asyncio.sleep(LEASE_SECONDS / 3)
            with suppress(httpx.HTTPError):
                await self._client.renew_concurrency_lease(lease, LEASE_SECONDS)

    async def _kind(self, name: str) -> Kind:
        asked, kind = _kinds.get(name, (-_KNOWN_SECONDS, Kind.OPEN))
        if time.monotonic() - asked > _KNOWN_SECONDS:
            kind = (await look(self._client, name)).kind
            _kinds[name] = (time.monotonic(), kind)
        return kind


async def _until(take: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await take()
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code != httpx.codes.LOCKED:
                raise
            wait = float(exc.response.headers.get("Retry-After", _SHORTEST_WAIT))
        else:
            return
        await asyncio.sleep(min(_LONGEST_WAIT, max(_SHORTEST_WAIT, wait)))


def _counts(request: Request) -> bool:
    return request.status in ACTIVE and request.status is not Status.APPROVAL_PENDING
