"""Moments that are drawn once and stay: the same certificate gives the same moment everywhere."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from certrail.maintenance import Calendar, Interval, intersection, point_in

_SCALE = float(1 << 64)


def drawn(key: str, what: str = "") -> float:
    """Return a number from 0 (included) to 1 (excluded) that depends on *key* only.

    Every process, after every restart, draws the same; a fresh draw at each
    look could put a renewal off for ever.
    """
    digest = hashlib.sha256(f"{what}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / _SCALE


def moment_in(window: Interval, key: str) -> datetime:
    """Return the moment of *key* in *window* (RFC 9773 section 4.2: chosen at random in it)."""
    return point_in([window], drawn(key))


def within(window: Interval, key: str, calendar: Calendar) -> datetime:
    """Return the moment of *key* in *window*, while *calendar* is open if it ever is then.

    Where the two never meet the moment is that of the window alone: the
    certificate is obtained in time, and waits to be installed.
    """
    if calendar.always_open:
        return moment_in(window, key)
    both = intersection([window], calendar.openings(*window))
    return point_in(both or [window], drawn(key))


def pause_after(failures: int, left: timedelta) -> timedelta:
    """Return how long is waited after so many failures in a row, with *left* of the lifetime.

    An hour, doubled each time up to a day, but never more than a sixth of
    what is left: the nearer the end, the more often.
    """
    hours = timedelta(hours=2 ** min(max(failures, 1) - 1, 5))
    longest = max(left / 6, timedelta(seconds=1)) if left > timedelta() else timedelta(hours=1)
    return min(hours, timedelta(days=1), longest)
