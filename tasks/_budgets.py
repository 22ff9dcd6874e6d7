"""Prefect's global limits, taken in batches and handed out inside the process.

A call for every endpoint would cost as much as the endpoint's own run. So
slots are leased some at a time and given back when nobody here wants them; a
lease that its process does not renew ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from certrail.jobs.budgets import default

_log = logging.getLogger("certrail")

LEASE_SECONDS = 60.0  # the shortest that Prefect grants
_RENEW_SECONDS = LEASE_SECONDS / 3
_IDLE_SECONDS = 2.0
_BATCH = 16
_SHORTEST_WAIT = 0.5
_LONGEST_WAIT = 10.0
_LOOK_SECONDS = 30.0  # an operator may have set the limit anew


@dataclass(slots=True)
class _Lease:
    id: UUID | None  # None for slots that decay by themselves
    slots: int
    used: int = 0
    renewed: float = field(default_factory=time.monotonic)
    idle_since: float = field(default_factory=time.monotonic)


class Kind(StrEnum):
    """What becomes of a slot that was taken."""

    SLOTS = auto()  # it is given back
    RATE = auto()  # it grows again by itself
    OPEN = auto()  # somebody has switched the limit off: it holds nobody up


@dataclass(frozen=True, slots=True)
class Found:
    """A global limit as it is set."""

    kind: Kind
    slots: int


async def look(client: PrefectClient, name: str) -> Found:
    """Return a global limit; one that is not there is made, as Prefect would skip it."""
    try:
        found = await client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        made = GlobalConcurrencyLimitCreate(name=name, limit=default(name).slots)
        with suppress(ObjectAlreadyExists):
            await client.create_global_concurrency_limit(made)
        found = await client.read_global_concurrency_limit_by_name(name)
    if not found.active:
        return Found(Kind.OPEN, found.limit)
    return Found(Kind.RATE if found.slot_decay_per_second > 0 else Kind.SLOTS, found.limit)


class Budget:
    """One global limit, as far as this process has slots of it."""

    def __init__(self, name: str, client: PrefectClient) -> None:
        self.name = name
        self._client = client
        self._leases: list[_Lease] = []
        self._wanted = 0
        self._not_before = 0.0
        self._batch = self._largest = _BATCH
        self._decays = False
        self._is_open = False
        self._look_at = 0.0

    def try_take(self) -> bool:
        """Take a slot that is here; otherwise note that one is wanted."""
        if self._is_open:
            return True
        for lease in self._leases:
            if lease.used < lease.slots:
                lease.used += 1
                return True
        self._wanted += 1
        return False

    def has_free(self) -> bool:
        """Whether :meth:`try_take` would get one."""
        return self._is_open or any(lease.used < lease.slots for lease in self._leases)

    def want(self) -> None:
        """Note that a slot is wanted."""
        self._wanted += 1

    def give_back(self) -> None:
        """Give a slot back; one of a rate limit is used up."""
        if self._is_open or self._decays:
            return
        # From the newest, so that whole leases become idle.
        for lease in reversed(self._leases):
            if lease.used:
                lease.used -= 1
                if not lease.used:
                    lease.idle_since = time.monotonic()
                return

    async def tend(self) -> None:
        """Renew what is used, give back what is idle, get what is wanted. Errors are for later."""
        wanted, self._wanted = self._wanted, 0
        try:
            if self._is_open and time.monotonic() >= self._look_at:
                await self._look()
            await self._renew()
            await self._return_idle(wanted)
            if wanted and not self.has_free() and time.monotonic() >= self._not_before:
                await self._get(min(wanted, self._batch))
        except httpx.HTTPError as exc:
            # The server is away; what is here goes on being used.
            self._not_before = time.monotonic() + _SHORTEST_WAIT
            _log.debug("limit %s: %s", self.name, exc)

    async def close(self) -> None:
        """Give everything back."""
        for lease in self._leases:
            if lease.id is not None:
                await self._client.release_concurrency_slots_with_lease(lease.id)
        self._leases = []

    async def _get(self, slots: int) -> None:
        if time.monotonic() >= self._look_at:
            await self._look()
            slots = min(slots, self._batch)
        if self._is_open:
            return
        try:
            if self._decays:
                await self._client.increment_concurrency_slots([self.name], slots, "rate_limit")
                self._leases.append(_Lease(None, slots))
            else:
                reply = await self._client.increment_concurrency_slots_with_lease(
                    [self.name], slots, "concurrency", LEASE_SECONDS
                )
                self._leases.append(_Lease(UUID(reply.json()["lease_id"]), slots))
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code != httpx.codes.LOCKED:
                # More than the limit has now, say, which Prefect refuses for good.
                self._look_at = 0.0
                raise
            # So many are not free at once; fewer may be.
            self._batch = max(1, slots // 2)
            wait = float(exc.response.headers.get("Retry-After", _SHORTEST_WAIT))
            if slots == 1:
                self._not_before = time.monotonic() + min(_LONGEST_WAIT, max(_SHORTEST_WAIT, wait))
        else:
            self._batch = self._largest

    async def _look(self) -> None:
        """Learn what kind of limit it is."""
        found = await look(self._client, self.name)
        self._decays = found.kind is Kind.RATE
        self._is_open = found.kind is Kind.OPEN
        self._largest = max(1, min(_BATCH, found.slots))
        self._batch = min(self._batch, self._largest)
        self._look_at = time.monotonic() + _LOOK_SECONDS

    async def _renew(self) -> None:
        now = time.monotonic()
        for lease in list(self._leases):
            if lease.id is None:
                if lease.used >= lease.slots:
                    self._leases.remove(lease)
                continue
            if now - lease.renewed < _RENEW_SECONDS:
                continue
            try:
                await self._client.renew_concurrency_lease(lease.id, LEASE_SECONDS)
                lease.renewed = now
            except httpx.HTTPStatusError as exc:
                if exc.response.status_code == httpx.codes.NOT_FOUND or (
                    exc.response.status_code == httpx.codes.GONE
                ):
                    # It ran out while nobody answered; what runs goes on, nothing new does.
                    self._leases.remove(lease)
                else:
                    raise

    async def _return_idle(self, wanted: int) -> None:
        if wanted:
            return
        now = time.monotonic()
        for lease in list(self._leases):
            if lease.id and not lease.used and now - lease.idle_since > _IDLE_SECONDS:
                self._leases.remove(lease)
                await self._client.release_concurrency_slots_with_lease(lease.id)


class Budgets:
    """All limits that a shard's endpoints draw on."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._known: dict[str, Budget] = {}

    def try_take(self, names: Sequence[str]) -> bool:
        """Take a slot of each limit, or none; what is missing is noted as wanted."""
        found = [self._of(name) for name in names]
        missing = [budget for budget in found if not budget.has_free()]
        for budget in missing:
            budget.want()
        if missing:
            return False
        for budget in found:
            budget.try_take()
        return True

    def full(self, names: Sequence[str]) -> list[str]:
        """Return those limits of which there is no slot here now."""
        return [name for name in names if not self._of(name).has_free()]

    def give_back(self, names: Sequence[str]) -> None:
        """Give a slot of each limit back."""
        for name in names:
            self._of(name).give_back()

    async def tend(self) -> None:
        """See :meth:`Budget.tend`, for each."""
        await asyncio.gather(*(budget.tend() for budget in self._known.values()))

    async def close(self) -> None:
        """Give everything back; what cannot be told ends by itself."""
        results: list[Any] = await asyncio.gather(
            *(budget.close() for budget in self._known.values()), return_exceptions=True
        )
        for error in results:
            if isinstance(error, Exception):
                _log.debug("limits: %s", error)

    def _of(self, name: str) -> Budget:
        if name not in self._known:
            self._known[name] = Budget(name, self._client)
        return self._known[name]
