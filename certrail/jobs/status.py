"""Where a bulk job stands, and what its endpoints count as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from certrail.tracker import FAILED, SUCCESSFUL, Status


class JobStatus(StrEnum):
    """State of a bulk automation job."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def text(self) -> str:
        """The status as shown on screens."""
        return self.value.capitalize()

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


OPEN = tuple(status for status in JobStatus if not status.is_over)
"""Statuses of a job that looks after its own requests."""

GROUPS: Mapping[str, tuple[Status, ...]] = {
    "pending": (Status.APPROVAL_PENDING, Status.AUTOMATION_REQUESTED),
    "scheduled": (Status.AUTOMATION_SCHEDULED,),
    "in_progress": (Status.IN_PROGRESS,),
    "successful": SUCCESSFUL,
    "failed": FAILED,
    "cancelled": (Status.CANCELLED,),
}
"""How the statuses of requests are counted; endpoints without a request are ``skipped``."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many endpoints of a job or wave are in which state."""

    total: int = 0
    pending: int = 0
    scheduled: int = 0
    in_progress: int = 0
    successful: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0

    @property
    def eligible(self) -> int:
        """Endpoints that take part."""
        return self.total - self.skipped

    @property
    def left(self) -> int:
        """Endpoints whose request is not over."""
        return self.pending + self.scheduled + self.in_progress

    @property
    def over(self) -> int:
        """Endpoints whose request is over."""
        return self.successful + self.failed + self.cancelled

    @classmethod
    def together(cls, several: Iterable[Counts]) -> Counts:
        """Return the sums of *several*."""
        sums = Counter[str]()
        for one in several:
            sums.update(one.to_json())
        return cls(**sums)

    def to_json(self) -> dict[str, int]:
        """Return the documented keys."""
        return {
            "total": self.total,
            "pending": self.pending,
            "scheduled": self.scheduled,
            "in_progress": self.in_progress,
            "successful": self.successful,
            "failed": self.failed,
            "skipped": self.skipped,
            "cancelled": self.cancelled,
        }
