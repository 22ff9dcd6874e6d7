"""Which shards of a wave are at work at the same time, and with how many places each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from certrail.jobs.waves import Lane, Route

_FAILING_SHARE = 10  # the failing lane gets a tenth of a job's places


@dataclass(frozen=True, slots=True)
class Standing:
    """A shard as far as its turn depends on it.

    Attributes:
        left: endpoints that can run now.
        places: how many it runs at the same time; 0: its turn has not come yet.
        is_held: a living worker has it.
    """

    number: int
    route: Route
    lane: Lane
    left: int
    places: int
    is_held: bool


def turns(
    shards: Sequence[Standing], workers: Mapping[Route, int], concurrency: int
) -> dict[int, int]:
    """Return the shards whose turn it is, by number, each with its places.

    All of them together have *concurrency* places, whatever the number of
    pools, executors and workers. A shard keeps the places that it was given.
    Where nobody serves a route its shards wait, and take no places from others.

    Args:
        shards: of one wave, in the job's order.
        workers: how many serve each route.
        concurrency: places of the job.
    """
    due: list[Standing] = []
    for route in dict.fromkeys(shard.route for shard in shards):
        served = workers.get(route, 0)
        if served < 1:
            continue
        open_ = [shard for shard in shards if shard.route == route and shard.left]
        due += [shard for shard in open_ if shard.lane is Lane.MAIN][:served]
        # The failing lane runs beside the others, not after them.
        due += [shard for shard in open_ if shard.lane is Lane.FAILING][:1]
    room = concurrency - sum(
        shard.places for shard in shards if shard.places and (shard.is_held or shard in due)
    )
    found = {shard.number: shard.places for shard in due if shard.places}
    new = [shard for shard in due if not shard.places]
    main = [shard for shard in new if shard.lane is Lane.MAIN]
    for shard in new:
        if shard.lane is Lane.FAILING and room > len(main):
            found[shard.number] = min(room - len(main), max(1, concurrency // _FAILING_SHARE))
            room -= found[shard.number]
    for left, shard in zip(range(len(main), 0, -1), main, strict=True):
        if (places := -(-room // left)) > 0:
            found[shard.number] = places
            room -= places
    return found
