"""29 February by itself: lifetimes that go over it, windows and moments that lie on it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import click
import pytest

from certrail.cli._times import Moment
from certrail.configuration.plan import Hold
from certrail.configuration.profile import Renew
from certrail.maintenance import Calendar
from certrail.renewal.due import Code, Facts, Held, Suggestion, Terms, decide
from certrail.renewal.hold import Why, install_at
from certrail.reports.figures import calendar
from certrail.store.reports import SavedReport

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
LEAP = datetime(2028, 2, 29, tzinfo=UTC)  # a Tuesday
NAMES = frozenset({"a.test"})
TERMS = Terms(NAMES, "ca", "", "ecdsa-p256")
AT_ONCE = Renew.model_validate({"at_lifetime_fraction": 0.5, "spread": 0})


def facts(begins: datetime, ends: datetime, suggestion: Suggestion | None = None) -> Facts:
    held = Held("f" * 64, NAMES, "ECDSA P-256", "Test CA", begins, ends)
    return Facts(held, TERMS, TERMS, suggestion)


def windows(**window: object) -> Calendar:
    return Calendar.model_validate({"windows": [window]})


@pytest.mark.parametrize(
    ("begins", "ends", "half"),
    [
        # 47 days: the 24th of them has the leap day before it in 2028, and none in 2027.
        (datetime(2028, 2, 10), datetime(2028, 3, 28), datetime(2028, 3, 4, 12)),
        (datetime(2027, 2, 10), datetime(2027, 3, 29), datetime(2027, 3, 5, 12)),
        # Its middle is the leap day itself.
        (datetime(2028, 2, 22), datetime(2028, 3, 8), datetime(2028, 2, 29, 12)),
        # It ends on it, and begins on it.
        (datetime(2028, 2, 9), datetime(2028, 2, 29), datetime(2028, 2, 19)),
        (datetime(2028, 2, 29), datetime(2028, 3, 10), datetime(2028, 3, 5)),
        # A year from it: there is no 29 February to end on.
        (datetime(2028, 2, 29), datetime(2029, 2, 28), datetime(2028, 8, 29, 12)),
    ],
)
def test_a_share_of_a_lifetime_is_of_its_days(
    begins: datetime, ends: datetime, half: datetime
) -> None:
    """A day that is forgotten is a day late, of seven in a short lifetime."""
    begins, ends, half = (one.replace(tzinfo=UTC) for one in (begins, ends, half))

    found = decide(facts(begins, ends), AT_ONCE, Calendar(), begins)

    assert (found.code, found.at) == (Code.DUE, half)
    assert found.deadline == begins + (ends - begins) * 0.9


def test_what_ends_on_it_is_expired_from_that_moment() -> None:
    """Not a day before, and not on 1 March."""
    held = facts(LEAP - 40 * DAY, LEAP + 12 * HOUR)

    before = decide(held, Renew(), Calendar(), LEAP + 12 * HOUR - timedelta(seconds=1))
    after = decide(held, Renew(), Calendar(), LEAP + 12 * HOUR)

    assert before.code is Code.DUE
    assert (after.code, after.at) == (Code.EXPIRED, LEAP + 12 * HOUR)
    assert "2028-02-29 12:00" in after.message


def test_the_moment_of_a_renewal_may_lie_on_it() -> None:
    """The CA's window is the day, ours the hours of the night in it."""
    ari = Suggestion(LEAP, LEAP + DAY)
    night = windows(start="02:00", end="05:00")

    at = decide(facts(LEAP - 20 * DAY, LEAP + 20 * DAY, ari), Renew(), night, LEAP - 10 * DAY).at

    assert at is not None
    assert LEAP + 2 * HOUR <= at < LEAP + 5 * HOUR


@pytest.mark.parametrize(
    ("window", "opens", "closes"),
    [
        ({"days": ["tue"], "start": "02:00", "end": "05:00"}, 2, 5),
        ({"days": ["mon"], "start": "22:00", "end": "04:00"}, -2, 4),
        ({"days": ["tue"], "start": "22:00", "end": "04:00"}, 22, 28),
        ({"days": ["tue"], "start": "00:00", "end": "00:00"}, 0, 24),
        ({"days": ["tue"], "start": "01:00", "end": "03:00", "timezone": "Asia/Tokyo"}, -8, -6),
        ({"days": ["tue"], "start": "20:00", "end": "23:00", "timezone": "America/New_York"},
         25, 28),
    ],
    ids=["on it", "into it", "out of it", "all of it", "Tokyo", "New York"],
)  # fmt: skip
def test_a_window_on_it_opens_and_closes(
    window: dict[str, object], opens: int, closes: int
) -> None:
    """The Tuesday of that week is the 29th, in every zone."""
    one = windows(**window)

    assert one.openings(LEAP - 2 * DAY, LEAP + 3 * DAY) == [
        (LEAP + opens * HOUR, LEAP + closes * HOUR)
    ]
    waits = install_at(Hold(calendar=one), LEAP + (opens - 1) * HOUR)
    assert (waits.why, waits.until) == (Why.WINDOW, LEAP + opens * HOUR)
    assert install_at(Hold(calendar=one), LEAP + opens * HOUR).why is Why.OPEN
    # And the one after it is a week later, not eight days.
    assert one.next_opening(LEAP + closes * HOUR) == LEAP + opens * HOUR + 7 * DAY


def test_days_that_are_shut_include_it() -> None:
    """From 28 February to 1 March are three days in a leap year."""
    shut = {"blackout": {"dates": ["2028-02-28/2028-03-01"]}}

    assert Calendar.model_validate(shut).openings(LEAP - 2 * DAY, LEAP + 3 * DAY) == [
        (LEAP - 2 * DAY, LEAP - DAY),
        (LEAP + 2 * DAY, LEAP + 3 * DAY),
    ]


def test_people_can_name_it_where_there_is_one() -> None:
    """A time that does not exist is a mistake, not 1 March."""
    assert Moment().convert("2028-02-29T02:00+00:00", None, None) == LEAP + 2 * HOUR
    for wrong in ("2027-02-29T02:00+00:00", "2100-02-29T02:00+00:00"):
        with pytest.raises(click.BadParameter, match="is not a time"):
            Moment().convert(wrong, None, None)


def test_a_report_on_it_comes_every_four_years() -> None:
    """Until then, its schedule shows when."""
    report = SavedReport("leap", "endpoints", cron="0 6 29 2 *")

    assert report.next_at(LEAP - DAY) == LEAP + 6 * HOUR
    assert report.next_at(LEAP + DAY) == datetime(2032, 2, 29, 6, tzinfo=UTC)


def test_the_calendar_of_renewals_has_it() -> None:
    """Thirty days are thirty days, each once."""
    days = [date.fromisoformat(one.code) for one in calendar(LEAP - 10 * DAY, 30)]

    assert days == [LEAP.date() + timedelta(days=number) for number in range(-10, 20)]
    assert date(2028, 2, 29) in days
