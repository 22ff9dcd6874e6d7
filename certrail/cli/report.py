"""``certrail report``: lists as files, with charts, once or on schedule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from certrail import settings
from certrail.cli._files import write_whole
from certrail.cli._output import echo_json, echo_table, examples
from certrail.cli._selection import selected, selection_options
from certrail.errors import InvalidRequest, Unreachable
from certrail.store import audit
from certrail.store.request_view import time_text
from certrail.words import counted

_FORMATS = ("csv", "xlsx", "json", "html", "pdf")
_KINDS = (
    "endpoints",
    "requests",
    "failures",
    "job",
    "upcoming",
    "expiring",
    "security",
    "executors",
    "notifications",
    "audit",
)
_BINARY = ("xlsx", "pdf")
_DAYS = 30


@click.group(
    epilog=examples(
        "certrail report run --kind expiring --format xlsx -o expiring.xlsx",
        "certrail report save monday --kind upcoming --format pdf --cron '0 6 * * mon'",
    )
)
def report() -> None:
    """Make reports as CSV, XLSX, JSON, HTML and PDF; save them and have them made on schedule.

    \b
    Kinds: endpoints (and any view), requests (with step timings), failures
    (by cause), job, upcoming, expiring, security, executors, notifications, audit.
    """


@report.command(
    epilog=examples(
        "certrail report run monday -o monday.pdf",
        "certrail report run needs-attention --format csv",
        "certrail report run --kind endpoints --tag shop --format html -o shop.html",
        "certrail report run --kind job --job spring-2027 -o spring.xlsx",
    )
)
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(_KINDS), help="What it is of, without a NAME.")
@selection_options
@click.option("--days", type=click.IntRange(1, 3650), help="How far back, or ahead. Default: 30.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    help="Default: by the ending of the file, else as saved, else csv.",
)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write it; default: standard output.",
)
def run(
    name: str | None,
    kind: str | None,
    days: int | None,
    format_: str | None,
    path: Path | None,
    **chosen: Any,
) -> None:
    """Make a report now: a saved one, any view by its NAME, or one of a --kind."""
    from certrail.reports import making
    from certrail.reports.formats import rendered
    from certrail.store.reports import SavedReport

    if bool(name) == bool(kind):
        raise InvalidRequest(
            "give the name of a saved report or view, or a --kind",
            remedy="certrail report run --kind expiring",
        )
    installation = settings.adopt()
    if name:
        if any(value for value in chosen.values()):
            raise InvalidRequest(
                f"{name} has its own selection", remedy="Give options with --kind only."
            )
        saved = making.named(name)
    else:
        job, view = _of(str(kind), chosen)
        saved = SavedReport("", str(kind), view=view, job=job, days=days or _DAYS)
    ending = path.suffix.lstrip(".").lower() if path else ""
    wanted = format_ or (ending if ending in _FORMATS else saved.format)
    if wanted in _BINARY and path is None and sys.stdout.isatty():
        raise InvalidRequest(f"{wanted} is nothing for a terminal", remedy="Give -o FILE.")
    made = making.build(saved, ui_url=installation.ui_url)
    content = rendered(made, wanted)
    if path is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_whole(path, content)
    click.echo(f"{path}: {counted(len(made.rows), 'row')}", err=True)


@report.command(
    epilog=examples(
        "certrail report save shop --kind endpoints --tag shop --format xlsx",
        "certrail report save monday --kind upcoming --days 7 --format pdf --cron '0 6 * * mon' "
        "--timezone Europe/Berlin --mail pki@example.org",
    )
)
@click.argument("name")
@click.option("--kind", type=click.Choice(_KINDS), default="endpoints", show_default=True,
              help="What it is of.")  # fmt: skip
@selection_options
@click.option("--days", type=click.IntRange(1, 3650), default=_DAYS, show_default=True,
              help="How far back, or ahead.")  # fmt: skip
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="csv",
              show_default=True, help="Of the file.")  # fmt: skip
@click.option("--cron", default="", metavar="'M H D M W'", help="When it is made by itself.")
@click.option("--timezone", default="UTC", show_default=True, help="Of these times.")
@click.option("--mail", "email", multiple=True, metavar="ADDRESS",
              help="Who gets it by mail when it is made by itself; repeatable.")  # fmt: skip
def save(
    name: str,
    kind: str,
    days: int,
    format_: str,
    cron: str,
    timezone: str,
    email: tuple[str, ...],
    **chosen: Any,
) -> None:
    """Save a report under NAME; with --cron it is made on schedule.

    Its schedule is that of the deployment saved-report/report-NAME in Prefect,
    where it can be paused, and run at once; paused it stays when it is saved
    anew. Files go to the folder `reports` of the data directory, a summary to
    Prefect's artifacts. Those of --mail, and whoever has `report-ready` among
    their events, get a mail with the file.
    """
    from certrail.cli import _prefect, _prefect_reports
    from certrail.store import reports
    from certrail.store.reports import SavedReport

    _prefect.installation()
    job, view = _of(kind, chosen, is_kept=True)
    kept = SavedReport(name, kind, format_, view, job, days, cron, timezone, _readers(email))
    _prefect_reports.must_be_schedule(kept)
    is_new = reports.save(kept, audit.local_actor())
    click.echo(f"report {name} {'saved' if is_new else 'replaced'}")
    _tell_prefect()
    if kept.cron and name in _prefect_reports.paused():
        click.echo("its schedule is paused in Prefect, and stays so", err=True)


@report.command("list", epilog=examples("certrail report list", "certrail report list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(as_json: bool) -> None:
    """List the saved reports."""
    from datetime import UTC, datetime

    from certrail.cli import _prefect, _prefect_reports
    from certrail.store import reports

    _prefect.installation()
    now = datetime.now(UTC)
    saved = reports.every()
    paused = _prefect_reports.paused() if any(one.cron for one in saved) else set()
    rows = [
        {
            "name": one.name,
            "kind": one.kind,
            "format": one.format,
            "filters": list(one.view.filters),
            "job": one.job or None,
            "days": one.days,
            "cron": one.cron or None,
            "timezone": one.timezone,
            "email": list(one.email),
            "paused": one.name in paused,
            "next_at": None if one.name in paused else time_text(one.next_at(now)),
            "made_at": time_text(one.made_at),
            "saved_by": one.saved_by,
        }
        for one in saved
    ]
    if as_json:
        echo_json(rows)
    elif rows:
        columns = ("name", "kind", "format", "filters", "cron", "next_at", "paused", "made_at",
                   "saved_by")  # fmt: skip
        echo_table([(key, key.replace("_", " ")) for key in columns], rows)
    else:
        click.echo("no report is saved; any view is one: certrail report run needs-attention")


@report.command(epilog=examples("certrail report delete monday"))
@click.argument("name")
def delete(name: str) -> None:
    """Delete a saved report and its schedule. Files that were made stay."""
    from certrail.cli import _prefect
    from certrail.store import reports

    _prefect.installation()
    reports.remove(name, audit.local_actor())
    click.echo(f"report {name} deleted")
    _tell_prefect()


def _tell_prefect() -> None:
    from certrail.cli import _prefect_reports

    try:
        _prefect_reports.keep()
    except Unreachable as exc:
        # It is saved; the report flow brings Prefect up to date.
        raise Unreachable(
            f"Prefect was not told of the schedule: {exc}",
            remedy=f"{exc.remedy} The schedule follows within a quarter of an hour.".strip(),
        ) from exc


def _readers(email: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses, if they are such and something can write to them.

    Raises:
        InvalidRequest: one is no address, or no connector carries e-mail.
    """
    from certrail.configuration.profile import check_address
    from certrail.notify import drain, rules
    from certrail.store import notifications
    from certrail.store.database import transaction

    if not email:
        return ()
    try:
        check_address(email)
    except ValueError as exc:
        raise InvalidRequest(str(exc)) from None
    with transaction() as connection:
        account, channels = drain.account_settings(connection), notifications.channels(connection)
    if rules.mail_channel(account, channels) is None:
        raise InvalidRequest(
            "no connector says how e-mail is sent",
            remedy="Add one of the type notifier-smtp; of several, name one as `mail` under "
            "`notifications`.",
        )
    return email


def _of(kind: str, chosen: dict[str, Any], *, is_kept: bool = False) -> tuple[str, Any]:
    # For a report on a job, --job says which; for others it is a filter like any.
    job = ""
    if kind == "job":
        job, chosen = chosen.get("job") or "", {**chosen, "job": None}
    selection = selected(**chosen, is_kept=is_kept)
    return job, selection.view
