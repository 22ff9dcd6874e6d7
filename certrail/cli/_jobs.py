"""Planning, starting and steering bulk jobs: the rows first, then Prefect's flow run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from certrail.cli import _prefect_jobs
from certrail.cli._server import pool_of
from certrail.cli._starting import refreshed_plan
from certrail.errors import CertrailError, InvalidRequest, Unreachable
from certrail.jobs import budgets
from certrail.jobs.budgets import Share
from certrail.jobs.eligibility import Candidate, judge
from certrail.jobs.pauses import Pause
from certrail.jobs.threshold import Threshold
from certrail.jobs.waves import Lane, Layout, Route, lay_out
from certrail.model import Action
from certrail.store import (
    audit,
    endpoint_activity,
    inventory,
    job_control,
    job_runs,
    jobs,
    new_jobs,
    pauses,
    plans,
)
from certrail.store.endpoint_activity import Activity
from certrail.store.filters import Clause
from certrail.store.jobs import Job
from certrail.store.new_jobs import Chosen, Draft, LeftOut
from certrail.store.plans import Prepared
from certrail.store.request_view import pause_json, time_text
from certrail.words import counted, quoted

CONCURRENCY = 20
_EACH = timedelta(seconds=15)
_WINDOW = "window:"  # before a profile's name: no budget is called so
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9 ._:-]{0,99}$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for."""

    name: str
    action: Action | None = None
    at: datetime | None = None
    in_window: bool = False
    canary: int | None = None
    wave: int | None = None
    shard: int | None = None
    max_failures: str | None = None
    concurrency: int = CONCURRENCY


@dataclass(frozen=True, slots=True)
class Planned:
    """A job as it would be made: who takes part and who does not, how, and until when.

    Attributes:
        waits_for: budgets of it that still pause when it begins.
        later_by: how much later it is over because of them.
        windows: when the maintenance window of each profile opens first, the earliest first; empty
            unless the job keeps to them.
    """

    wanted: Wanted
    chosen: tuple[Chosen, ...]
    left_out: tuple[LeftOut, ...]
    layout: Layout
    budget: tuple[Share, ...]
    begins: datetime
    ends: datetime
    waits_for: tuple[Pause, ...] = ()
    later_by: timedelta = timedelta(0)
    windows: tuple[tuple[str, datetime], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "job_name": self.wanted.name,
            "dry_run": True,
            "action": str(self.wanted.action) if self.wanted.action else None,
            "eligible": [
                {"location": one.plan.location, "action": str(one.action), "wave": one.place.wave}
                for one in self.chosen
            ],
            "not_eligible": [
                {"location": one.location, "reason": {"code": one.code, "message": one.message}}
                for one in self.left_out
            ],
            "waves": [
                {"number": number, "canary": self.layout.canary and number == 1, "total": size}
                for number, size in enumerate(self.layout.waves, start=1)
            ],
            "budgets": [
                {
                    "name": share.name,
                    "endpoints": share.endpoints,
                    "slots": share.limit.slots if share.limit.active else None,
                    "per_second": share.limit.per_second or None,
                    "is_set": share.is_set,
                    "active": share.limit.active,
                }
                for share in self.budget
            ],
            "concurrency": self.wanted.concurrency,
            "windows": [
                {"profile": profile, "opens_at": time_text(opens)}
                for profile, opens in self.windows
            ],
            "begins_at": time_text(self.begins),
            "expected_finish": time_text(self.ends),
            "waits_for": [pause_json(pause) for pause in self.waits_for],
            "later_by_seconds": round(self.later_by.total_seconds()),
        }


def plan(
    wanted: Wanted, *, filters: Sequence[Clause] = (), locations: Sequence[str] | None = None
) -> Planned:
    """Decide who takes part, and lay them out. Changes nothing.

    Raises:
        Conflict: there is a job of that name.
        InvalidRequest: a name, number or time is wrong, or no endpoint was chosen.
    """
    _check(wanted)
    if jobs.exists(wanted.name):
        raise new_jobs.named_twice(wanted.name)
    if locations is None:
        found = {location: id_ for id_, location in inventory.locations(filters)}
        asked = list(found)
    else:
        found, asked = endpoint_activity.identified(locations), list(locations)
    if not asked:
        raise InvalidRequest(
            "no endpoint was chosen: the inventory has none like that",
            remedy="`certrail endpoint list` with the same filter shows what it matches.",
        )
    prepared = plans.for_endpoints(found.values())
    activity = endpoint_activity.latest(list(found.values()))
    pairs: list[tuple[UUID, Prepared, Lane]] = []
    left_out: list[LeftOut] = []
    for location in asked:
        id_ = found.get(location)
        outcome = prepared.get(id_) if id_ else None
        latest = activity.get(id_) if id_ else None
        verdict = judge(_candidate(location, outcome, latest), wanted.action)
        if verdict.eligible and id_ and isinstance(outcome, Prepared):
            pairs.append((id_, outcome, endpoint_activity.lane_of(latest)))
        else:
            left_out.append(LeftOut(location, verdict.code, verdict.message))
    return _planned(wanted, pairs, left_out)


def start(planned: Planned) -> Job:
    """Make the job and the flow run that carries it.

    Raises:
        Conflict: there is a job of that name by now.
        InvalidRequest: no endpoint takes part.
        Unreachable: the job is stored, but its run could not be made; a repair that runs every
            minute makes it later.
    """
    wanted = planned.wanted
    if not planned.chosen:
        reasons = ", ".join(sorted({one.code for one in planned.left_out}))
        raise InvalidRequest(
            f"none of {counted(len(planned.left_out), 'chosen endpoint')} can take part: {reasons}",
            remedy="The same command with --dry-run says why for each of them.",
        )
    later = planned.begins > datetime.now(UTC) + timedelta(seconds=1)
    job = new_jobs.create(
        Draft(
            name=wanted.name,
            action=wanted.action,
            concurrency=wanted.concurrency,
            max_failures=wanted.max_failures,
            canary=planned.layout.canary,
            in_window=wanted.in_window,
            scheduled_at=planned.begins if later else None,
            actor=audit.local_actor(),
        ),
        planned.chosen,
        planned.left_out,
        planned.layout.shards,
    )
    try:
        job_runs.bind(job.id, _prefect_jobs.start_run(job))
    except CertrailError as exc:
        raise Unreachable(
            f"the job {job.name} is stored, but was not handed to Prefect: {exc}",
            remedy="It is handed over within a minute of Prefect's return; follow it with "
            f"`certrail job show {quoted(job.name)}`.",
        ) from exc
    return jobs.by_id(job.id)


def pause(name: str) -> Job:
    """Begin no more endpoints of a job; those that run go on to their end."""
    job = jobs.get(name)
    job_control.ask_to_pause(job, audit.local_actor())
    return jobs.by_id(job.id)


def resume(name: str) -> Job:
    """Go on with a job that pauses."""
    job = jobs.get(name)
    job_control.resume(job, audit.local_actor())
    _told(job, lambda: _prefect_jobs.resume_run(job))
    return jobs.by_id(job.id)


def cancel(name: str) -> Job:
    """Cancel what has not begun; what runs stops at its next safe point."""
    job = jobs.get(name)
    actor = audit.local_actor()
    job_control.ask_to_cancel(job, actor)
    if not job.is_held:
        # Nobody else would end it.
        _prefect_jobs.end_unheld(job, actor)
    return jobs.by_id(job.id)


def retry(name: str, *, rest: bool = False) -> Job:
    """Run the failed endpoints of a job that is over again, as they are configured now."""
    job = jobs.get(name)
    reopen(job, audit.local_actor(), rest=rest)
    _told(job, lambda: job_runs.bind(job.id, _prefect_jobs.run_again(job, "retry asked")))
    return jobs.by_id(job.id)


def reopen(job: Job, actor: str, *, rest: bool = False) -> int:
    """Open the failed requests of a job again; returns how many.

    An endpoint that was taken out of the configuration meanwhile stays failed.

    Raises:
        InvalidRequest: the job is not over, or nothing in it failed.
    """
    failed = job_control.to_retry(job.id, rest=rest)
    present = plans.for_endpoints([request.endpoint_id for request in failed])
    return job_control.reopen(
        job,
        {
            request.id: refreshed_plan(request, found.plan_for(request.action))
            for request in failed
            if isinstance(found := present.get(request.endpoint_id), Prepared)
        },
        actor,
        rest=rest,
    )


def _told(job: Job, tell: Any) -> None:
    try:
        tell()
    except CertrailError as exc:
        raise Unreachable(
            f"it is noted for the job {job.name}, but Prefect was not told: {exc}",
            remedy="The job goes on within a minute of Prefect's return.",
        ) from exc


def _check(wanted: Wanted) -> None:
    if not _NAME.match(wanted.name):
        raise InvalidRequest(
            f"{wanted.name!r} cannot be the name of a job",
            remedy="Letters, digits, blanks and . _ : - , beginning with a letter or digit, 100 "
            "at the most.",
        )
    if wanted.max_failures is not None:
        Threshold.parse(wanted.max_failures)
    if wanted.concurrency < 1:
        raise InvalidRequest("--concurrency is at least 1", remedy="Leave it out for the default.")
    if wanted.at is not None and wanted.at <= datetime.now(UTC):
        raise InvalidRequest(
            f"{wanted.at:%Y-%m-%d %H:%M:%S}Z is in the past", remedy="Leave --at out."
        )


def _candidate(
    location: str, outcome: Prepared | InvalidRequest | None, latest: Activity | None
) -> Candidate:
    problem = outcome if isinstance(outcome, InvalidRequest) else None
    active = latest if latest and latest.is_active else None
    return Candidate(
        location=location,
        known=outcome is not None,
        problem=str(problem or ""),
        remedy=problem.remedy if problem else "",
        active=active.status if active else None,
        active_job=active.job_name if active else None,
        has_certificate=isinstance(outcome, Prepared) and outcome.obtained_id is not None,
    )


def _planned(
    wanted: Wanted, pairs: Sequence[tuple[UUID, Prepared, Lane]], left_out: Sequence[LeftOut]
) -> Planned:
    layout = lay_out(
        [(Route(pool_of(one.plan.workflow), one.plan.executor), lane) for _, one, lane in pairs],
        canary=wanted.canary,
        wave=wanted.wave,
        shard=wanted.shard,
    )
    chosen = []
    for (id_, one, _), place in zip(pairs, layout.places, strict=True):
        action = wanted.action or one.default_action
        chosen.append(
            Chosen(
                endpoint_id=id_,
                action=action,
                plan=one.plan_for(action),
                place=place,
                previous_certificate_id=one.certificate_id,
                certificate_id=one.certificate_for(action),
            )
        )
    chosen.sort(key=lambda one: one.place.position)
    budget = budgets.shares((one.plan for one in chosen), _prefect_jobs.limits())
    now = datetime.now(UTC)
    begins = max(wanted.at or now, now)
    windows = _openings(pairs, begins) if wanted.in_window else {}
    begins = min(windows.values(), default=begins)
    closed = {_WINDOW + name: opens - begins for name, opens in windows.items()}
    drawn = {share.name for share in budget}
    paused = [one for one in pauses.present() if one.budget in drawn and one.until > begins]
    waits = {one.budget: one.until - begins for one in paused}
    lasts = partial(
        budgets.expected,
        _waves(chosen, layout, {*waits, *closed}),
        budget,
        each=endpoint_activity.usual_duration() or _EACH,
        concurrency=wanted.concurrency,
    )
    ends = begins + lasts(pauses={**waits, **closed})
    return Planned(
        wanted,
        tuple(chosen),
        tuple(left_out),
        layout,
        tuple(budget),
        begins,
        ends,
        tuple(paused),
        ends - begins - lasts(pauses=closed),
        tuple(sorted(windows.items(), key=lambda one: (one[1], one[0]))),
    )


def _waves(chosen: Sequence[Chosen], layout: Layout, of: Collection[str]) -> list[budgets.Wave]:
    """Return the waves with how many endpoints of each draw on the budgets or windows *of*."""
    drawn: list[Counter[str]] = [Counter() for _ in layout.waves]
    for one in chosen:
        held = {*budgets.names(one.plan), _WINDOW + one.plan.profile}
        drawn[one.place.wave - 1].update(held.intersection(of))
    return [budgets.Wave(size, by) for size, by in zip(layout.waves, drawn, strict=True)]


def _openings(pairs: Sequence[tuple[UUID, Prepared, Lane]], after: datetime) -> dict[str, datetime]:
    """Return when the maintenance window of each profile is open next, where it ever is."""
    calendars = {one.profile.name: one.profile.calendar for _, one, _ in pairs}
    if without := sorted(name for name, calendar in calendars.items() if not calendar.windows):
        raise InvalidRequest(
            f"the profile {without[0]} has no maintenance window",
            remedy="Give it a `maintenance_window`, or leave --window out.",
        )
    opens = {name: when for name, one in calendars.items() if (when := one.next_opening(after))}
    if calendars and not opens:
        raise InvalidRequest(
            "no maintenance window of these endpoints opens within a year",
            remedy="Correct `maintenance_window` or `blackout` of their profiles.",
        )
    return opens
