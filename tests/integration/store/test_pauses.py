"""Budgets that pause, as all workers see them."""

from __future__ import annotations

from datetime import timedelta

from certrail.store import pauses

MINUTE = timedelta(minutes=1)


def test_the_latest_moment_counts_and_a_pause_ends_by_itself(database_url: str) -> None:
    """Two workers are told different moments; the later one holds, whoever writes last."""
    first = pauses.note("ca:two", 2 * MINUTE, "two minutes")
    second = pauses.note("ca:two", MINUTE, "one minute")
    third = pauses.note("ca:two", 3 * MINUTE, "three minutes")
    pauses.note("ca:over", -MINUTE, "a minute ago")

    assert second == first
    assert third.until > first.until
    present = {one.budget: one for one in pauses.present()}
    assert present["ca:two"] == third
    assert timedelta(0) < present["ca:two"].left <= third.left <= 3 * MINUTE
    assert "ca:over" not in present
