"""When something may be installed: maintenance windows, and days on which they stay shut.

Pure: no clock and no I/O. A window is written by the wall clock of a time
zone, so "02:00" stays 02:00 when the clocks change; everything that is
returned is UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

Interval = tuple[datetime, datetime]
"""From (included) and to (excluded), aware UTC."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)
# A yearly shutdown of two months is believable, a calendar that is shut for longer is a mistake.
_LOOK_AHEAD = timedelta(days=400)
_STRETCH = timedelta(days=30)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MaintenanceWindow(_Strict):
    """When a certificate may be installed. A window may pass midnight."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=(), description="Days on which it opens; every day if empty."
    )
    start: time = Field(description="When it opens, by the wall clock of its time zone.")
    end: time = Field(
        description="When it closes; before `start` means on the next day, equal a whole day."
    )
    timezone: str = Field(default="UTC", description="Time zone, such as Europe/Berlin.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return _zone_name(value)

    def openings(self, since: datetime, until: datetime) -> Iterator[Interval]:
        """Yield every opening that touches the time from *since* to *until*, in order, whole."""
        zone = ZoneInfo(self.timezone)
        # A window that passes midnight may have opened on the day before.
        day = since.astimezone(zone).date() - _DAY
        last = until.astimezone(zone).date()
        while day <= last:
            if not self.days or _DAYS[day.weekday()] in self.days:
                opens, closes = self._on(day, zone)
                if opens < until and closes > since:
                    yield opens, closes
            day += _DAY

    def next_opening(self, now: datetime) -> datetime:
        """Return when the window is open next: *now* itself while it is.

        Args:
            now: aware datetime.
        """
        opens, _ = next(self.openings(now, now + 9 * _DAY))
        return max(now, opens)

    def _on(self, day: date, zone: ZoneInfo) -> Interval:
        opens = datetime.combine(day, self.start, zone).astimezone(UTC)
        last = day if self.start < self.end else day + _DAY
        closes = datetime.combine(last, self.end, zone).astimezone(UTC)
        if closes <= opens:
            # It opens in the hour that the clocks leave out in spring: as long as ever,
            # from where they go on.
            length = datetime.combine(last, self.end) - datetime.combine(day, self.start)
            closes = opens + length
        return opens, closes


class Blackout(_Strict):
    """Days on which nothing is installed, whatever the windows say."""

    dates: tuple[str, ...] = Field(
        description="Days as `2026-12-24`, or from first to last as `2026-12-24/2027-01-02`."
    )
    timezone: str = Field(default="UTC", description="Whose days they are.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return _zone_name(value)

    @field_validator("dates", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        # YAML reads an unquoted 2026-12-24 as a date.
        if isinstance(value, list | tuple):
            return tuple(v.isoformat() if isinstance(v, date) else v for v in value)
        return value

    @field_validator("dates")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            _first_and_last(text)
        return value

    def intervals(self) -> Iterator[Interval]:
        """Yield from midnight to midnight what is shut."""
        zone = ZoneInfo(self.timezone)
        for text in self.dates:
            first, last = _first_and_last(text)
            yield (
                datetime.combine(first, time(), zone).astimezone(UTC),
                datetime.combine(last + _DAY, time(), zone).astimezone(UTC),
            )


class Calendar(_Strict):
    """All windows of a profile and its blackout. Without windows it is always open."""

    windows: tuple[MaintenanceWindow, ...] = ()
    blackout: Blackout | None = None

    @property
    def always_open(self) -> bool:
        """Whether nothing restricts an installation."""
        return not self.windows and (self.blackout is None or not self.blackout.dates)

    def openings(self, since: datetime, until: datetime) -> list[Interval]:
        """Return when it is open between *since* and *until*: merged, in order, cut to them."""
        if until <= since:
            return []
        found: Iterable[Interval] = (
            [opening for window in self.windows for opening in window.openings(since, until)]
            if self.windows
            else [(since, until)]
        )
        merged = _merged(found)
        if self.blackout is not None:
            merged = _without(merged, sorted(self.blackout.intervals()))
        return intersection(merged, [(since, until)])

    def next_opening(self, now: datetime) -> datetime | None:
        """Return when it is open next, *now* itself while it is; None if not within a year."""
        since = now
        while since < now + _LOOK_AHEAD:
            if found := self.openings(since, since + _STRETCH):
                return found[0][0]
            since += _STRETCH
        return None

    def is_open(self, now: datetime) -> bool:
        """Return whether something may be installed at *now*."""
        return self.next_opening(now) == now


def intersection(some: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    """Return the time that is in both; each sequence is in order and free of overlaps."""
    found = []
    for first in some:
        for second in others:
            begin, end = max(first[0], second[0]), min(first[1], second[1])
            if begin < end:
                found.append((begin, end))
    return found


def point_in(intervals: Sequence[Interval], share: float) -> datetime:
    """Return the moment at *share* (0 to 1) of the total time of *intervals*.

    Raises:
        ValueError: there is no interval.
    """
    total = sum((end - begin for begin, end in intervals), timedelta())
    left = total * share
    for begin, end in intervals:
        if left < end - begin:
            return begin + left
        left -= end - begin
    if not intervals:
        raise ValueError("there is no time to choose from")
    return intervals[-1][1]


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _without(intervals: Sequence[Interval], shut: Sequence[Interval]) -> list[Interval]:
    left = list(intervals)
    for begin, end in shut:
        left = [
            part
            for one in left
            for part in ((one[0], min(one[1], begin)), (max(one[0], end), one[1]))
            if part[0] < part[1]
        ]
    return left


def _first_and_last(text: str) -> tuple[date, date]:
    first, _, last = text.partition("/")
    try:
        found = date.fromisoformat(first.strip()), date.fromisoformat((last or first).strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a day like 2026-12-24 or a span of days") from None
    if found[1] < found[0]:
        raise ValueError(f"{text!r} ends before it begins")
    return found


def _zone_name(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"unknown time zone {value!r}") from exc
    return value
