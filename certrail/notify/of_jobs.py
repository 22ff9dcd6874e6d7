"""What happens to the endpoints of a bulk job is told to people once, with what became of the job.

Until then it waits, an hour at the most: a job may go on for days, and nobody
is to miss a failure because its job does not end. Who has to approve endpoints
is asked at once, for all of them together. Programs hear of each event at
once, as of everything. Pure: no clock and no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from certrail.events import Kind, Severity
from certrail.jobs.status import Counts
from certrail.notify import rules
from certrail.notify.rules import PROGRAM, Timing
from certrail.notify.settings import NotificationSettings
from certrail.store import notifications
from certrail.store.outbox import Happened
from certrail.words import counted

LONGEST = timedelta(hours=1)
"""So long, at the most, does an endpoint's event wait for its job."""

_IN_PART = "certrail.job.failed-in-part"
_WHOLE = frozenset({"certrail.job.completed", "certrail.job.cancelled"})
_TURNS = _WHOLE | {_IN_PART, "certrail.job.failed", "certrail.job.paused"}
# What was seen of a certificate, and alarms, are no matter of the job.
_OF_ENDPOINTS = (
    "certrail.request.",
    "certrail.step.",
    "certrail.certificate.issued",
    "certrail.certificate.installed",
    "certrail.certificate.delivered",
)
# Somebody has to act, or the job waits.
_ASKS = "certrail.request.approval-pending"


@dataclass(frozen=True, slots=True)
class Course:
    """A job as far as it has come.

    Attributes:
        untold: whether an event of its own still has to be routed.
    """

    id: UUID
    name: str
    started_at: datetime | None
    ended_at: datetime | None
    untold: bool


def turn(event: Happened) -> UUID | None:
    """Return the job that *event* tells the end or a pause of, None for any other event."""
    found = event.payload.get("job_id") if event.event in _TURNS else None
    return UUID(str(found)) if found else None


def waits(event: Happened, course: Course) -> bool:
    """Return whether *event* is one of an endpoint that is told with its job."""
    if event.event == _ASKS or not event.event.startswith(_OF_ENDPOINTS):
        return False
    # A single retry after the end is no longer the job's.
    return course.ended_at is None or (course.untold and event.occurred <= course.ended_at)


def asks(event: Happened, course: Course) -> bool:
    """Return whether *event* asks to approve an endpoint, as others of the same job do."""
    return event.event == _ASKS and course.ended_at is None


def timing(
    event: Happened,
    course: Course | None,
    severity: Severity,
    channel_slug: str,
    timed: Callable[[datetime], Timing],
    now: datetime,
) -> Timing:
    """Return when *event* is told, with others of its job where that is so.

    Args:
        event: what happened.
        course: the job of the endpoint, None for what is of none.
        severity: of the event.
        channel_slug: type of the channel.
        timed: when the rules alone would tell it, by the time at which they are asked.
        now: the present.
    """
    usual = timed(now)
    # What goes out at once whatever else is told, or daily, stays as it is.
    if channel_slug == PROGRAM or severity is Severity.CRITICAL or usual.held_because == "digest":
        return usual
    if (job_id := turn(event)) is not None:
        return Timing(usual.due_at, notifications.of_job(job_id), usual.held_because)
    if course is None:
        return usual
    because = f"bulk job {course.name}"
    if asks(event, course) and not usual.held_because:
        # Not the digest of the job, whose end is told in the place of all that is in it.
        return Timing(now, f"approvals {course.id}", because)
    if waits(event, course):
        begun = course.started_at or now
        late = timed(begun + LONGEST * ((now - begun) // LONGEST + 1))
        return Timing(late.due_at, notifications.of_job(course.id), because)
    return usual


def let_go(
    kind: Kind, severity: Severity, account: NotificationSettings, now: datetime
) -> datetime:
    """Return when that is told which waited for a job, now that *kind* happened to it."""
    # Whether the job's own event is one of the daily digest does not matter to it.
    without = account.model_copy(update={"digest": None})
    return rules.timing(kind, severity, "", without, now).due_at


def told(events: Sequence[Happened]) -> list[Happened]:
    """Return what a message of *events* is about: a job that failed in part has two at its end."""
    # Of one moment: after a retry a job has another end.
    in_part = {(turn(event), event.occurred) for event in events if event.event == _IN_PART}
    return [
        event
        for event in events
        if event.event not in _WHOLE or (turn(event), event.occurred) not in in_part
    ]


def facts(payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a message says of a job: its sums, why endpoints failed, and which."""
    found = [("Endpoints", ", ".join(_sums(payload)))]
    for cause in payload.get("failures") or ():
        said = f"{cause['step']}: {cause['cause'] or 'no cause is on record'} ({cause['example']})"
        if cause["different"] > 1:
            said += f", and {counted(cause['different'] - 1, 'other message')} of this kind"
        found.append((f"{cause['count']} failed", said))
        if cause["remedy"]:
            found.append(("Remedy", cause["remedy"]))
    names = payload.get("failed_endpoints") or ()
    left = _number(payload, "failed") - len(names)
    if names:
        more = f", and {left} more" if left > 0 else ""
        found.append(("Failed", f"{', '.join(map(str, names))}{more}"))
    return found


def share(payload: Mapping[str, Any]) -> str:
    """Return how many of the job's endpoints failed, "" if none or nothing is known."""
    failed, total = _number(payload, "failed"), _number(payload, "total")
    return f"{failed} of {counted(total, 'endpoint')} failed" if failed else ""


def _sums(payload: Mapping[str, Any]) -> list[str]:
    if not payload.get("counts"):
        return []
    always = ("total", "successful", "failed")
    words = {"in_progress": "in progress", "skipped": "left out"}
    # In the order of the documented keys: the database does not keep the one they came in.
    numbers = {field.name: _number(payload, field.name) for field in fields(Counts)}
    return [
        f"{words.get(name, name)}: {number}"
        for name, number in numbers.items()
        if number or name in always
    ]


def _number(payload: Mapping[str, Any], name: str) -> int:
    counts = payload.get("counts")
    found = counts.get(name) if isinstance(counts, Mapping) else None
    return found if isinstance(found, int) else 0
