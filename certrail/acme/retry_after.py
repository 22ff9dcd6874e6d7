"""The Retry-After header (RFC 9110 section 10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

LONGEST = timedelta(days=31)
"""No pause asked for is taken to be longer than this."""


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Return how long the server asks to be left alone; None if it does not say.

    Seconds and dates are both allowed. A date in the past is no pause;
    something unreadable is as good as absent.

    Args:
        value: the header as received, None if there is none.
        now: aware; the server's own ``Date`` where known, so that a wrong
            clock on either side does not change the pause.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # int() is only asked about what can be a pause: 4,301 digits would raise.
        return timedelta(seconds=min(int(text[:12]), int(LONGEST.total_seconds())))
    when = http_date(text)
    return None if when is None else min(max(when - now, timedelta(0)), LONGEST)


def http_date(text: str | None) -> datetime | None:
    """Return an HTTP date as aware UTC, None if it is not one (RFC 9110 section 5.6.7)."""
    try:
        when = parsedate_to_datetime(text or "")
        # The two older formats carry no zone; the RFC says they are UTC.
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
