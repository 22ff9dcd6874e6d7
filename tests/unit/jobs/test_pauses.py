"""When the budget of a CA pauses, and whom that holds up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certrail.errors import Busy, CertrailError, Throttled
from certrail.jobs.pauses import LONGEST, Code, Pause, after, last
from certrail.tracker import Title

MINUTE = timedelta(minutes=1)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def throttled(wait: timedelta | None, by: str = "le") -> Throttled:
    """Return what a step ends with when *by* asks to come back."""
    return Throttled("slow down", connector=by, retry_after=wait)


@pytest.mark.parametrize(
    ("error", "title", "code"),
    [
        (throttled(MINUTE), Title.CERTIFICATE_ISSUED, Code.PAUSED),
        (throttled(MINUTE), Title.ISSUING_CERTIFICATE, Code.PAUSED),
        (throttled(LONGEST), Title.ACME_ACCOUNT_CREATED, Code.PAUSED),
        (throttled(LONGEST + MINUTE), Title.CERTIFICATE_ISSUED, Code.TOO_LONG),
        (throttled(None), Title.CERTIFICATE_ISSUED, Code.NO_MOMENT),
        (throttled(timedelta(0)), Title.CERTIFICATE_ISSUED, Code.NO_MOMENT),
        (throttled(MINUTE, by="dns"), Title.DOMAIN_VALIDATED, Code.ANOTHER_PARTY),
        (throttled(MINUTE), Title.CERTIFICATE_INSTALLATION, Code.ANOTHER_PARTY),
        (Busy("locked", connector="le", retry_after=MINUTE), Title.CERTIFICATE_ISSUED,
         Code.NOT_THROTTLED),
    ],
)  # fmt: skip
def test_what_pauses_a_budget(error: CertrailError, title: Title, code: Code) -> None:
    """Only the CA itself, in a step that asks it, with a moment that is not hours away."""
    verdict = after(error, title=title, ca="le")

    assert verdict.code is code
    assert (verdict.wait > timedelta(0)) == (code is Code.PAUSED)


def test_the_longest_pause_holds_up_and_others_do_not() -> None:
    """A CA that is over it, or is another one, holds up nobody."""
    short = Pause("ca:le", NOW + MINUTE, "slow down", MINUTE)
    long = Pause("domain:a.test", NOW + 2 * MINUTE, "slow down", 2 * MINUTE)
    over = Pause("ca:old", NOW, "slow down")

    assert last([short, long, over], ("ca:le", "domain:a.test")) == long
    assert last([short, long, over], ("ca:le",)) == short
    assert last([short, long, over], ("ca:old", "ca:vault")) is None
    assert short.message == "le is left alone until 2026-03-01 12:01:00 UTC: slow down"
