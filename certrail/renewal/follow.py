"""Scheduled in two places: what an operator did to the run in Prefect counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

_SAME = timedelta(seconds=1)


class Follow(StrEnum):
    """What our record does about a scheduled run."""

    LEAVE = "leave"
    ADOPT = "moved"
    CANCEL = "cancelled"


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A run as Prefect has it.

    Attributes:
        state: type of its state, None if there is no such run.
        at: when it is scheduled for.
    """

    state: str | None
    at: datetime | None = None


def follow(run: RunSeen, *, scheduled_at: datetime | None, told_at: datetime | None) -> Follow:
    """Decide whether somebody moved or cancelled the run.

    Args:
        run: as seen now.
        scheduled_at: when our record wants it to begin.
        told_at: when Prefect was last told that it begins. While the two
            differ, a move of ours is on its way, and the old moment is nobody's wish.
    """
    if run.state in ("CANCELLED", "CANCELLING"):
        return Follow.CANCEL if told_at is not None else Follow.LEAVE
    if run.state != "SCHEDULED" or run.at is None:
        return Follow.LEAVE
    known = [at for at in (scheduled_at, told_at) if at is not None]
    if not known or any(abs(run.at - at) <= _SAME for at in known):
        return Follow.LEAVE
    return Follow.ADOPT
