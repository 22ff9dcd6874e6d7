"""What an operator did to a scheduled run in Prefect counts; what we did ourselves does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certrail.policy import Repair, RunFacts, repair
from certrail.renewal.follow import Follow, RunSeen, follow

AT = datetime(2029, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(hours=1)

CASES = [
    ("as told", RunSeen("SCHEDULED", AT), AT, AT, Follow.LEAVE),
    ("moved", RunSeen("SCHEDULED", LATER), AT, AT, Follow.ADOPT),
    ("our own move has not arrived", RunSeen("SCHEDULED", AT), LATER, AT, Follow.LEAVE),
    ("our own move has arrived, not noted", RunSeen("SCHEDULED", LATER), LATER, AT, Follow.LEAVE),
    ("moved while ours was on its way", RunSeen("SCHEDULED", AT + timedelta(days=1)), LATER, AT,
     Follow.ADOPT),
    ("cancelled", RunSeen("CANCELLED"), AT, AT, Follow.CANCEL),
    ("being cancelled", RunSeen("CANCELLING"), AT, AT, Follow.CANCEL),
    ("cancelled before it was opened again", RunSeen("CANCELLED"), AT, None, Follow.LEAVE),
    ("gone", RunSeen(None), AT, AT, Follow.LEAVE),
    ("begun", RunSeen("RUNNING"), AT, AT, Follow.LEAVE),
    ("less than a second", RunSeen("SCHEDULED", AT + timedelta(milliseconds=3)), AT, AT,
     Follow.LEAVE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "run", "scheduled_at", "told_at", "expected"), CASES, ids=lambda v: str(v)[:30]
)
def test_follow(
    case: str,
    run: RunSeen,
    scheduled_at: datetime | None,
    told_at: datetime | None,
    expected: Follow,
) -> None:
    """A move of our own must not be taken for an operator's, which nothing may undo."""
    assert follow(run, scheduled_at=scheduled_at, told_at=told_at) is expected, case


def test_a_run_that_is_paused_although_it_was_approved_goes_on() -> None:
    """Approved while Prefect did not answer: nobody would ever resume it."""
    old = timedelta(minutes=5)
    waiting = RunFacts(leased=False, state="PAUSED", state_age=old)
    approved = RunFacts(leased=False, state="PAUSED", state_age=old, waits_for_approval=False)
    assert repair(waiting) is Repair.LEAVE
    assert repair(approved) is Repair.RUN_AGAIN
