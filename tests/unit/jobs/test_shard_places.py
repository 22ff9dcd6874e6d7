"""What a worker takes its shard's places for: only those that nobody else can have."""

from __future__ import annotations

from dataclasses import dataclass

from certrail.jobs.shares import Need, Reason, Share
from tasks._shard_places import ShardPlaces


@dataclass
class Clock:
    """Seconds that pass as a test says."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def places(clock: Clock, *, is_only: bool = False) -> ShardPlaces:
    return ShardPlaces(8, is_only=is_only, lease_seconds=60.0, monotonic=clock)


def test_the_only_shard_has_all_and_asks_nobody() -> None:
    """The common case costs nothing, whatever becomes of the database."""
    clock = Clock()
    mine = places(clock, is_only=True)
    mine.take()
    clock.now += 1000.0

    assert (mine.free, mine.need()) == (7, None)


def test_none_is_free_before_the_first_answer() -> None:
    """Others may have all of them."""
    mine = places(Clock())

    assert mine.free == 0


def test_none_is_free_between_question_and_answer() -> None:
    """The answer may give away what is free, and one that got lost may have done so."""
    mine = places(Clock())
    mine.need()
    mine.granted(Share(4, Reason.SHARE))
    mine.take()
    before = mine.free
    asked = mine.need()
    meanwhile = mine.free
    mine.granted(Share(2, Reason.SHARE))

    assert (before, meanwhile, mine.free) == (3, 0, 1)
    assert asked == Need(in_use=1, wanted=1, concurrency=8, is_first=True)


def test_none_is_free_once_the_lease_may_be_over() -> None:
    """Others take the places then; the lease began after the question, not at its answer."""
    clock = Clock()
    mine = places(clock)
    mine.need()
    clock.now += 10.0
    mine.granted(Share(4, Reason.SHARE))
    clock.now += 49.9
    before = mine.free
    clock.now += 0.2

    assert (before, mine.free) == (4, 0)


def test_it_wants_what_runs_returns_and_waits_but_no_more_than_the_job_has() -> None:
    """An endpoint that gave its place up for a while counts again when it comes back."""
    clock = Clock()
    mine = places(clock)
    mine.need()
    mine.granted(Share(4, Reason.SHARE))
    mine.take()
    mine.take()
    mine.give_back()
    mine.returning, mine.line = 1, 3
    clock.now += 5.0
    asked = mine.need()
    mine.line = 30
    more = mine.need()

    assert asked == Need(in_use=1, wanted=5, concurrency=8, is_first=False)
    assert more == Need(in_use=1, wanted=8, concurrency=8, is_first=False)
