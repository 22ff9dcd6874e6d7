"""The order of a job: canary, waves, shards, and the lane of those that failed before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.jobs.waves import Lane, Route, lay_out

MAIN, FAILING = Lane.MAIN, Lane.FAILING
AGENTS, SENSORS = Route("agents"), Route("sensors")


def agents(count: int, lane: Lane = MAIN) -> list[tuple[Route, Lane]]:
    return [(AGENTS, lane)] * count


@pytest.mark.parametrize(
    ("count", "canary", "wave", "sizes"),
    [
        (10, None, None, (10,)),
        (10, 3, None, (3, 7)),
        (10, None, 4, (4, 4, 2)),
        (12, 2, 5, (2, 5, 5)),
        (3, 3, None, (3,)),
        (3, 10, 5, (3,)),
        (1, 1, 1, (1,)),
        (0, None, None, ()),
    ],
)
def test_canary_first_then_waves(
    count: int, canary: int | None, wave: int | None, sizes: tuple[int, ...]
) -> None:
    """Each wave waits for the one before it, so sizes decide what can go wrong at once."""
    assert lay_out(agents(count), canary=canary, wave=wave).waves == sizes


def test_endpoints_that_failed_before_are_no_canary() -> None:
    """They would fail anyway and prove nothing; they come last, in a shard of their own."""
    layout = lay_out([*agents(2, FAILING), *agents(4)], canary=2)

    assert [place.wave for place in layout.places] == [2, 2, 1, 1, 2, 2]
    lanes = {shard.number: shard.lane for shard in layout.shards}
    assert [lanes[place.shard] for place in layout.places] == [
        FAILING, FAILING, MAIN, MAIN, MAIN, MAIN,
    ]  # fmt: skip


def test_a_canary_of_all_leaves_the_failing_lane_a_wave_of_its_own() -> None:
    """Otherwise their failures would stop the job as failures of the canary."""
    layout = lay_out([*agents(2), *agents(1, FAILING)], canary=2)

    assert layout.waves == (2, 1)


def test_only_failing_ones_are_laid_out_like_others() -> None:
    """A job that retries what failed has a canary too."""
    assert lay_out(agents(3, FAILING), canary=1).waves == (1, 2)


@pytest.mark.parametrize(
    ("count", "shards", "largest"), [(1, 1, 1), (100, 1, 100), (101, 2, 51), (10_000, 20, 500)]
)
def test_shards_have_100_to_500_endpoints(count: int, shards: int, largest: int) -> None:
    """Smaller ones cost a start each, larger ones lose more when their worker dies."""
    layout = lay_out(agents(count))

    assert len(layout.shards) == shards
    assert max(shard.size for shard in layout.shards) == largest


def test_a_small_job_can_be_spread_over_several_workers() -> None:
    """Whoever starts it knows how many there are."""
    assert [shard.size for shard in lay_out(agents(10), shard=4).shards] == [4, 4, 2]


def test_pools_and_executors_have_shards_of_their_own() -> None:
    """A sensor cannot run what an agent has to, and not every agent reaches every server."""
    only = Route("agents", "web01")
    layout = lay_out([(AGENTS, MAIN), (SENSORS, MAIN), (only, MAIN), (AGENTS, MAIN)])

    assert [(shard.route, shard.size) for shard in layout.shards] == [
        (AGENTS, 2),
        (SENSORS, 1),
        (only, 1),
    ]


@pytest.mark.parametrize("option", [{"canary": 0}, {"wave": 0}, {"canary": -3}, {"shard": 0}])
def test_a_size_below_one_is_refused(option: dict[str, int]) -> None:
    """It would be a job that never begins."""
    with pytest.raises(InvalidRequest):
        lay_out(agents(3), **option)


@given(
    lanes=st.lists(
        st.tuples(
            st.sampled_from([AGENTS, SENSORS, Route("agents", "web01")]), st.sampled_from(Lane)
        )
    ),
    canary=st.none() | st.integers(1, 50),
    wave=st.none() | st.integers(1, 50),
)
def test_nobody_is_lost_or_doubled(
    lanes: list[tuple[Route, Lane]], canary: int | None, wave: int | None
) -> None:
    """Every endpoint has one place, and shards are as large as they say."""
    layout = lay_out(lanes, canary=canary, wave=wave)

    assert sorted(place.position for place in layout.places) == list(range(1, len(lanes) + 1))
    for shard in layout.shards:
        members = [i for i, place in enumerate(layout.places) if place.shard == shard.number]
        assert len(members) == shard.size
        assert {lanes[i][0] for i in members} == {shard.route}
        assert {layout.places[i].wave for i in members} == {shard.wave}
    assert sum(layout.waves) == len(lanes)
    assert all(layout.waves)
