"""Why endpoints of a job do not begin although the job runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certrail.jobs.waves import Route
from certrail.maintenance import Calendar
from certrail.words import counted


class Code(StrEnum):
    """What has to happen before an endpoint can begin."""

    NO_WORKER = "no-worker"  # nobody serves its route
    APPROVAL_PENDING = "approval-pending"  # somebody has to say yes
    WINDOW_CLOSED = "window-closed"  # its profile's maintenance window opens later


@dataclass(frozen=True, slots=True)
class Waiting:
    """Endpoints of a job that have not begun and have the same reasons to wait."""

    route: Route
    profile: str
    needs_approval: bool
    endpoints: int


@dataclass(frozen=True, slots=True)
class HoldUp:
    """Something that holds up endpoints.

    Attributes:
        endpoints: how many.
        what: what they wait for, with what to do.
        until: when it ends by itself, None if it does not or nobody knows.
    """

    code: Code
    endpoints: int
    what: str
    until: datetime | None = None

    @property
    def message(self) -> str:
        """One line for people."""
        return f"{counted(self.endpoints, 'endpoint waits', 'endpoints wait')} for {self.what}"


def holdups(
    waiting: Iterable[Waiting],
    *,
    serving: Mapping[Route, int],
    calendars: Mapping[str, Calendar],
    now: datetime,
) -> list[HoldUp]:
    """Return what holds up the endpoints of a job; each is counted at the first that applies.

    Args:
        waiting: what has not begun.
        serving: how many workers serve each route.
        calendars: of the profiles, if the job keeps to their windows; else empty.
    """
    asked = 0
    alone: Counter[Route] = Counter()
    closed: Counter[str] = Counter()
    for one in waiting:
        calendar = calendars.get(one.profile)
        if one.needs_approval:
            asked += one.endpoints
        elif serving.get(one.route, 0) < 1:
            alone[one.route] += one.endpoints
        elif calendar is not None and not calendar.is_open(now):
            closed[one.profile] += one.endpoints
    found = [_no_worker(route, count) for route, count in sorted(alone.items(), key=_by_name)]
    if asked:
        what = "an approval: certrail request list --status approval-pending"
        found.append(HoldUp(Code.APPROVAL_PENDING, asked, what))
    for profile, count in sorted(closed.items()):
        opens = calendars[profile].next_opening(now)
        what = f"the maintenance window of the profile {profile}"
        found.append(HoldUp(Code.WINDOW_CLOSED, count, what, opens))
    return found


def _no_worker(route: Route, count: int) -> HoldUp:
    who = f"the executor {route.queue}" if route.queue else f"a worker of the pool {route.pool}"
    start = f"certrail worker --pool {route.pool} --name {route.queue or 'NAME'}"
    what = f"{who}, and none is there: see certrail executor list; {start} starts one"
    return HoldUp(Code.NO_WORKER, count, what)


def _by_name(item: tuple[Route, int]) -> tuple[str, str]:
    route, _ = item
    return route.pool, route.queue or ""
