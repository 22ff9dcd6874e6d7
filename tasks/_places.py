"""Places that running requests take up, and give back while they only wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

AWAITING_PLACE = "AwaitingPlace"
"""Name of the state of a run that comes back when its budgets may have room."""


@dataclass(frozen=True, slots=True)
class Place:
    """How a request gives back what it takes up, and gets it again."""

    leave: Callable[[], None]
    enter: Callable[[], Awaitable[None]]


held: ContextVar[Place | None] = ContextVar("certrail-place", default=None)
"""The place of the request that runs in this context, None outside of a bulk job."""


@asynccontextmanager
async def parked() -> AsyncIterator[None]:
    """Give the place up while the block waits, so that a slow endpoint holds up no other."""
    place = held.get()
    if place is None:
        yield
        return
    place.leave()
    try:
        yield
    finally:
        await place.enter()
