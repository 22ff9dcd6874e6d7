"""How a step that did not fail ended, and what it works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from certrail.configuration import Plan
from certrail.journal import Journal
from certrail.store.requests import Request
from certrail.tracker import StepStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a step: completed or skipped, with one line for people."""

    status: StepStatus
    detail: str

    @classmethod
    def completed(cls, detail: str) -> Outcome:
        """The step did its work."""
        return cls(StepStatus.COMPLETED, detail)

    @classmethod
    def skipped(cls, reason: str) -> Outcome:
        """The step was not needed; *reason* says why."""
        return cls(StepStatus.SKIPPED, reason)


@dataclass(frozen=True, slots=True)
class Work:
    """One run of one request, as a step sees it."""

    request: Request
    journal: Journal = field(compare=False)

    @classmethod
    def of(cls, request: Request) -> Work:
        """Build it for the request's present run."""
        return cls(request, Journal(request.id, request.run_count))

    @property
    def plan(self) -> Plan:
        """What is to be done."""
        return self.request.plan


def day(moment: datetime) -> str:
    """Return *moment* for a detail line: date and minute, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
