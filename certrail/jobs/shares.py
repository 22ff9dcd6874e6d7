"""How many of a job's places each shard at work has: one number for all, whoever can use them.

Each shard claims as many as it has endpoints for. While all claims fit, each
has what it wants; otherwise the places are levelled, and nobody goes without
for long: who has more than its share gives a place back as an endpoint ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from certrail.jobs.waves import Lane

_FAILING_PART = 10  # the failing lane gets a tenth of a job's places


class Reason(StrEnum):
    """Why a shard has as many places as it has."""

    WANTED = "all-wanted"  # as many as it can use
    SHARE = "fair-share"  # others want places too
    LANE = "failing-lane"  # it is in the lane of those that failed before
    TAKEN = "others-hold"  # part of its share is free only when endpoints of others end
    IN_USE = "in-use"  # more than its share: endpoints that run are not broken off


@dataclass(frozen=True, slots=True)
class Need:
    """What the worker of a shard says of it.

    Attributes:
        in_use: places that endpoints have now.
        wanted: places that it could use now, those in use among them.
        concurrency: places of the job.
        is_first: it has only begun, and leaves their share to shards that were called with it.
    """

    in_use: int
    wanted: int
    concurrency: int
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A shard as far as its places depend on it.

    Attributes:
        places: that it has.
        wanted: places that it could use, as its worker, or the job when calling it, said last.
        is_held: a living worker has it; the places of others are free.
        is_begun: a worker had it at some time.
    """

    number: int
    lane: Lane
    places: int
    wanted: int
    is_held: bool
    is_begun: bool

    @property
    def is_through(self) -> bool:
        """Whether nothing of it is left to be run."""
        return self.is_begun and not self.is_held and not self.wanted


@dataclass(frozen=True, slots=True)
class Share:
    """The places that a shard has from now on, and why so many."""

    places: int
    reason: Reason


def share(number: int, need: Need, claims: Sequence[Claim]) -> Share:
    """Return the places of shard *number*.

    What the shards at work have is never more than the job has, as long as
    each heeds this answer before the next one asks; only where a lease ran out
    under a living worker may endpoints that run already be too many.

    Args:
        number: of the shard, which a living worker has.
        need: of that shard.
        claims: of all shards of the job, this one among them.
    """
    known = [
        replace(one, wanted=need.wanted, is_held=True) if one.number == number else one
        for one in claims
    ]
    mine = next(one for one in known if one.number == number)
    others = sum(one.places for one in known if one.is_held and one is not mine)
    wanting = [one for one in known if one.wanted and (one.is_held or need.is_first)]
    is_capped = any(one.lane is Lane.MAIN and not one.is_through for one in known)
    target = _targets(wanting, need.concurrency, is_capped=is_capped).get(number, 0)
    possible = min(target, max(0, need.concurrency - others))
    if need.in_use > possible:
        return Share(need.in_use, Reason.IN_USE)
    if possible < target:
        return Share(possible, Reason.TAKEN)
    if target >= need.wanted:
        return Share(target, Reason.WANTED)
    lane = mine.lane is Lane.FAILING and is_capped
    return Share(target, Reason.LANE if lane else Reason.SHARE)


def _targets(wanting: Sequence[Claim], concurrency: int, *, is_capped: bool) -> dict[int, int]:
    """Return what each shard is to have in the end.

    The failing lane keeps to its part as long as anything of the others is left: its
    endpoints may take very long, and what they have could not be given back soon.
    """
    if not is_capped:
        return _levelled(wanting, concurrency)
    main = [one for one in wanting if one.lane is Lane.MAIN]
    found: dict[int, int] = {}
    room = concurrency
    for one in wanting:
        if one.lane is Lane.FAILING:
            most = max(1, concurrency // _FAILING_PART)
            found[one.number] = max(0, min(one.wanted, most, room - len(main)))
            room -= found[one.number]
    return found | _levelled(main, room)


def _levelled(wanting: Sequence[Claim], room: int) -> dict[int, int]:
    """Give each what it wants, or as much as all others that want more."""
    found: dict[int, int] = {}
    ordered = sorted(wanting, key=lambda one: (one.wanted, one.number))
    for left, one in zip(range(len(ordered), 0, -1), ordered, strict=True):
        found[one.number] = min(one.wanted, -(-room // left))
        room -= found[one.number]
    return found
