"""Growth is told from noise, and one command's figures do not wipe out another's."""

from __future__ import annotations

import random
from math import exp
from pathlib import Path

import pytest

from tests.chaos.levels import MIB, Levels, Point, must_be_flat, slope
from tests.chaos.report import put

_NOISE = random.Random(1)
_RUN = [(done, 200 + _NOISE.uniform(-4, 4)) for done in range(500, 1000)]


@pytest.mark.parametrize(
    ("kib_per_request", "is_flat"),
    [(0, True), (5, True), (50, False), (-50, True)],
)
def test_growth_is_told_from_noise(kib_per_request: int, is_flat: bool) -> None:
    """50 KiB that stay of each request are 25 MiB in 500 requests: found among a noise of 8."""
    points = [(done, level + done * kib_per_request / 1024) for done, level in _RUN]

    found = slope(points, MIB)

    assert found.is_flat is is_flat
    assert abs(found.per_thousand - kib_per_request * 1000 / 1024) < 4


@pytest.mark.parametrize("more", [-100, 0, 200])
def test_a_slow_leak_is_found_in_a_large_process(more: int) -> None:
    """20 MiB of a thousand requests, whatever the process takes without it."""
    points = [(done, level + more + done * 0.02) for done, level in _RUN]

    assert slope(points, MIB).is_flat is False


def test_a_cache_that_fills_is_no_leak() -> None:
    """It takes 30 MiB, and two thirds of what is left in each hundred requests."""
    points = [(done, level + _cache(done, 30)) for done, level in _RUN]

    found = slope(points, MIB)

    assert found.end - found.begin > MIB
    assert found.is_flat


@pytest.mark.parametrize("cache", [10, 30, 100])
def test_a_leak_beside_a_cache_that_fills_is_found(cache: int) -> None:
    """What the cache takes at first does not excuse what goes on."""
    points = [(done, level + _cache(done, cache) + done * 0.02) for done, level in _RUN]

    assert slope(points, MIB).is_flat is False


def test_a_leak_that_begins_late_is_found() -> None:
    """Such as one of what fills up first."""
    points = [(done, level + max(0, done - 750) * 0.04) for done, level in _RUN]

    assert slope(points, MIB).is_flat is False


def test_one_peak_is_no_growth() -> None:
    """A collection that comes late, or fifty connections at once."""
    points = [(done, level + (300 if done > 990 else 0)) for done, level in _RUN]

    assert slope(points, MIB).is_flat


def test_too_little_is_not_judged() -> None:
    """Sixty requests say nothing about an hour."""
    assert slope(_RUN[:60], MIB).is_flat is None


def test_what_was_seen_too_little_of_does_not_hold() -> None:
    """Neither a process that ended early, nor one that was never there; it might have grown."""
    seen = [Point(done, level, 40) for done, level in _RUN]
    levels = Levels({("worker", 1): seen, ("worker", 2): seen[:30]}, {"worker"})
    told = must_be_flat(list(levels.slopes(after=0)))
    assert told == "2 levels of memory and descriptors"

    levels.points["server", 3] = seen[:60]
    levels.look({"server": None, "second worker": None}, done=1000)

    with pytest.raises(AssertionError) as caught:
        must_be_flat(list(levels.slopes(after=0)))
    assert [line.partition(",")[0] for line in str(caught.value).splitlines()[0].split("; ")] == [
        *("second worker", "second worker", "server", "server")
    ]
    with pytest.raises(AssertionError, match="no process"):
        must_be_flat([])


def test_a_leak_does_not_hold() -> None:
    """And the rule names it."""
    points = [Point(done, level + done * 0.02, 40) for done, level in _RUN]
    levels = Levels({("worker", 1): points}, {"worker"})

    with pytest.raises(AssertionError, match="worker, MiB: grows"):
        must_be_flat(list(levels.slopes(after=0)))


def _cache(done: int, most: float) -> float:
    return most * (1 - exp(-(done - 500) / 90))


def test_a_section_replaces_its_own(tmp_path: Path) -> None:
    """Two commands write one page."""
    page = tmp_path / "page.md"
    put("Storms", "first", page)
    put("Soak", "second\n\n| a |", page)

    put("Storms", "third", page)

    assert page.read_text() == "# Reliability\n\n## Storms\n\nthird\n\n## Soak\n\nsecond\n\n| a |\n"
