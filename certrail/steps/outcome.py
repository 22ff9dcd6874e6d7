"""How a step that did not fail ended, and what it works with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from certrail.configuration.plan import Plan
from certrail.journal import Journal
from certrail.store import places, requests
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
    place: int = 0

    @classmethod
    def of(cls, request: Request) -> Work:
        """Build it for the request's present run."""
        return cls(request, Journal(request.id, request.run_count))

    def at(self, number: int, staged: dict[str, Any] | None) -> Work:
        """Return the work in one of several places; *staged* is what was staged there."""
        if number == 0:
            return self
        request = replace(self.request, plan=self.plan.at(number), staged=staged)
        return Work(request, Journal(request.id, request.run_count, place=number), number)

    def keep_staged(self, connection: Connection, staged: dict[str, Any] | None) -> None:
        """Store in the caller's transaction what install and restore need here."""
        if self.place == 0:
            requests.keep_staged(connection, self.request.id, staged)
        places.keep_staged(connection, self.request.id, self.place, staged)

    @property
    def plan(self) -> Plan:
        """What is to be done."""
        return self.request.plan


def day(moment: datetime) -> str:
    """Return *moment* for a detail line: date and minute, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
