"""Pauses a CA asks for, in both forms of the header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.acme.retry_after import LONGEST, http_date, retry_after

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("0", timedelta(0), id="zero"),
        pytest.param("3", timedelta(seconds=3), id="seconds"),
        pytest.param(" 3 ", timedelta(seconds=3), id="spaces around"),
        pytest.param("Mon, 23 Nov 2026 12:00:07 GMT", timedelta(seconds=7), id="date"),
        pytest.param("Monday, 23-Nov-26 12:00:07 GMT", timedelta(seconds=7), id="RFC 850 date"),
        pytest.param("Mon Nov 23 12:00:07 2026", timedelta(seconds=7), id="asctime date"),
        pytest.param("Mon, 23 Nov 2026 11:59:00 GMT", timedelta(0), id="date in the past"),
        pytest.param("Mon, 23 Nov 2026 13:00:07 +0100", timedelta(seconds=7), id="other zone"),
        pytest.param("Wed, 01 Jan 2125 00:00:00 GMT", LONGEST, id="a century"),
        pytest.param("9" * 5000, LONGEST, id="more digits than int() takes"),
        pytest.param("-3", None, id="negative"),
        pytest.param("3.5", None, id="fraction"),
        pytest.param("٣", None, id="digits of another script"),
        pytest.param("soon", None, id="words"),
    ],
)
def test_a_pause_is_read_in_every_form(value: str | None, expected: timedelta | None) -> None:
    """A client that reads one form only polls a busy CA too early half of the time."""
    assert retry_after(value, NOW) == expected


@given(st.text(max_size=60))
def test_any_text_is_a_pause_within_limits_or_none(value: str) -> None:
    """The header comes from outside: no value may raise or make us wait for ever."""
    pause = retry_after(value, NOW)

    assert pause is None or timedelta(0) <= pause <= LONGEST


@given(st.integers(min_value=0, max_value=30 * 86400))
def test_seconds_and_the_date_that_far_away_mean_the_same(seconds: int) -> None:
    """Both forms of one pause give one pause."""
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)

    assert retry_after(str(seconds), NOW) == retry_after(date, NOW)


def test_a_date_without_zone_is_utc() -> None:
    """The older date formats carry no zone; local time would be hours off."""
    assert http_date("Mon Nov 23 12:00:07 2026") == NOW + timedelta(seconds=7)
