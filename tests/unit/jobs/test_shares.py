"""How the shards of a job share its places: all are used, none twice, nobody goes without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.jobs.shares import Claim, Need, Reason, Share, share
from certrail.jobs.waves import Lane

MAIN, FAILING = Lane.MAIN, Lane.FAILING


def at(number: int, wanted: int, places: int = 0, lane: Lane = MAIN) -> Claim:
    """Return a shard that a living worker has."""
    return Claim(number, lane, places, wanted, is_held=True, is_begun=True)


def called(number: int, wanted: int, lane: Lane = MAIN) -> Claim:
    """Return a shard that a worker is to take now."""
    return Claim(number, lane, 0, wanted, is_held=False, is_begun=False)


def dead(number: int, wanted: int, places: int) -> Claim:
    """Return a shard whose worker was killed, and whose lease ran out."""
    return Claim(number, MAIN, places, wanted, is_held=False, is_begun=True)


def through(number: int) -> Claim:
    return dead(number, 0, 0)


MINE = at(1, 20)
NEED = Need(0, 20, 20)


@pytest.mark.parametrize(
    ("need", "claims", "places", "reason"),
    [
        pytest.param(NEED, [MINE], 20, Reason.WANTED, id="all of them"),
        pytest.param(NEED, [MINE, through(2)], 20, Reason.WANTED, id="another one is through"),
        pytest.param(NEED, [MINE, at(2, 20, 10)], 10, Reason.SHARE, id="half each"),
        pytest.param(NEED, [MINE, at(2, 3, 3)], 17, Reason.SHARE, id="what a small one leaves"),
        pytest.param(NEED, [MINE, at(2, 3, 10)], 10, Reason.TAKEN, id="not given back yet"),
        pytest.param(NEED, [MINE, at(2, 20, 20)], 0, Reason.TAKEN, id="until endpoints end"),
        pytest.param(NEED, [MINE, at(2, 0, 0)], 20, Reason.WANTED, id="who wants none has none"),
        pytest.param(
            Need(12, 20, 20), [at(1, 20, 20), at(2, 20)], 12, Reason.IN_USE, id="one by one"
        ),
        pytest.param(
            Need(9, 20, 20), [at(1, 20, 20), at(2, 20)], 10, Reason.SHARE, id="down to its share"
        ),
        pytest.param(
            Need(2, 2, 20), [at(1, 20, 10), at(2, 20, 10)], 2, Reason.WANTED, id="near its end"
        ),
        pytest.param(NEED, [MINE, dead(2, 20, 10)], 20, Reason.WANTED, id="a killed worker's"),
        pytest.param(NEED, [MINE, called(2, 20)], 20, Reason.WANTED, id="nobody came"),
        pytest.param(
            replace(NEED, is_first=True), [MINE, called(2, 20)], 10, Reason.SHARE, id="begin both"
        ),
        pytest.param(
            replace(NEED, is_first=True), [MINE, called(2, 2)], 18, Reason.SHARE, id="a small one"
        ),
        pytest.param(NEED, [MINE, at(2, 9, 2, FAILING)], 18, Reason.SHARE, id="beside the lane"),
        pytest.param(
            NEED, [at(1, 9, 0, FAILING), at(2, 20, 18)], 2, Reason.LANE, id="a tenth for the lane"
        ),
        pytest.param(
            NEED, [at(1, 9, 0, FAILING), called(2, 0)], 2, Reason.LANE, id="others are to come"
        ),
        pytest.param(
            NEED, [at(1, 20, 2, FAILING), through(2)], 20, Reason.WANTED, id="the lane has it all"
        ),
        pytest.param(
            Need(0, 1, 1), [at(1, 1, 0, FAILING), at(2, 1, 1)], 0, Reason.LANE, id="no last place"
        ),
        pytest.param(
            Need(5, 20, 20), [at(1, 20, 5), at(2, 20, 20)], 5, Reason.IN_USE, id="a late renewal"
        ),
    ],
)
def test_share(need: Need, claims: Sequence[Claim], places: int, reason: Reason) -> None:
    """The table of how many and why; shard 1 asks."""
    assert share(1, need, claims) == Share(places, reason)


SHARDS = st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 30)), min_size=1, max_size=6)
# Which shard asks, how many of its endpoints have ended since, whether it has only begun.
ASKED = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.booleans()), max_size=60)


@settings(deadline=None)
@given(shards=SHARDS, concurrency=st.integers(1, 30), asked=ASKED)
def test_the_sum_is_kept_and_everything_is_used(
    shards: list[tuple[Lane, int]], concurrency: int, asked: list[tuple[int, int, bool]]
) -> None:
    """Whoever asks whenever, and however many of its endpoints have ended by then."""
    left = [size for _, size in shards]
    used = [0] * len(shards)
    claims = [
        Claim(n, lane, 0, 0, is_held=True, is_begun=True) for n, (lane, _) in enumerate(shards)
    ]

    def ask(number: int, ended: int, *, is_first: bool) -> None:
        ended = min(used[number], ended)
        used[number] -= ended
        left[number] -= ended
        need = Need(used[number], min(concurrency, left[number]), concurrency, is_first)
        given_ = share(number, need, claims)
        claims[number] = replace(claims[number], places=given_.places, wanted=need.wanted)
        assert used[number] <= given_.places <= max(used[number], need.wanted)
        assert sum(claim.places for claim in claims) <= concurrency
        used[number] = min(left[number], given_.places)

    for which, ended, is_first in asked:
        ask(which % len(shards), ended, is_first=is_first)
    # From here on each ends what it has, again and again: the last endpoint has its turn.
    for _ in range(2 * sum(left) + 2 * len(shards)):
        for number in range(len(shards)):
            if left[number]:
                ask(number, used[number], is_first=False)
            if not left[number]:
                claims[number] = replace(claims[number], places=0, wanted=0, is_held=False)
    assert sum(left) == 0


@given(wants=st.lists(st.integers(1, 40), min_size=1, max_size=8), concurrency=st.integers(8, 40))
def test_all_settle_on_the_same_shares(wants: list[int], concurrency: int) -> None:
    """Asked in turn with nothing running, each has its level and no place is idle."""
    wants = [min(one, concurrency) for one in wants]
    claims = [at(number, wanted) for number, wanted in enumerate(wants)]
    for _ in range(2):
        for number, wanted in enumerate(wants):
            given_ = share(number, Need(0, wanted, concurrency), claims)
            claims[number] = replace(claims[number], places=given_.places)
    found = [claim.places for claim in claims]

    assert sum(found) == min(concurrency, sum(wants))
    full = max(found)
    assert all(
        places == wanted or places >= full - 1 for places, wanted in zip(found, wants, strict=True)
    )
