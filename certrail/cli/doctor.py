"""``certrail doctor``: is everything as it has to be?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click

from certrail.cli._checks import Finding, Verdict, examine
from certrail.cli._errors import DONE, FAILED, NOT_REACHABLE
from certrail.cli._output import echo_json, examples
from certrail.cli._times import Span
from certrail.errors import InvalidRequest
from certrail.log import plain
from certrail.settings import adopt
from certrail.store import jobs
from certrail.store.recorded import Scope
from certrail.words import counted

_MARKS = {
    Verdict.OK: ("ok", "green"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.FAILED: ("failed", "red"),
}


@click.command(
    epilog=examples(
        "certrail doctor",
        "certrail doctor --json",
        "certrail doctor --runs",
        "certrail doctor --runs --job 'spring renewal'",
    )
)
@click.option(
    "--runs",
    is_flag=True,
    help="Compare Prefect's flow runs and task runs with the requests, steps and ended jobs of "
    "the inventory.",
)
@click.option("--job", help="With --runs: only this bulk job and its requests, of any age.")
@click.option(
    "--location", "locations", multiple=True, help="With --runs: only those of this endpoint."
)
@click.option(
    "--since",
    type=Span(),
    help="With --runs: only requests and jobs younger than this.  [default: 7d]",
)
@click.option(
    "--settle",
    type=Span(),
    default="10s",
    show_default=True,
    help="With --runs: how long what differs is looked at again, since records arrive late.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of findings.")
def doctor(
    runs: bool,
    job: str | None,
    locations: tuple[str, ...],
    since: timedelta | None,
    settle: timedelta,
    as_json: bool,
) -> int:
    """Check versions, database, server, pools, key and connectors.

    Each finding comes with its remedy. Exit code 0: nothing failed; 1:
    something did; 3: something does not answer at all.
    """
    if not runs and (job or locations or since):
        raise InvalidRequest("--job, --location and --since go with --runs", remedy="Add --runs.")
    findings: list[Finding] = []
    for finding in _compared(job, locations, since, settle) if runs else examine():
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        echo_json([finding.to_json() for finding in findings])
    if any(finding.unreachable for finding in findings):
        return NOT_REACHABLE
    return FAILED if any(f.status is Verdict.FAILED for f in findings) else DONE


def _compared(
    job: str | None, locations: tuple[str, ...], since: timedelta | None, settle: timedelta
) -> Iterator[Finding]:
    from certrail.cli._runs import compare

    installation = adopt()
    if job:
        jobs.get(job)  # a name that is mistyped has nothing that could differ
    # Prefect forgets runs in time, so that old requests have none by right.
    oldest = None if job and not since else datetime.now(UTC) - (since or timedelta(days=7))
    compared = compare(
        installation, Scope(since=oldest, job=job, locations=locations), settle=settle
    )
    for one in compared.found:
        yield Finding(
            str(one.code),
            Verdict.FAILED,
            plain(f"{one.location}: {one.message} (request {one.request_id})"),
            "The inventory is right. If a worker died, the repair that runs every minute corrects "
            "what it left; otherwise `certrail request show` has the truth.",
        )
    for other in compared.found_of_jobs:
        message = plain(f"job {other.job}: {other.message}")
        yield Finding(str(other.code), Verdict.FAILED, message, plain(other.remedy))
    if not compared.found and not compared.found_of_jobs:
        sums = [
            counted(compared.requests, "request"),
            counted(compared.task_runs, "task run"),
            *([counted(compared.jobs, "ended job")] if compared.jobs else []),
        ]
        yield Finding(
            "runs", Verdict.OK, f"{', '.join(sums)}: Prefect shows what the inventory has"
        )


def _print(finding: Finding) -> None:
    text, colour = _MARKS[finding.status]
    click.echo(f"{click.style(f'{text:8}', fg=colour)} {finding.check}: {finding.message}")
    if finding.remedy:
        click.echo(f"{'':8} remedy: {finding.remedy}")
