"""What the command line of the benchmarks leaves open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Sizes and shapes, for the chapters that have several.

    Attributes:
        sizes: endpoints of each measured job, smallest first.
        workers: how many take part.
        redis: without Redis, with it, or both.
        one_by_one: certificates by each client that is run one by one.
        before: the file of results as it is, for chapters that keep their rows.
    """

    sizes: tuple[int, ...] = (100, 1000)
    workers: tuple[int, ...] = (1, 2, 4)
    redis: tuple[bool, ...] = (False, True)
    one_by_one: int = 20
    before: str = ""
