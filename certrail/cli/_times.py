"""Times and durations as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_SPAN = re.compile(r"^(\d{1,6})\s*(s|m|h|d|w)$")
_LONGEST = timedelta(days=100 * 365)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Span(click.ParamType[timedelta]):
    """A duration: ``30d``, ``12h``, ``90m``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: Any) -> timedelta:
        """Return the duration."""
        if isinstance(value, timedelta):
            return value
        match = _SPAN.match(str(value).strip().lower())
        if not match:
            self.fail(f"{value!r} is not a duration like 30d, 12h or 90m", param, ctx)
        span = timedelta(**{_UNITS[match[2]]: int(match[1])})
        if span > _LONGEST:
            self.fail(f"{value!r} is longer than {_LONGEST.days} days", param, ctx)
        return span


class Moment(click.ParamType[datetime]):
    """A point in time: ``2027-01-31T02:00+09:00``, local time without a zone, or ``+2h``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: Any) -> datetime:
        """Return the time in UTC."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        if text.startswith("+"):
            return datetime.now(UTC) + Span().convert(text[1:], param, ctx)
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC)
            # Durations are added to it and taken from it.
            _ = moment + _LONGEST, moment - _LONGEST
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is not a time like 2027-01-31T02:00+09:00, "
                "'2027-01-31 02:00' (local) or +2h",
                param,
                ctx,
            )
        return moment
