"""The only loop in the library that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """What waiting needs of a clock; :mod:`time` is one."""

    def monotonic(self) -> float:
        """Seconds from some fixed point; never goes back."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block for *seconds*."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """The answer "not yet".

    Attributes:
        retry_after: the pause the other side asks for, if it does.
        why: what it waits for, for people ("an administrator has to approve it"), "" if unknown.
    """

    retry_after: timedelta | None = None
    why: str = ""


def until(
    ask: Callable[[], T | Pending],
    *,
    timeout: timedelta,
    interval: timedelta,
    late: Callable[[], Exception],
    slowest: timedelta = timedelta(seconds=30),
    clock: Clock = time,
) -> T:
    """Ask until something other than :class:`Pending` comes back.

    The pause starts at *interval* and grows by half each time up to
    *slowest*; a ``retry_after`` in the answer replaces it. The last question
    is asked at the deadline, never after it. When time is up, raises what
    *late* returns: running out of time is never success.
    """
    deadline = clock.monotonic() + timeout.total_seconds()
    pause = interval.total_seconds()
    while isinstance(answer := ask(), Pending):
        left = deadline - clock.monotonic()
        if left <= 0:
            raise late()
        wanted = pause if answer.retry_after is None else answer.retry_after.total_seconds()
        clock.sleep(max(0.0, min(wanted, left)))
        pause = min(pause * 1.5, slowest.total_seconds())
    return answer
