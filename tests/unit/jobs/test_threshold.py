"""When a job stops by itself, and how it ends."""

from __future__ import annotations

import pytest

from certrail.errors import InvalidRequest
from certrail.jobs.status import Counts
from certrail.jobs.threshold import Threshold, Wave, stop, verdict


@pytest.mark.parametrize(
    ("text", "among", "allowed"),
    [
        ("0", 100, 0),
        ("5", 100, 5),
        ("5", 2, 5),
        ("10%", 30, 3),
        ("10 %", 29, 2),
        ("2.5%", 40, 1),
        ("2.5%", 39, 0),
        ("100%", 7, 7),
        ("0%", 1000, 0),
    ],
)
def test_a_threshold_is_a_number_or_a_share(text: str, among: int, allowed: int) -> None:
    """Off by one here stops a job too late, or for nothing."""
    assert Threshold.parse(text).allowed(among) == allowed


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "101%", "%", "5 percent", "1e3", "٣"])
def test_a_threshold_that_cannot_be_read_is_refused(text: str) -> None:
    """A typing error must not become a job without a threshold."""
    with pytest.raises(InvalidRequest) as refused:
        Threshold.parse(text)
    assert "--max-failures" in refused.value.remedy


def wave(
    number: int,
    total: int,
    *,
    failed: int = 0,
    successful: int = 0,
    canary: bool = False,
    earlier: int = 0,
) -> Wave:
    left = total - failed - successful
    counts = Counts(total, left, successful=successful, failed=failed)
    return Wave(number, canary, counts, earlier)


@pytest.mark.parametrize(
    ("limit", "waves", "code"),
    [
        # Without a threshold only the canary stops a job, and one failure there is enough.
        (None, [wave(1, 10, failed=9)], None),
        (None, [wave(1, 5, failed=1, canary=True)], "canary-failed"),
        (None, [wave(1, 5, successful=5, canary=True), wave(2, 100, failed=50)], None),
        # A number counts over all waves.
        ("2", [wave(1, 10, failed=2)], None),
        ("2", [wave(1, 10, failed=3)], "too-many-failures"),
        ("2", [wave(1, 10, failed=2), wave(2, 10, failed=1)], "too-many-failures"),
        # A percentage counts among the waves begun.
        ("10%", [wave(1, 10, failed=1)], None),
        ("10%", [wave(1, 10, failed=2)], "too-many-failures"),
        ("10%", [wave(1, 5, failed=1, canary=True)], "canary-failed"),
        ("10%", [wave(1, 10, failed=1, canary=True), wave(2, 90, failed=9)], None),
        ("10%", [wave(1, 10, canary=True), wave(2, 90, failed=11)], "too-many-failures"),
        # A canary of which nothing is left proves that the rest would fail too.
        ("50", [wave(1, 3, failed=3, canary=True)], "canary-failed"),
        ("50", [wave(1, 3, failed=2, successful=1, canary=True)], None),
        ("100%", [wave(1, 1, failed=1, canary=True)], "canary-failed"),
        ("0", [wave(1, 3)], None),
        # What failed before a retry, and does not run again.
        (None, [wave(1, 5, failed=1, earlier=1, canary=True), wave(2, 95)], None),
        (None, [wave(1, 5, failed=2, earlier=1, canary=True)], "canary-failed"),
        (None, [wave(1, 5, failed=5, earlier=5, canary=True), wave(2, 95)], None),
        ("2", [wave(1, 10, failed=5, earlier=3)], None),
        ("2", [wave(1, 10, failed=5, earlier=2)], "too-many-failures"),
        ("10%", [wave(1, 30, failed=12, earlier=10)], None),
    ],
)
def test_a_job_stops_at_its_threshold(
    limit: str | None, waves: list[Wave], code: str | None
) -> None:
    """What is not begun cannot break: that is what canary and threshold are for."""
    found = stop(Threshold.parse(limit) if limit else None, waves)

    assert (found.code if found else None) == code


def test_the_reason_says_how_many_failed_and_how_many_might() -> None:
    """It is what an operator reads first."""
    found = stop(Threshold.parse("2"), [wave(1, 10, failed=3)])
    assert found is not None
    assert found.message == "3 of 10 failed, 2 were allowed"


@pytest.mark.parametrize(
    ("limit", "failed", "completed"),
    [(None, 0, True), (None, 1, False), ("1", 1, True), ("1", 2, False), ("10%", 10, True)],
)
def test_a_job_ends_by_its_threshold(limit: str | None, failed: int, completed: bool) -> None:
    """A job with failures below what was allowed is done."""
    counts = Counts(total=105, successful=100 - failed, failed=failed, skipped=5)

    assert verdict(Threshold.parse(limit) if limit else None, counts) is completed
