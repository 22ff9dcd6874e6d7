"""Memory and open files of processes over a run: do they grow with the work that is done?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

import psutil

# What the fitted line may rise from its begin to its end, as a share of the middle value;
# and as a number of files, since there are few and they come and go with connections.
_SHARE = 0.05
_FILES = 8.0
_MIB = 6.0
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
        span: requests that were done meanwhile.
        is_flat: None where too little was seen.
    """

    begin: float
    end: float
    per_thousand: float
    span: int
    is_flat: bool | None


@dataclass
class Levels:
    """Points of all processes, by what they are and their process id."""

    points: dict[tuple[str, int], list[Point]] = field(default_factory=dict)

    def look(self, processes: Mapping[str, psutil.Process | None], done: int) -> None:
        """Take a point of each process that is there."""
        for name, process in processes.items():
            if process is None:
                continue
            with suppress(psutil.Error):
                with process.oneshot():
                    point = Point(done, process.memory_info().rss / 2**20, process.num_fds())
                self.points.setdefault((name, process.pid), []).append(point)

    def slopes(self, *, after: int) -> Iterator[tuple[str, str, Slope]]:
        """Return name, figure and slope of whoever lived longest once *after* were done."""
        longest: dict[str, list[Point]] = {}
        for (name, _), points in self.points.items():
            late = [one for one in points if one.done >= after]
            if len(late) > len(longest.get(name, ())):
                longest[name] = late
        for name, late in sorted(longest.items()):
            yield name, "MiB", slope([(p.done, p.memory) for p in late], _MIB)
            yield name, "descriptors", slope([(p.done, float(p.files)) for p in late], _FILES)


def slope(points: list[tuple[int, float]], least: float) -> Slope:
    """Fit a line through *points* and judge it; outliers do not move it (Theil and Sen).

    *least* is a rise that is never called growth.
    """
    step = max(1, len(points) // 200)
    some = points[::step]
    rises = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(some, 2) if b[0] != a[0]]
    rise = median(rises) if rises else 0.0
    base = median([y - rise * x for x, y in some])
    first, last = points[0][0], points[-1][0]
    begin, end = base + rise * first, base + rise * last
    span = last - first
    enough = len(points) >= _FEWEST_POINTS and span >= _FEWEST_REQUESTS
    limit = max(least, _SHARE * median([y for _, y in points]))
    return Slope(begin, end, rise * 1000, span, end - begin <= limit if enough else None)
