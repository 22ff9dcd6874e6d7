"""Why a run was ended from outside, and what that means for its request.

A run ends in the middle because somebody cancelled it, because its worker
stops and another one goes on with it, or because the worker's process breaks
down. All reach the code as ``asyncio.CancelledError``, and a task may be
cancelled more than once on its way out; only who ended it knows why. So the
worker notes it before it cancels, where the run and everything inside it can
read it. Only what somebody cancelled ends the request.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum, auto


class Ending(StrEnum):
    """Why a run is ended from outside."""

    CANCELLED = auto()  # somebody cancelled it
    HANDED_BACK = auto()  # this worker stops; another one goes on


@dataclass(slots=True)
class Control:
    """What the worker has to say to a run and to the child runs inside it."""

    ending: Ending | None = None


control: ContextVar[Control | None] = ContextVar("certrail-run-control", default=None)


def somebody_cancelled() -> bool:
    """Return whether somebody wanted the run of this context to end.

    If not, its worker stops or breaks down, and another one goes on with the request.
    """
    here = control.get()
    return here is not None and here.ending is Ending.CANCELLED
