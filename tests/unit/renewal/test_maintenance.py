"""Windows go by the wall clock of their zone: clock changes, leap days, midnight, blackouts."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from certrail.configuration.profile import ProfileConfig
from certrail.maintenance import Calendar, intersection, point_in


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def calendar(*windows: dict[str, Any], blackout: dict[str, Any] | None = None) -> Calendar:
    return Calendar.model_validate({"windows": windows, "blackout": blackout})


NIGHT = {"start": "02:00", "end": "05:00"}
BERLIN = {**NIGHT, "timezone": "Europe/Berlin"}
GAP = {"start": "02:15", "end": "02:45", "timezone": "Europe/Berlin"}
INTO_GAP = {"start": "02:30", "end": "03:00", "timezone": "Europe/Berlin"}
SATURDAY = {"days": ["sat"], "start": "22:00", "end": "04:00", "timezone": "America/New_York"}
TUESDAY = {"days": ["tue"], "start": "12:00", "end": "13:00"}
KOLKATA = {"start": "00:00", "end": "01:00", "timezone": "Asia/Kolkata"}
SHUT = {"dates": ["2026-12-24/2027-01-02"], "timezone": "Europe/Berlin"}
LEAP = {"dates": ["2028-02-29"]}

OPENINGS = [
    ("inside", calendar(NIGHT), "2026-06-01T03:00", "2026-06-01T03:00"),
    ("the end is outside", calendar(NIGHT), "2026-06-01T05:00", "2026-06-02T02:00"),
    ("winter time", calendar(BERLIN), "2026-01-10T00:00", "2026-01-10T01:00"),
    ("summer time", calendar(BERLIN), "2026-07-09T23:00", "2026-07-10T00:00"),
    ("the night the clocks go forward", calendar(BERLIN), "2026-03-29T00:30", "2026-03-29T01:00"),
    ("an hour that is left out", calendar(GAP), "2026-03-29T00:00", "2026-03-29T01:15"),
    ("it ends where the gap ends", calendar(INTO_GAP), "2026-03-29T00:00", "2026-03-29T01:30"),
    ("the night they go back", calendar(BERLIN), "2026-10-24T23:00", "2026-10-25T00:00"),
    ("across midnight, before", calendar(SATURDAY), "2026-11-28T20:00", "2026-11-29T03:00"),
    ("across midnight, after", calendar(SATURDAY), "2026-11-29T08:30", "2026-11-29T08:30"),
    ("across midnight, over", calendar(SATURDAY), "2026-11-29T09:00", "2026-12-06T03:00"),
    ("the earlier of two", calendar(SATURDAY, TUESDAY), "2026-11-29T09:00", "2026-12-01T12:00"),
    ("half an hour's zone", calendar(KOLKATA), "2026-11-27T12:00", "2026-11-27T18:30"),
    ("blackout", calendar(BERLIN, blackout=SHUT), "2026-12-24T00:00", "2027-01-03T01:00"),
    ("it begins in the night", calendar(SATURDAY, blackout={"dates": ["2026-11-29"]}),
     "2026-11-28T20:00", "2026-12-06T03:00"),
    ("blackout without windows", calendar(blackout=SHUT), "2026-12-31T12:00", "2027-01-02T23:00"),
    ("a leap day", calendar(NIGHT, blackout=LEAP), "2028-02-28T06:00", "2028-03-01T02:00"),
    ("on a leap day", calendar(TUESDAY), "2028-02-28T00:00", "2028-02-29T12:00"),
    ("always", calendar(), "2026-02-03T04:05", "2026-02-03T04:05"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "given_", "now", "opens"), OPENINGS, ids=lambda v: str(v)[:40])
def test_next_opening(case: str, given_: Calendar, now: str, opens: str) -> None:
    """A window that opens an hour late in spring is an incident in somebody's shop."""
    assert given_.next_opening(at(now)) == at(opens), case
    assert given_.is_open(at(now)) is (now == opens)


def test_a_window_is_an_hour_longer_or_shorter_when_the_clocks_change() -> None:
    """02:00 to 05:00 by the wall clock: two hours in spring, four in autumn."""
    for day, hours in (("2026-03-29", 2), ("2026-10-25", 4), ("2026-05-01", 3)):
        since = at(f"{day}T00:00") - timedelta(hours=2)
        opens, closes = calendar(BERLIN).openings(since, since + timedelta(days=1))[0]
        assert closes - opens == timedelta(hours=hours), day


def test_a_calendar_that_never_opens_says_so() -> None:
    """Nobody waits for ever without being told."""
    shut = {"dates": ["2026-01-01/2030-01-01"]}
    assert calendar(NIGHT, blackout=shut).next_opening(at("2026-06-01T00:00")) is None


# A busy machine makes examples slowly: time says nothing here.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2029, 12, 31)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
    st.times(),
    st.times(),
    st.integers(0, 6),
)
def test_openings_are_in_order_and_apart(
    since: datetime, zone: str, start: Any, end: Any, day: int
) -> None:
    """Whatever the zone does with its clocks: no overlap, nothing empty, at least one a week."""
    names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    window = {"start": start, "end": end, "timezone": zone, "days": [names[day]]}
    other = {"start": end, "end": start, "timezone": "UTC"}
    begin = since.replace(tzinfo=UTC)
    found = calendar(window, other).openings(begin, begin + timedelta(days=9))
    assert found
    assert all(opens < closes for opens, closes in found)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    assert calendar(window).next_opening(begin) is not None


def test_what_two_calendars_share() -> None:
    """The moment of a renewal lies in the CA's window and in ours."""
    ari = [(at("2026-06-01T00:00"), at("2026-06-03T00:00"))]
    both = intersection(ari, calendar(NIGHT).openings(*ari[0]))
    assert both == [
        (at("2026-06-01T02:00"), at("2026-06-01T05:00")),
        (at("2026-06-02T02:00"), at("2026-06-02T05:00")),
    ]
    assert point_in(both, 0.0) == at("2026-06-01T02:00")
    assert point_in(both, 0.75) == at("2026-06-02T03:30")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"maintenance_window": {"start": "1", "end": "02:00", "days": ["sunday"]}}, "days"),
        ({"maintenance_window": {**NIGHT, "timezone": "Mars/Base"}}, "unknown time zone"),
        ({"blackout": {"dates": ["2027-02-29"]}}, "is not a day"),
        ({"blackout": {"dates": ["2027-03-02/2027-03-01"]}}, "ends before it begins"),
        ({"renew": {"at_lifetime_fraction": 0.95}}, "deadline_fraction"),
        ({"renew": {"at_lifetime_fraction": 0.2, "spread": 0.3}}, "spread"),
        ({"approval": {"by": "nobody"}}, "second-person"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    """A typo in a date must not become a night without a window."""
    wanted = {"name": "p", "workflow": "web-server", "ca": "ca", **fields}
    with pytest.raises(ValidationError, match=words):
        ProfileConfig.model_validate(wanted)


def test_one_window_or_several_are_written_alike() -> None:
    """Profiles of earlier versions have one; nobody has to apply them again."""
    one = ProfileConfig.model_validate(
        {"name": "p", "workflow": "web-server", "ca": "ca", "maintenance_window": NIGHT}
    )
    again = ProfileConfig.model_validate(one.model_dump(mode="json"))
    assert again == one
    assert len(one.maintenance_window) == 1
    assert not one.calendar.always_open
