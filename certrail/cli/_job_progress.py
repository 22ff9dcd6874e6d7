"""A bulk job on the screen: its waves, its failures, and following it live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

import click

from certrail.cli._jobs import Planned
from certrail.cli._output import console, echo_table, is_terminal, local
from certrail.errors import InvalidRequest
from certrail.jobs.holdups import HoldUp
from certrail.jobs.status import Counts, JobStatus
from certrail.jobs.threshold import Wave
from certrail.log import plain
from certrail.store.job_view import JobView, wave_status
from certrail.store.jobs import Job
from certrail.wait import Pending, until
from certrail.words import counted, quoted

if TYPE_CHECKING:
    from rich.console import RenderableType

_LOOK_EVERY = timedelta(seconds=1)
_LONGEST = timedelta(days=370)
_SHOWN = 20
_MOST_WAVES = 12
_STYLES = {
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "bold red",
    JobStatus.CANCELLED: "yellow",
    JobStatus.PAUSED: "yellow",
}


def show(view: JobView) -> None:
    """Print a job."""
    if is_terminal():
        console().print(_panel(view))
        return
    for line in _lines(view):
        click.echo(line)


def show_plan(planned: Planned) -> None:
    """Print who would take part, what holds it up, and when it would be over."""
    eligible, out = len(planned.chosen), planned.left_out
    click.echo(f"{eligible} of {counted(eligible + len(out), 'endpoint')} would take part")
    for number, size in enumerate(planned.layout.waves, start=1):
        canary = " (canary)" if planned.layout.canary and number == 1 else ""
        click.echo(f"wave {number}{canary}: {counted(size, 'endpoint')}")
    if out:
        click.echo("not eligible:")
        for one in out[:_SHOWN]:
            click.echo(f"  {plain(one.location)}: {one.code}: {plain(one.message)}")
        if len(out) > _SHOWN:
            click.echo(f"  … and {len(out) - _SHOWN} more; --json lists all")
    if planned.budget:
        click.echo("budgets:")
        rows = [
            {
                "name": share.name,
                "endpoints": share.endpoints,
                "limit": share.limit.text,
                "set": "set" if share.is_set else "default",
            }
            for share in planned.budget[:_SHOWN]
        ]
        echo_table(
            [("name", "name"), ("endpoints", "endpoints"), ("limit", "limit"), ("set", "")], rows
        )
    for pause in planned.waits_for:
        click.echo(f"waits: {plain(pause.message)}")
    for profile, opens in planned.windows[:_SHOWN]:
        click.echo(f"window of the profile {plain(profile)}: opens at {local(opens)}")
    if eligible:
        late = f", {_later(planned.later_by)} because of that" if planned.waits_for else ""
        click.echo(f"begins  {local(planned.begins)}")
        click.echo(f"expected to be over at {local(planned.ends)}{late}")
        if planned.windows:
            click.echo("later where a window closes before its endpoints are done")
    click.echo("nothing was changed")


def _later(by: timedelta) -> str:
    seconds = round(by.total_seconds())
    if not seconds:
        return "not later"
    long = counted(round(seconds / 60), "minute") if seconds >= 90 else counted(seconds, "second")
    return f"{long} later"


def follow(look: Callable[[], JobView]) -> JobView:
    """Show a job's progress until it is over or pauses, and return it."""
    if is_terminal():
        return _follow_live(look)
    said: set[str] = set()

    def ask() -> JobView | Pending:
        view = look()
        for line in _news(view):
            if line not in said:
                said.add(line)
                click.echo(line)
        return view if _rests(view) else Pending()

    view = _until(ask)
    for line in _failures(view):
        click.echo(line)
    return view


def wait(look: Callable[[], JobView]) -> JobView:
    """Wait, printing nothing, until a job is over or pauses."""

    def ask() -> JobView | Pending:
        view = look()
        return view if _rests(view) else Pending()

    return _until(ask)


def _follow_live(look: Callable[[], JobView]) -> JobView:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False) as live:

        def ask() -> JobView | Pending:
            view = look()
            live.update(_panel(view), refresh=True)
            return view if _rests(view) else Pending()

        return _until(ask)


def _rests(view: JobView) -> bool:
    return view.is_over or view.job.status is JobStatus.PAUSED


def _until(ask: Callable[[], JobView | Pending]) -> JobView:
    return until(
        ask,
        timeout=_LONGEST,
        interval=_LOOK_EVERY,
        slowest=_LOOK_EVERY,
        late=lambda: InvalidRequest("the job did not end within a year"),
    )


def _news(view: JobView) -> Iterator[str]:
    job, counts = view.job, view.counts
    yield f"job {plain(job.name)}: {counted(counts.eligible, 'endpoint')}"
    if counts.skipped:
        out = counted(counts.skipped, "endpoint does", "endpoints do")
        yield f"{out} not take part"
    if view.flow_run_url:
        yield f"Prefect: {view.flow_run_url}"
    for wave in view.waves:
        if wave_status(wave, job) == "running":
            begin = counted(wave.counts.eligible, "endpoint begins", "endpoints begin")
            yield f"{_wave_name(wave.number, wave.canary)}: {begin}"
        if wave_status(wave, job) == "done":
            yield f"{_wave_name(wave.number, wave.canary)}: {_sums(wave.counts)}"
    done = counts.over * 10 // max(1, counts.eligible) * 10
    if 0 < done < 100:
        yield f"{done}% are over, {counts.failed} failed"
    for pause in view.waits_for:
        yield f"waits: {plain(pause.message)}"
    for one in view.held_up_by:
        # Without their number, which changes.
        yield f"waits: endpoints wait for {plain(one.what)}{_opening(one)}"
    if job.stop_message:
        yield f"stopped: {plain(job.stop_message)}"
    if _rests(view):
        yield f"{job.status.text}: {_sums(counts)}"


def _lines(view: JobView) -> Iterator[str]:
    job = view.job
    yield f"job {plain(job.name)}: {job.status.text}{_wishes(view)}"
    yield f"endpoints {_sums(view.counts)}"
    yield f"asked for {_asked_for(job)}"
    for name, status, counts in _waves(view):
        yield f"  {name}, {status}: {_sums(counts)}"
    if job.scheduled_at:
        yield f"scheduled {local(job.scheduled_at)}"
    if job.started_at:
        ended = f", ended {local(job.ended_at)}" if job.ended_at else _expected(view)
        yield f"started   {local(job.started_at)}{ended}"
    for line in _waits(view):
        yield f"waits     {line}"
    if job.stop_message:
        yield f"stopped   {plain(job.stop_message)}"
    yield from _failures(view)
    if view.flow_run_url:
        yield f"Prefect: {view.flow_run_url}"


def _waits(view: JobView) -> Iterator[str]:
    for pause in view.waits_for:
        yield plain(pause.message)
    for one in view.held_up_by:
        yield f"{plain(one.message)}{_opening(one)}"


def _opening(held: HoldUp) -> str:
    return f", which opens at {local(held.until)}" if held.until else ""


def _failures(view: JobView) -> Iterator[str]:
    for cause in view.causes[:_SHOWN]:
        yield f"failed    {cause.count} × {plain(cause.error)} in {cause.step}"
        others = f", one of {cause.different} different ones" if cause.different > 1 else ""
        yield f"     cause, of {plain(cause.example)}{others}: {plain(cause.message)}"
        yield f"     remedy: {plain(cause.remedy)}"
    if view.causes and view.is_over:
        name = quoted(view.job.name)
        yield f"When it is corrected: certrail job retry {name}"
        yield f"Which they are: certrail endpoint list --view failed --job {name}"


def _expected(view: JobView) -> str:
    ends = expected_end(view, datetime.now(UTC))
    return f", expected to be over at {local(ends)}" if ends else ""


def expected_end(view: JobView, now: datetime) -> datetime | None:
    """Return when a job that runs is over if it goes on as since it began or went on last.

    None while nothing is over since then.
    """
    job = view.job
    if job.status is not JobStatus.RUNNING or not view.over_now or not job.taken_at:
        return None
    return now + (now - job.taken_at) * (view.counts.left / view.over_now)


def _wishes(view: JobView) -> str:
    if view.is_over:
        return ""
    if view.job.cancel_requested:
        return ", being cancelled"
    if view.job.pause_requested and view.job.status is not JobStatus.PAUSED:
        return ", about to pause"
    return ""


def _asked_for(job: Job) -> str:
    parts = [str(job.action) if job.action else "enroll or renew"]
    parts.append(f"{job.concurrency} at a time")
    if job.threshold is not None:
        parts.append(f"no more once over {job.threshold} failed")
    if job.in_window:
        parts.append("in maintenance windows")
    by = f"; by {plain(job.requested_by)}" if job.requested_by else ""
    return f"{', '.join(parts)}{by}"


def _waves(view: JobView) -> Iterator[tuple[str, str, Counts]]:
    """Yield name, status and counts of the waves; of many, those of one status as one."""

    def alike(wave: Wave) -> tuple[int, str]:
        each = wave.number if wave.canary or len(view.waves) <= _MOST_WAVES else 0
        return each, wave_status(wave, view.job)

    for (_, status), group in groupby(view.waves, key=alike):
        several = list(group)
        name = _wave_name(several[0].number, several[0].canary)
        if len(several) > 1:
            name = f"waves {several[0].number} to {several[-1].number}"
        yield name, status, Counts.together(wave.counts for wave in several)


def _wave_name(number: int, canary: bool) -> str:
    return f"wave {number} (canary)" if canary else f"wave {number}"


def _sums(counts: Counts) -> str:
    parts = [
        f"{number} {name.replace('_', ' ')}"
        for name, number in counts.to_json().items()
        if number and name != "total"
    ]
    return f"{', '.join(parts) or 'none'} of {counts.total}"


def _panel(view: JobView) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    job = view.job
    title = Text(f"job {plain(job.name)}: ", style="bold")
    title.append(f"{job.status.text}{_wishes(view)}", style=_STYLES.get(job.status, "cyan"))
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(width=30)
    table.add_column(overflow="fold")
    for name, _, counts in _waves(view):
        table.add_row(
            name,
            ProgressBar(total=max(1, counts.eligible), completed=counts.over, width=30),
            _sums(counts),
        )
    _, *rest = _lines(view)
    kept = [line for line in rest if not line.startswith("  wave")]
    width = console().width
    return Group(title, table, *(Text(one) for line in kept for one in _whole(line, width)))


def _whole(line: str, width: int) -> tuple[str, ...]:
    """Return *line*, its command on a line of its own where a terminal would break it in two."""
    before, found, command = line.partition(": certrail ")
    if not found or len(line) <= width:
        return (line,)
    return f"{before}:", f"certrail {command}"
