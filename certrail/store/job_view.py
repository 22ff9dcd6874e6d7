"""What is shown of a bulk job: one record for the command line, its run and its artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from certrail.jobs.holdups import HoldUp, holdups
from certrail.jobs.pauses import Pause
from certrail.jobs.status import Counts, JobStatus
from certrail.jobs.threshold import Wave
from certrail.settings import silent_after
from certrail.store import executors, job_results, pauses, plans
from certrail.store.job_results import Cause
from certrail.store.jobs import Job
from certrail.store.request_view import pause_json, run_url, time_text

_LOOKED_UP = frozenset({"waves", "failures_by_cause", "failures", "waits_for", "held_up_by"})


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its counts, its waves and the causes of its failures.

    Attributes:
        is_summary: nothing but its counts was looked up: what else is empty says nothing.
        waits_for: budgets that pause and that endpoints of it are still to draw on.
        held_up_by: what else keeps endpoints of it from beginning.
        over_now: endpoints that are over since it began or went on last.
    """

    job: Job
    counts: Counts
    waves: tuple[Wave, ...]
    causes: tuple[Cause, ...]
    flow_run_url: str | None
    waits_for: tuple[Pause, ...] = ()
    held_up_by: tuple[HoldUp, ...] = ()
    over_now: int = 0
    is_summary: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.job.status.is_over

    def to_json(self) -> dict[str, Any]:
        """Return the documented object; a summary leaves out what was not looked up."""
        job = self.job
        found = {
            "job_name": job.name,
            "status": str(job.status),
            "action": str(job.action) if job.action else None,
            "counts": self.counts.to_json(),
            "waves": [_wave(wave, job) for wave in self.waves],
            "created_at": time_text(job.created_at),
            "scheduled_at": time_text(job.scheduled_at),
            "started_at": time_text(job.started_at),
            "ended_at": time_text(job.ended_at),
            "flow_run_id": str(job.flow_run_id) if job.flow_run_id else None,
            "flow_run_url": self.flow_run_url,
            "failures_by_cause": _by_error(self.causes),
            "failures": [
                {
                    "error": cause.error,
                    "step": cause.step,
                    "count": cause.count,
                    "different": cause.different,
                    "example": cause.example,
                    "cause": cause.message,
                    "remedy": cause.remedy,
                }
                for cause in self.causes
            ],
            "stopped": {"code": job.stop_code, "message": job.stop_message}
            if job.stop_code
            else None,
            "waits_for": [pause_json(pause) for pause in self.waits_for],
            "held_up_by": [
                {
                    "code": str(one.code),
                    "endpoints": one.endpoints,
                    "message": one.message,
                    "until": time_text(one.until),
                }
                for one in self.held_up_by
            ],
            "max_failures": str(job.threshold) if job.threshold else None,
            "concurrency": job.concurrency,
            "pause_requested": job.pause_requested,
            "cancel_requested": job.cancel_requested,
            "requested_by": job.requested_by,
        }
        return {
            key: value
            for key, value in found.items()
            if not (self.is_summary and key in _LOOKED_UP)
        }


def view(job: Job, *, ui_url: str) -> JobView:
    """Return what is shown of one job; *ui_url* is where Prefect's pages are."""
    return JobView(
        job,
        job_results.counts([job.id])[job.id],
        tuple(job_results.waves(job)),
        tuple(job_results.causes(job.id)),
        run_url(ui_url, job.flow_run_id),
        () if job.status.is_over else tuple(pauses.of_job(job.id)),
        tuple(_held_up_by(job)),
        0 if job.status.is_over else job_results.over_now(job),
    )


def summaries(listed: Sequence[Job], *, ui_url: str) -> list[JobView]:
    """Return several jobs with their counts alone."""
    counted = job_results.counts([job.id for job in listed])
    return [
        JobView(job, counted[job.id], (), (), run_url(ui_url, job.flow_run_id), is_summary=True)
        for job in listed
    ]


def _by_error(causes: Sequence[Cause]) -> dict[str, int]:
    found: dict[str, int] = {}
    for cause in causes:
        found[cause.error] = found.get(cause.error, 0) + cause.count
    return found


def _held_up_by(job: Job) -> list[HoldUp]:
    if job.status not in (JobStatus.SCHEDULED, JobStatus.RUNNING):
        return []
    waiting = job_results.waiting(job.id)
    served = executors.serving(silent_after())
    routes = {one.route for one in waiting}
    return holdups(
        waiting,
        serving={
            route: served.get((route.pool, route.queue or executors.DEFAULT_QUEUE), 0)
            for route in routes
        },
        calendars=plans.calendars() if waiting and job.in_window else {},
        now=datetime.now(UTC),
    )


def wave_status(wave: Wave, job: Job) -> str:
    """Return where a wave stands: pending, running or done."""
    if wave.counts.left == 0:
        return "done"
    begun = wave.counts.in_progress or wave.counts.successful or wave.counts.failed
    return "running" if begun and job.status is JobStatus.RUNNING else "pending"


def _wave(wave: Wave, job: Job) -> dict[str, Any]:
    return {
        "number": wave.number,
        "canary": wave.canary,
        "status": wave_status(wave, job),
        **wave.counts.to_json(),
    }
