"""The failure threshold: when a job stops by itself, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from certrail.errors import InvalidRequest
from certrail.jobs.status import Counts

_TEXT = re.compile(r"^(?P<number>\d{1,7})$|^(?P<percent>\d{1,3}(\.\d{1,3})?)\s*%$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Threshold:
    """How many failures are put up with: a number, or a percentage of those begun."""

    number: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read ``5`` or ``2.5%``.

        Raises:
            InvalidRequest: it is neither.
        """
        match = _TEXT.match(text.strip())
        if match is None or (match["percent"] and float(match["percent"]) > 100):
            raise InvalidRequest(
                f"{text!r} is not a number of failures or a percentage",
                remedy="Write --max-failures 5 or --max-failures 2.5%.",
            )
        if match["number"]:
            return cls(number=int(match["number"]))
        return cls(percent=float(match["percent"]))

    def allowed(self, among: int) -> int:
        """Return how many of *among* endpoints may fail."""
        if self.number is not None:
            return self.number
        # Past the rounding of floats: 10 % of 30 are 3.
        return floor(among * (self.percent or 0.0) / 100 + 1e-9)

    def __str__(self) -> str:
        return str(self.number) if self.number is not None else f"{self.percent:g}%"


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave as far as it has come; the canary is the first, where there is one.

    Attributes:
        earlier: failures from before the job's retry, of endpoints that do not run again.
    """

    number: int
    canary: bool
    counts: Counts
    earlier: int = 0

    @property
    def failed(self) -> int:
        """Endpoints that failed in this turn."""
        return self.counts.failed - self.earlier

    @property
    def among(self) -> int:
        """Endpoints that take part, but for those that failed in an earlier turn."""
        return self.counts.eligible - self.earlier


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a job begins no more endpoints."""

    code: str
    message: str


def stop(threshold: Threshold | None, waves: Sequence[Wave]) -> Stop | None:
    """Decide whether the job begins no more endpoints, from the waves *begun* so far.

    A percentage counts among the waves begun, so that a canary of five is not
    measured by the thousands that wait behind it. Without a threshold only a
    canary stops a job: one failure in it is enough. What failed before a retry and
    does not run again is not counted: it would stop the job at once, every time.
    """
    for wave in waves:
        if wave.canary and (why := _canary(threshold, wave)):
            return why
    if threshold is None:
        return None
    failed = sum(wave.failed for wave in waves)
    among = sum(wave.among for wave in waves)
    if failed <= threshold.allowed(among):
        return None
    return Stop(
        "too-many-failures",
        f"{failed} of {among} failed, {_at_most(threshold, among)} were allowed",
    )


def verdict(threshold: Threshold | None, counts: Counts) -> bool:
    """Return whether a job that has gone through is completed, rather than failed.

    Without a threshold any failure makes it failed.
    """
    allowed = threshold.allowed(counts.eligible) if threshold else 0
    return counts.failed <= allowed


def _canary(threshold: Threshold | None, wave: Wave) -> Stop | None:
    allowed = threshold.allowed(wave.among) if threshold else 0
    if wave.failed > allowed:
        return Stop(
            "canary-failed",
            f"{wave.failed} of {wave.among} in the canary failed, "
            f"{_at_most(threshold, wave.among)} were allowed",
        )
    if wave.among and wave.failed == wave.among:
        return Stop("canary-failed", f"all {wave.among} of the canary failed")
    return None


def _at_most(threshold: Threshold | None, among: int) -> str:
    if threshold is None:
        return "none"
    return str(threshold.allowed(among)) if threshold.number is not None else str(threshold)
