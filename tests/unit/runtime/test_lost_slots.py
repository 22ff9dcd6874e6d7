"""Which slots of a limit are lost: such as have no lease whenever one looks."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from certrail.cli._lost_slots import SURE_SECONDS, Suspects

DEVICE, CA = UUID(int=1), UUID(int=2)
LOOKS = [number * SURE_SECONDS / 4 for number in range(6)]


def looked(used: list[int], leased: list[int]) -> list[int]:
    """Return what is given back at each look at one limit."""
    suspects = Suspects()
    return [
        suspects.lost({DEVICE: slots}, {DEVICE: held}, now)[DEVICE]
        for slots, held, now in zip(used, leased, LOOKS, strict=False)
    ]


def test_a_slot_that_never_has_a_lease_is_lost() -> None:
    """Once: by the next look it is free."""
    assert looked([1, 1, 1, 1, 1], [0, 0, 0, 0, 0]) == [0, 0, 0, 0, 1]


def test_only_as_many_are_lost_as_were_without_one_each_time() -> None:
    """Some were being taken or given back at one look."""
    assert looked([5, 4, 6, 5, 7], [2, 2, 2, 2, 2])[-1] == 2


def test_a_slot_that_had_its_lease_once_is_not_lost() -> None:
    """Then it was another one each time, that was just being taken."""
    assert looked([3, 3, 3, 3, 3, 3], [2, 2, 3, 2, 2, 2]) == [0] * 6


def test_a_few_looks_are_not_enough() -> None:
    """After a server stood still for a while, what is taken at that moment looks lost."""
    suspects = Suspects()

    assert suspects.lost({CA: 1}, {}, 0.0) == Counter()
    assert suspects.lost({CA: 1}, {}, 2 * SURE_SECONDS) == Counter()


def test_limits_are_looked_at_one_by_one() -> None:
    """One that is in order does not hide another one."""
    suspects = Suspects()
    found = [suspects.lost({DEVICE: 1, CA: 4}, {DEVICE: 1, CA: 1}, now) for now in LOOKS[:5]]

    assert found[-1] == Counter({CA: 3})
