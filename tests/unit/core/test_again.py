"""Whether a failed step is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certrail.errors import AuthenticationFailed, CertrailError, Throttled, Unreachable
from certrail.steps.again import LONGEST_PARK, Code, after

SECOND = timedelta(seconds=1)
NO_TIME = timedelta(0)


@pytest.mark.parametrize(
    ("error", "tries", "parked", "code"),
    [
        (Unreachable("away"), 1, NO_TIME, Code.AGAIN),
        (Unreachable("away"), 3, NO_TIME, Code.TRIES_USED_UP),
        (AuthenticationFailed("no"), 1, NO_TIME, Code.NO_USE),
        (Throttled("later"), 3, NO_TIME, Code.TRIES_USED_UP),
        (Throttled("later", retry_after=60 * SECOND), 3, NO_TIME, Code.PARKED),
        (Throttled("later", retry_after=60 * SECOND), 3, LONGEST_PARK - SECOND, Code.TOO_LONG),
        (Throttled("later", retry_after=LONGEST_PARK + SECOND), 1, NO_TIME, Code.TOO_LONG),
    ],
)
def test_what_follows(error: CertrailError, tries: int, parked: timedelta, code: Code) -> None:
    """A remote that says when to come back costs no try, for as long as a run may wait."""
    verdict = after(error, tries=tries, most=3, parked=parked, pause=SECOND)

    assert verdict.code is code
    assert verdict.is_final == (code not in (Code.AGAIN, Code.PARKED))


def test_it_waits_as_long_as_the_remote_asks() -> None:
    """Not shorter, and not shorter than the pause that grows with the tries."""
    for asked, waits in ((30 * SECOND, 30 * SECOND), (SECOND / 2, SECOND)):
        error = Throttled("later", retry_after=asked)
        assert after(error, tries=1, most=3, parked=NO_TIME, pause=SECOND).pause == waits
