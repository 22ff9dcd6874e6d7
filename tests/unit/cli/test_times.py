"""Times and durations as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from certrail.cli._times import Moment, Span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30d", timedelta(days=30)),
        ("12h", timedelta(hours=12)),
        ("90m", timedelta(minutes=90)),
        ("5s", timedelta(seconds=5)),
        ("2w", timedelta(weeks=2)),
        (" 7D ", timedelta(days=7)),
    ],
)
def test_durations(text: str, span: timedelta) -> None:
    """One number and one unit."""
    assert Span().convert(text, None, None) == span


@pytest.mark.parametrize("text", ["", "30", "d", "1.5d", "-1d", "1y", "9999999d", "999999w"])
def test_what_is_no_duration(text: str) -> None:
    """30 alone could be days or minutes: it is asked back."""
    with pytest.raises(click.BadParameter):
        Span().convert(text, None, None)


def test_a_time_with_a_zone_is_that_time() -> None:
    """The zone that is written counts, not the machine's."""
    found = Moment().convert("2027-01-31T02:00+09:00", None, None)

    assert found == datetime(2027, 1, 30, 17, 0, tzinfo=UTC)


def test_a_time_without_a_zone_is_local() -> None:
    """People mean the clock on their wall."""
    found = Moment().convert("2027-01-31 02:00", None, None)

    assert found == datetime(2027, 1, 31, 2, 0).astimezone(UTC)


def test_a_time_can_be_relative() -> None:
    """`--at +2h` is what one types in the evening."""
    found = Moment().convert("+2h", None, None)

    assert timedelta(hours=1, minutes=59) < found - datetime.now(UTC) <= timedelta(hours=2)


@pytest.mark.parametrize(
    "text",
    [
        *("tomorrow", "25:00", "2027-13-01", "+", "+x", "+999999w"),
        *("9999-12-31T23:59-14:00", "0001-01-01T00:00+14:00", "9999-12-31"),
    ],
)
def test_what_is_no_time(text: str) -> None:
    """A time that is misunderstood installs a certificate at noon."""
    with pytest.raises(click.BadParameter):
        Moment().convert(text, None, None)
