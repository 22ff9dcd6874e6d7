"""Which runs a worker takes, and which it leaves to the others."""

from __future__ import annotations

import pytest

from deployments.in_process import shared_out

SHARD, OTHER = True, False


@pytest.mark.parametrize(
    ("due", "here", "kept"),
    [
        ([], 0, []),
        ([(OTHER, 0.1)] * 3, 5, [True] * 3),
        ([(SHARD, 0.1)], 0, [True]),
        ([(SHARD, 0.1), (SHARD, 0.1)], 0, [True, False]),
        ([(SHARD, 0.1), (OTHER, 0.1)], 1, [False, True]),
        ([(SHARD, 30.0), (SHARD, 0.1)], 1, [True, False]),
        ([(SHARD, 30.0), (SHARD, 30.0)], 0, [True, True]),
    ],
)
def test_shards_are_shared_out(due: list[tuple[bool, float]], here: int, kept: list[bool]) -> None:
    """Two workers take a shard each; one alone takes all of them, a moment later."""
    assert shared_out(due, here) == kept
