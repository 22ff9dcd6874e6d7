"""When a maintenance window is open next."""

from __future__ import annotations

from datetime import UTC, datetime, time

import pytest
from pydantic import ValidationError

from certrail.maintenance import MaintenanceWindow


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def window(
    start: str, end: str, zone: str = "UTC", days: tuple[str, ...] = ()
) -> MaintenanceWindow:
    return MaintenanceWindow.model_validate(
        {"start": start, "end": end, "timezone": zone, "days": days}
    )


WEEKEND = ("sat", "sun")


@pytest.mark.parametrize(
    ("given", "now", "opens"),
    [
        # 2026-11-23 is a Monday.
        (window("02:00", "05:00"), "2026-11-23T01:00Z", "2026-11-23T02:00Z"),
        (window("02:00", "05:00"), "2026-11-23T02:00Z", "2026-11-23T02:00Z"),
        (window("02:00", "05:00"), "2026-11-23T04:59Z", "2026-11-23T04:59Z"),
        (window("02:00", "05:00"), "2026-11-23T05:00Z", "2026-11-24T02:00Z"),
        # Past midnight: still open from yesterday.
        (window("22:00", "03:00"), "2026-11-23T01:00Z", "2026-11-23T01:00Z"),
        (window("22:00", "03:00"), "2026-11-23T12:00Z", "2026-11-23T22:00Z"),
        (window("22:00", "03:00", days=("sun",)), "2026-11-23T01:00Z", "2026-11-23T01:00Z"),
        (window("22:00", "03:00", days=("sun",)), "2026-11-23T04:00Z", "2026-11-29T22:00Z"),
        # Only at the weekend, in another zone: Saturday 02:00 in Tokyo is Friday 17:00 UTC.
        (window("02:00", "05:00", "Asia/Tokyo", WEEKEND), "2026-11-23T12:00Z", "2026-11-27T17:00Z"),
        (window("02:00", "05:00", "Asia/Tokyo", WEEKEND), "2026-11-27T18:00Z", "2026-11-27T18:00Z"),
        # Sunday's is over in Tokyo: next Saturday.
        (window("02:00", "05:00", "Asia/Tokyo", WEEKEND), "2026-11-28T20:00Z", "2026-12-04T17:00Z"),
        # One day only, just missed: next week.
        (window("02:00", "05:00", days=("mon",)), "2026-11-23T05:00Z", "2026-11-30T02:00Z"),
        # 02:30 does not exist in Berlin that night, 03:30 summer time is meant.
        (window("02:30", "06:00", "Europe/Berlin"), "2027-03-28T00:00Z", "2027-03-28T01:30Z"),
        # The wall clock counts in winter too.
        (window("02:00", "05:00", "Europe/Berlin"), "2027-01-10T00:00Z", "2027-01-10T01:00Z"),
        (window("02:00", "05:00", "Europe/Berlin"), "2027-07-10T00:00Z", "2027-07-10T00:00Z"),
    ],
)
def test_next_opening(given: MaintenanceWindow, now: str, opens: str) -> None:
    """A certificate that is installed outside of the window breaks a promise."""
    assert given.next_opening(at(now)) == at(opens)


def test_times_are_times_of_day() -> None:
    """What YAML leaves as a text is a time here, and nothing else is."""
    assert window("12:30", "13:00").start == time(12, 30)
    with pytest.raises(ValidationError):
        window("noon", "13:00")
    with pytest.raises(ValidationError, match="unknown time zone"):
        window("12:00", "13:00", "Mars/Olympus")
