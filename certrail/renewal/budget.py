"""Who goes when: no more renewals in an hour than the CA's budget, the critical ones first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

_RANKS = {"critical": 0, "high": 1, "normal": 2, "low": 3}
_HOUR = timedelta(hours=1)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Wish(Generic[K]):
    """A renewal that is to begin.

    Attributes:
        key: whose it is.
        at: when it would begin if it were alone.
        criticality: critical, high, normal or low.
        ends: when the certificate ends; among equals the earliest goes first.
    """

    key: K
    at: datetime
    criticality: str
    ends: datetime


def hour_of(moment: datetime) -> int:
    """Return the number of the hour, since 1970, that *moment* lies in: the budget's unit."""
    return int(moment.timestamp() // _HOUR.total_seconds())


def allot(
    wishes: Iterable[Wish[K]], *, per_hour: int, taken: Mapping[int, int], now: datetime
) -> dict[K, datetime]:
    """Return when each renewal begins.

    The critical ones get the early places, whatever the order in which they
    come; the rest moves back. What would begin at once is spaced evenly
    rather than begun in one second.

    Args:
        wishes: what may be moved.
        per_hour: most that may begin in one clock hour.
        taken: how many places of each hour are taken by what may not be moved.
        now: the present; nothing is put before it.
    """
    used = Counter(taken)
    full_until: dict[int, int] = {}
    gap = _HOUR / per_hour
    at_once = 0
    found: dict[K, datetime] = {}
    for wish in sorted(wishes, key=lambda w: (_RANKS.get(w.criticality, 2), w.ends, w.at)):
        at = wish.at
        if at <= now:
            at = now + gap * at_once
            at_once += 1
        hour = _free(hour_of(at), used, full_until, per_hour)
        if hour != hour_of(at):
            begin = datetime.fromtimestamp(hour * _HOUR.total_seconds(), UTC)
            at = begin + gap * used[hour]
        used[hour] += 1
        found[wish.key] = at
    return found


def _free(hour: int, used: Counter[int], full_until: dict[int, int], per_hour: int) -> int:
    """Return the first hour from *hour* on with a place left; full ones are leapt over."""
    start, passed = hour, []
    while used[hour] >= per_hour:
        passed.append(hour)
        hour = max(full_until.get(hour, hour + 1), hour + 1)
    for one in (start, *passed):
        full_until[one] = hour if hour > one else one + 1
    return hour
