"""Which shards are at work together: never more places than the job has, nobody held up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.jobs.turns import Standing, turns
from certrail.jobs.waves import Lane, Route

AGENTS, SENSORS, WEB = Route("agents"), Route("sensors"), Route("agents", "web01")
MAIN, FAILING = Lane.MAIN, Lane.FAILING


def at(number: int, route: Route = AGENTS, lane: Lane = MAIN, places: int = 0) -> Standing:
    return Standing(number, route, lane, 100, places, is_held=places > 0)


@pytest.mark.parametrize(
    ("shards", "workers", "concurrency", "expected"),
    [
        pytest.param([at(1), at(2)], {AGENTS: 1}, 20, {1: 20}, id="a worker takes one at a time"),
        pytest.param([at(1), at(2)], {AGENTS: 2}, 20, {1: 10, 2: 10}, id="two workers share"),
        pytest.param([at(1), at(2)], {AGENTS: 2}, 5, {1: 3, 2: 2}, id="all places are given"),
        pytest.param([at(1), at(2)], {AGENTS: 2}, 1, {1: 1}, id="never more than there are"),
        pytest.param(
            [at(1), at(2, SENSORS)], {AGENTS: 1, SENSORS: 1}, 4, {1: 2, 2: 2}, id="pools share too"
        ),
        pytest.param(
            [at(1, WEB), at(2)], {AGENTS: 1}, 4, {2: 4}, id="a silent executor holds up nobody"
        ),
        pytest.param(
            [at(1, WEB), at(2)], {AGENTS: 1, WEB: 1}, 4, {1: 2, 2: 2}, id="an executor's own shard"
        ),
        pytest.param(
            [at(1), at(2, lane=FAILING)], {AGENTS: 1}, 20, {1: 18, 2: 2}, id="a tenth for the lane"
        ),
        pytest.param(
            [at(1), at(2, lane=FAILING)], {AGENTS: 1}, 1, {1: 1}, id="the lane takes no last place"
        ),
        pytest.param(
            [at(1, places=20), at(2)], {AGENTS: 2}, 20, {1: 20}, id="a second worker waits its turn"
        ),
        pytest.param(
            [at(1, places=10), at(2, places=10), at(3)],
            {AGENTS: 1},
            20,
            {1: 10},
            id="what a worker holds is still used when another one left",
        ),
        pytest.param([at(1)], {}, 20, {}, id="nobody serves the pool"),
    ],
)
def test_turns(
    shards: list[Standing], workers: dict[Route, int], concurrency: int, expected: dict[int, int]
) -> None:
    """The table of who begins with how much."""
    assert turns(shards, workers, concurrency) == expected


@given(
    shards=st.lists(
        st.tuples(
            st.sampled_from([AGENTS, SENSORS, WEB]), st.sampled_from(Lane), st.integers(0, 2)
        ),
        max_size=12,
    ),
    workers=st.dictionaries(st.sampled_from([AGENTS, SENSORS, WEB]), st.integers(0, 4)),
    concurrency=st.integers(1, 30),
)
def test_a_job_never_has_more_places_than_it_was_given(
    shards: list[tuple[Route, Lane, int]], workers: dict[Route, int], concurrency: int
) -> None:
    """Begun wave after wave, whatever workers come and go."""
    standing = [
        Standing(n, route, lane, left, 0, is_held=False)
        for n, (route, lane, left) in enumerate(shards)
    ]
    given_ = turns(standing, workers, concurrency)

    assert sum(given_.values()) <= concurrency
    assert all(places > 0 for places in given_.values())
    held = [
        Standing(s.number, s.route, s.lane, s.left, given_.get(s.number, 0), s.number in given_)
        for s in standing
    ]
    later = turns(held, dict.fromkeys((AGENTS, SENSORS, WEB), 3), concurrency)
    used = {s.number: s.places for s in held} | later
    assert sum(used.values()) <= concurrency
    served = any(workers.get(s.route, 0) and s.left for s in standing)
    assert bool(given_) == served
