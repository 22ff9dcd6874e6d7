"""Which shards of a wave are at work at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from certrail.jobs.waves import Lane, Route


@dataclass(frozen=True, slots=True)
class Standing:
    """A shard as far as its turn depends on it.

    Attributes:
        left: endpoints that can run now.
        is_held: a living worker has it.
    """

    number: int
    route: Route
    lane: Lane
    left: int
    is_held: bool


def turns(
    shards: Sequence[Standing], workers: Mapping[Route, int], concurrency: int
) -> frozenset[int]:
    """Return the numbers of the shards whose turn it is.

    How many places each of them has is another question (:mod:`certrail.jobs.shares`);
    but never are more at work than there are places, or one would have none. Where nobody
    serves a route its shards wait.

    Args:
        shards: of one wave, in the job's order.
        workers: how many serve each route.
        concurrency: places of the job.
    """
    main: list[Standing] = []
    failing: list[Standing] = []
    for route in dict.fromkeys(shard.route for shard in shards):
        served = workers.get(route, 0)
        if served < 1:
            continue
        open_ = [shard for shard in shards if shard.route == route and shard.left]
        main += [shard for shard in open_ if shard.lane is Lane.MAIN][:served]
        # The failing lane runs beside the others, not after them.
        failing += [shard for shard in open_ if shard.lane is Lane.FAILING][:1]
    due = [*main, *failing]
    room = max(0, concurrency - sum(shard.is_held for shard in shards))
    begin = [shard.number for shard in due if not shard.is_held][:room]
    return frozenset([*begin, *(shard.number for shard in due if shard.is_held)])
