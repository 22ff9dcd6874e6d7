"""Memory and open files of processes over a run: do they grow with the work that is done?

A cache that fills rises and stops; a leak rises in the second half of what is looked at
as it did in the first. So growth is a rise over all of it that its second half goes on with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

import psutil

# What may be gained from begin to end, and half as much in the second half. Of 20 MiB that stay
# of a thousand requests, five hundred gain 10 and the later ones of them 5.
FILES = 8.0
MIB = 6.0
_FEWEST_POINTS, _FEWEST_REQUESTS = 20, 100


@dataclass(frozen=True, slots=True)
class Point:
    """One look at one process: requests done so far, MiB resident, open descriptors."""

    done: int
    memory: float
    files: int


@dataclass(frozen=True, slots=True)
class Slope:
    """How one figure of one process went.

    Attributes:
        begin, end: of the fitted line.
        per_thousand: what it rises in a thousand requests.
        late: what the line through the second half rises from its begin to its end.
        span: requests that were done meanwhile.
        is_flat: None where too little was seen.
    """

    begin: float
    end: float
    per_thousand: float
    late: float
    span: int
    is_flat: bool | None


@dataclass
class Levels:
    """Points of all processes, by what they are and their process id; *names* were looked for."""

    points: dict[tuple[str, int], list[Point]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def look(self, processes: Mapping[str, psutil.Process | None], done: int) -> None:
        """Take a point of each process that is there."""
        self.names.update(processes)
        for name, process in processes.items():
            if process is None:
                continue
            with suppress(psutil.Error):
                with process.oneshot():
                    point = Point(done, process.memory_info().rss / 2**20, process.num_fds())
                self.points.setdefault((name, process.pid), []).append(point)

    def slopes(self, *, after: int) -> Iterator[tuple[str, str, Slope]]:
        """Return name, figure and slope of whoever lived longest once *after* were done."""
        longest: dict[str, list[Point]] = {name: [] for name in self.names}
        for (name, _), points in self.points.items():
            late = [one for one in points if one.done >= after]
            if len(late) > len(longest[name]):
                longest[name] = late
        for name, late in sorted(longest.items()):
            yield name, "MiB", slope([(p.done, p.memory) for p in late], MIB)
            yield name, "descriptors", slope([(p.done, float(p.files)) for p in late], FILES)


def must_be_flat(slopes: Sequence[tuple[str, str, Slope]]) -> str:
    """Fail if anything grew, or if too little was seen to say that it did not."""
    wrong = [
        f"{name}, {figure}: " + ("too little to judge" if one.is_flat is None else "grows")
        for name, figure, one in slopes
        if not one.is_flat
    ]
    assert slopes, "no process was looked at"
    assert not wrong, "; ".join(wrong)
    return f"{len(slopes)} levels of memory and descriptors"


def slope(points: list[tuple[int, float]], least: float) -> Slope:
    """Fit lines through *points* and judge them; outliers do not move them (Theil and Sen).

    *least* is a rise that is never called growth, half of it one in the second half.
    """
    if not points:
        return Slope(begin=0, end=0, per_thousand=0, late=0, span=0, is_flat=None)
    first, last = points[0][0], points[-1][0]
    span = last - first
    rise, base = _line(points)
    late = [one for one in points if one[0] >= first + span / 2]
    later, _ = _line(late)
    gained = later * (last - late[0][0])
    enough = len(points) >= _FEWEST_POINTS and span >= _FEWEST_REQUESTS
    is_flat = rise * span <= least or gained <= least / 2
    return Slope(
        begin=base + rise * first,
        end=base + rise * last,
        per_thousand=rise * 1000,
        late=gained,
        span=span,
        is_flat=is_flat if enough else None,
    )


def _line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Return what the line through *points* rises with each request, and where it begins at 0."""
    some = points[:: max(1, len(points) // 200)]
    rises = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(some, 2) if b[0] != a[0]]
    rise = median(rises) if rises else 0.0
    return rise, median([y - rise * x for x, y in some])
