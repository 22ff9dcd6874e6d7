"""Whether a step that failed is tried once more in the same run, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum, auto

from certrail.errors import CertrailError, ConnectorError, Throttled
from certrail.jobs.pauses import LONGEST

LONGEST_PARK = LONGEST
"""So long, in all, a run waits in one step for a remote that asks it to come back later."""


class Code(StrEnum):
    """Why a step is tried again, or not."""

    AGAIN = auto()
    PARKED = auto()  # the remote said when to come back: no try is lost by that
    NO_USE = auto()
    TRIES_USED_UP = auto()
    TOO_LONG = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a failed try.

    Attributes:
        pause: how long to wait before the next one.
    """

    code: Code
    pause: timedelta

    @property
    def is_final(self) -> bool:
        """Whether the step has failed."""
        return self.code not in (Code.AGAIN, Code.PARKED)


def after(
    error: CertrailError, *, tries: int, most: int, parked: timedelta, pause: timedelta
) -> Verdict:
    """Decide what follows from *error*.

    Args:
        error: what the try ended with.
        tries: how many were made, without those that the remote put off.
        most: how many there may be.
        parked: how long the step has waited for remotes that put it off.
        pause: how long to wait if the remote says nothing.
    """
    wait = error.retry_after if isinstance(error, ConnectorError) else None
    pause = max(pause, wait) if wait is not None else pause
    if not error.retryable:
        return Verdict(Code.NO_USE, pause)
    if wait is not None and parked + wait > LONGEST_PARK:
        return Verdict(Code.TOO_LONG, pause)
    if wait is not None and isinstance(error, Throttled):
        return Verdict(Code.PARKED, pause)
    return Verdict(Code.TRIES_USED_UP if tries >= most else Code.AGAIN, pause)
