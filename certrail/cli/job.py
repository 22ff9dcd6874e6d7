"""``certrail job``: bulk automation jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from certrail.cli import _job_progress, _jobs, _prefect
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import echo_json, echo_table, examples
from certrail.cli._selection import locations_in
from certrail.cli._times import Moment
from certrail.errors import InvalidRequest
from certrail.jobs.status import JobStatus
from certrail.model import STARTED, Action
from certrail.store import inventory, job_view, jobs, views
from certrail.store.job_view import JobView
from certrail.store.jobs import Job
from certrail.words import quoted

_FOLLOW = (
    "Follow it to its end, or until somebody pauses it; exit code 1 unless it ends as completed."
)


@click.group(
    epilog=examples(
        "certrail job start spring-renewal --view expiring --canary 5 --max-failures 2%",
        "certrail job show spring-renewal --watch",
        "certrail endpoint list --job spring-renewal --status automation-failed",
    )
)
def job() -> None:
    """Automate many endpoints at once: start, follow, pause, resume, cancel, retry."""


@job.command(
    epilog=examples(
        "certrail job start spring-renewal --filter 'days_left<30 and tag=shop' --dry-run",
        "certrail job start new-ca --filter profile=public-web --action reissue --canary 10 "
        "--wave 200 --max-failures 1% --wait",
        "certrail job start tonight --locations-file shop.txt --at '2027-01-31 02:00'",
    )
)
@click.argument("name")
@click.option(
    "--filter",
    "expressions",
    multiple=True,
    metavar="EXPR",
    help="As in `endpoint list`. Several are joined by `and`.",
)
@click.option("--view", metavar="NAME", help="The endpoints of a view: see `certrail view list`.")
@click.option(
    "--locations-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F",
    help="A file with one location a line.",
)
@click.option(
    "--action",
    type=click.Choice([action.value for action in STARTED]),
    help="As in `request start`. Default: enroll or renew, what each endpoint needs.",
)
@click.option("--at", type=Moment(), help="Begin then: a time, local without a zone, or +2h.")
@click.option(
    "--window", is_flag=True, help="Run each endpoint in its profile's maintenance window only."
)
@click.option("--canary", type=int, metavar="N", help="A first wave of N endpoints.")
@click.option("--wave", type=int, metavar="N", help="Then N at a time; a wave waits for the last.")
@click.option(
    "--shard",
    type=int,
    metavar="N",
    help="At most N endpoints that one worker takes together. Default: 100 to 500, by the job's "
    "size; fewer spread a small job over several workers.",
)
@click.option(
    "--max-failures",
    metavar="N|P%",
    help="Begin no more when more than N, or P percent of those in the waves begun, failed. "
    "Default: only a failure in the canary stops it.",
)
@click.option(
    "--concurrency",
    type=int,
    default=_jobs.CONCURRENCY,
    show_default=True,
    metavar="N",
    help="Endpoints that run at the same time.",
)
@click.option("--dry-run", is_flag=True, help="Say who would take part and how long it takes.")
@click.option("--wait", is_flag=True, help=_FOLLOW)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def start(
    name: str,
    expressions: Sequence[str],
    view: str | None,
    locations_file: Path | None,
    action: str | None,
    at: datetime | None,
    window: bool,
    canary: int | None,
    wave: int | None,
    shard: int | None,
    max_failures: str | None,
    concurrency: int,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Start a job NAME over the endpoints chosen by --filter, --view or --locations-file.

    Endpoints that cannot take part, because they have a request already or
    are not configured, are reported and left out; the job goes on without
    them. A failed endpoint fails alone, unless the threshold is passed.
    """
    if locations_file is None and not expressions and view is None:
        raise InvalidRequest(
            "nothing says which endpoints the job is for",
            remedy="Give --filter, --view or --locations-file.",
        )
    if locations_file is not None and (expressions or view):
        raise InvalidRequest(
            "--locations-file goes with neither --filter nor --view", remedy="Give one of them."
        )
    ui_url = _prefect.installation().ui_url
    planned = _jobs.plan(
        _jobs.Wanted(
            name=name,
            action=Action(action) if action else None,
            at=at,
            in_window=window,
            canary=canary,
            wave=wave,
            shard=shard,
            max_failures=max_failures,
            concurrency=concurrency,
        ),
        filters=[
            *(views.clauses(view) if view else ()),
            *(c for text in expressions for c in inventory.parse_filter(text)),
        ],
        locations=locations_in(locations_file) if locations_file else None,
    )
    if dry_run:
        if as_json:
            echo_json(planned.to_json())
        else:
            _job_progress.show_plan(planned)
        return DONE
    return _told(_jobs.start(planned), ui_url, wait=wait, as_json=as_json)


@job.command(
    epilog=examples(
        "certrail job show spring-renewal",
        "certrail job show spring-renewal --watch",
        "certrail job show spring-renewal --json",
    )
)
@click.argument("name")
@click.option("--watch", is_flag=True, help=_FOLLOW)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, watch: bool, as_json: bool) -> int:
    """Show where a job stands: its waves, and why endpoints failed."""
    ui_url = _prefect.installation().ui_url
    found = jobs.get(name)
    if watch:
        return _followed(found, ui_url, as_json=as_json)
    _print(found, ui_url, as_json=as_json)
    return DONE


@job.command("list", epilog=examples("certrail job list", "certrail job list --json"))
@click.option("--limit", type=click.IntRange(1, 10000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    ui_url = _prefect.installation().ui_url
    shown = job_view.summaries(jobs.newest(limit), ui_url=ui_url)
    if as_json:
        echo_json([one.to_json() for one in shown])
        return
    if not shown:
        click.echo("there are no jobs")
        return
    columns = ("name", "status", "endpoints", "successful", "failed", "left", "created")
    echo_table([(name, name) for name in columns], [_line(one) for one in shown])


@job.command(epilog=examples("certrail job pause spring-renewal"))
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def pause(name: str, as_json: bool) -> int:
    """Begin no more endpoints; those that run go on to their end."""
    ui_url = _prefect.installation().ui_url
    _print(_jobs.pause(name), ui_url, as_json=as_json)
    return DONE


@job.command(epilog=examples("certrail job resume spring-renewal --wait"))
@click.argument("name")
@click.option("--wait", is_flag=True, help=_FOLLOW)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def resume(name: str, wait: bool, as_json: bool) -> int:
    """Go on with a job that pauses."""
    ui_url = _prefect.installation().ui_url
    return _told(_jobs.resume(name), ui_url, wait=wait, as_json=as_json)


@job.command(epilog=examples("certrail job cancel spring-renewal"))
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def cancel(name: str, as_json: bool) -> int:
    """Cancel what has not begun; what runs stops at its next safe point."""
    ui_url = _prefect.installation().ui_url
    _print(_jobs.cancel(name), ui_url, as_json=as_json)
    return DONE


@job.command(
    epilog=examples(
        "certrail job retry spring-renewal --wait", "certrail job retry spring-renewal --rest"
    )
)
@click.argument("name")
@click.option("--rest", is_flag=True, help="Also those that were cancelled before they began.")
@click.option("--wait", is_flag=True, help=_FOLLOW)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def retry(name: str, rest: bool, wait: bool, as_json: bool) -> int:
    """Run the failed endpoints of a job that is over again, each from the step that failed."""
    ui_url = _prefect.installation().ui_url
    return _told(_jobs.retry(name, rest=rest), ui_url, wait=wait, as_json=as_json)


def _told(made: Job, ui_url: str, *, wait: bool, as_json: bool) -> int:
    if wait:
        return _followed(made, ui_url, as_json=as_json)
    _print(made, ui_url, as_json=as_json)
    return DONE


def _followed(made: Job, ui_url: str, *, as_json: bool) -> int:
    def look() -> JobView:
        return job_view.view(jobs.by_id(made.id), ui_url=ui_url)

    ended = _job_progress.wait(look) if as_json else _job_progress.follow(look)
    if as_json:
        echo_json(ended.to_json())
    if ended.job.status is JobStatus.PAUSED:
        resumed = f"certrail job resume {quoted(ended.job.name)} --wait"
        click.echo(f"somebody has paused it; to go on: {resumed}", err=True)
    return DONE if ended.job.status is JobStatus.COMPLETED else FAILED


def _print(found: Job, ui_url: str, *, as_json: bool) -> None:
    view = job_view.view(found, ui_url=ui_url)
    if as_json:
        echo_json(view.to_json())
    else:
        _job_progress.show(view)


def _line(view: JobView) -> dict[str, object]:
    counts = view.counts
    return {
        "name": view.job.name,
        "status": view.job.status.text,
        "endpoints": counts.eligible,
        "successful": counts.successful,
        "failed": counts.failed,
        "left": counts.left,
        "created": view.job.created_at,
    }
