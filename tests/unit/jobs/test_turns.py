"""Which shards are at work together: never more than there are places, nobody held up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.jobs.turns import Standing, turns
from certrail.jobs.waves import Lane, Route

AGENTS, SENSORS, WEB = Route("agents"), Route("sensors"), Route("agents", "web01")
MAIN, FAILING = Lane.MAIN, Lane.FAILING


def at(
    number: int, route: Route = AGENTS, lane: Lane = MAIN, left: int = 100, *, held: bool = False
) -> Standing:
    return Standing(number, route, lane, left, held)


@pytest.mark.parametrize(
    ("shards", "workers", "concurrency", "expected"),
    [
        pytest.param([at(1), at(2)], {AGENTS: 1}, 20, {1}, id="a worker takes one at a time"),
        pytest.param([at(1), at(2)], {AGENTS: 2}, 20, {1, 2}, id="two workers, two shards"),
        pytest.param([at(1), at(2)], {AGENTS: 2}, 1, {1}, id="never more than there are places"),
        pytest.param(
            [at(1), at(2, SENSORS)], {AGENTS: 1, SENSORS: 1}, 4, {1, 2}, id="each pool its own"
        ),
        pytest.param(
            [at(1, WEB), at(2)], {AGENTS: 1}, 4, {2}, id="a silent executor holds up nobody"
        ),
        pytest.param(
            [at(1, WEB), at(2)], {AGENTS: 1, WEB: 1}, 4, {1, 2}, id="an executor's own shard"
        ),
        pytest.param(
            [at(1), at(2, lane=FAILING)], {AGENTS: 1}, 20, {1, 2}, id="the lane runs beside"
        ),
        pytest.param(
            [at(1), at(2, lane=FAILING)], {AGENTS: 1}, 1, {1}, id="the lane takes no last place"
        ),
        pytest.param(
            [at(1, lane=FAILING), at(2)], {AGENTS: 1}, 1, {2}, id="also where it is the first"
        ),
        pytest.param(
            [at(1, held=True), at(2)], {AGENTS: 2}, 20, {1, 2}, id="a second worker takes part"
        ),
        pytest.param(
            [at(1, held=True), at(2)], {AGENTS: 2}, 1, {1}, id="unless there is one place only"
        ),
        pytest.param(
            [at(1, held=True), at(2, held=True), at(3)],
            {AGENTS: 1},
            20,
            {1},
            id="what a worker holds goes on when another one left",
        ),
        pytest.param([at(1, left=0), at(2)], {AGENTS: 1}, 20, {2}, id="the next one"),
        pytest.param([at(1)], {}, 20, set(), id="nobody serves the pool"),
    ],
)
def test_turns(
    shards: list[Standing], workers: dict[Route, int], concurrency: int, expected: set[int]
) -> None:
    """The table of who is at work."""
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
def test_never_more_shards_are_at_work_than_there_are_places(
    shards: list[tuple[Route, Lane, int]], workers: dict[Route, int], concurrency: int
) -> None:
    """Begun wave after wave, whatever workers come and go."""
    standing = [
        Standing(n, route, lane, left, is_held=False)
        for n, (route, lane, left) in enumerate(shards)
    ]
    begun = turns(standing, workers, concurrency)

    assert len(begun) <= concurrency
    served = any(workers.get(s.route, 0) and s.left for s in standing)
    assert bool(begun) == served
    held = [Standing(s.number, s.route, s.lane, s.left, s.number in begun) for s in standing]
    later = turns(held, dict.fromkeys((AGENTS, SENSORS, WEB), 3), concurrency)
    assert len(begun | later) <= concurrency
