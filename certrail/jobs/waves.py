"""The frozen order of a job: canary, waves, and the shards that workers take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from certrail.errors import InvalidRequest

_SMALLEST_SHARD = 100
_LARGEST_SHARD = 500


class Lane(StrEnum):
    """Endpoints that failed last time wait in a lane of their own, in nobody's way."""

    MAIN = "main"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Route:
    """Whose work an endpoint is.

    Attributes:
        pool: work pool.
        queue: of the executor that alone reaches it, None where any worker of the pool does.
    """

    pool: str
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint stands in its job; all numbers begin at 1."""

    position: int
    wave: int
    shard: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Endpoints that one worker takes together."""

    number: int
    wave: int
    route: Route
    lane: Lane
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Places in the order of the endpoints given, and the shards they make."""

    places: tuple[Place, ...]
    shards: tuple[Shard, ...]
    canary: bool

    @property
    def waves(self) -> tuple[int, ...]:
        """The size of each wave."""
        sizes: dict[int, int] = {}
        for shard in self.shards:
            sizes[shard.wave] = sizes.get(shard.wave, 0) + shard.size
        return tuple(sizes[number] for number in sorted(sizes))


def lay_out(
    endpoints: Sequence[tuple[Route, Lane]],
    *,
    canary: int | None = None,
    wave: int | None = None,
    shard: int | None = None,
) -> Layout:
    """Lay endpoints out in waves and shards.

    Args:
        endpoints: route and lane of each, in the job's order.
        canary: size of a first wave, None for none.
        wave: size of the following waves, None for one that takes all.
        shard: the most that one worker takes together, None for what suits the job's size.

    The failing lane comes with the last wave: a canary of endpoints that fail
    anyway would prove nothing. Endpoints that only a certain executor reaches
    are in shards of their own, which wait for it without holding up others.

    Raises:
        InvalidRequest: a size below 1.
    """
    for name, size in (("--canary", canary), ("--wave", wave), ("--shard", shard)):
        if size is not None and size < 1:
            raise InvalidRequest(f"{name} is at least 1", remedy=f"Leave {name} out for none.")
    main = [i for i, (_, lane) in enumerate(endpoints) if lane is Lane.MAIN]
    failing = [i for i, (_, lane) in enumerate(endpoints) if lane is Lane.FAILING]
    if not main:
        main, failing = failing, []
    waves = _cut(main[:canary], canary) if canary else []
    rest = main[canary:] if canary else main
    waves += _cut(rest, wave or len(rest) or 1)
    if failing:
        if len(waves) == (1 if canary else 0):
            waves.append([])
        waves[-1] = waves[-1] + failing
    places: dict[int, Place] = {}
    shards: list[Shard] = []
    largest = shard or min(_LARGEST_SHARD, max(_SMALLEST_SHARD, ceil(len(endpoints) / 8)))
    late = frozenset(failing)
    position = 0
    for number, members in enumerate(waves, start=1):
        groups: dict[tuple[Route, Lane], list[int]] = {}
        for index in members:
            lane = Lane.FAILING if index in late else Lane.MAIN
            groups.setdefault((endpoints[index][0], lane), []).append(index)
        for (route, lane_), group in groups.items():
            for piece in _even(group, largest):
                made = Shard(len(shards) + 1, number, route, lane_, len(piece))
                shards.append(made)
                for index in piece:
                    position += 1
                    places[index] = Place(position, number, made.number)
    return Layout(
        tuple(places[index] for index in range(len(endpoints))), tuple(shards), bool(canary)
    )


def _cut(members: list[int], size: int) -> list[list[int]]:
    return [members[start : start + size] for start in range(0, len(members), size)]


def _even(members: list[int], largest: int) -> list[list[int]]:
    """Cut into pieces of nearly the same size, so that none ends long after the others."""
    return _cut(members, ceil(len(members) / ceil(len(members) / largest)))
