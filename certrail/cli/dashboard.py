"""``certrail dashboard``: what needs a person, what is coming, how it is going."""

from __future__ import annotations

from pathlib import Path

import click

from certrail import settings
from certrail.cli._files import write_whole
from certrail.cli._output import echo_json, echo_table, examples, is_terminal
from certrail.log import plain
from certrail.words import counted, quoted

_ROWS = 10


@click.command(
    epilog=examples(
        "certrail dashboard",
        "certrail dashboard --json",
        "certrail dashboard --html dashboard.html",
    )
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--html",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page that needs nothing else.",
)
@click.option("--all", "everything", is_flag=True, help="Show figures that are nought too.")
def dashboard(as_json: bool, path: Path | None, everything: bool) -> None:
    """Show what needs attention, renewals to come, security and coverage.

    Each figure says the call that lists its endpoints.
    """
    from certrail.reports import dashboard as boards

    settings.adopt()
    board = boards.build()
    if path is not None:
        from certrail.reports import page

        write_whole(path, page.dashboard(board).encode())
        click.echo(f"written: {path}", err=True)
    if as_json:
        echo_json(board.to_json())
        return
    if path is not None:
        return
    rate = "nothing was tried" if board.success_rate is None else f"{board.success_rate:.1%}"
    click.echo(f"Installations proven within 30 days: {rate}")
    for name, title in boards.TITLES.items():
        shown = [figure for figure in board.groups[name] if figure.count or everything]
        _heading(title)
        if not shown:
            click.echo("  nothing")
            continue
        for figure in shown:
            number = (
                click.style(f"{figure.count:>7,}", bold=True)
                if is_terminal()
                else (f"{figure.count:>7,}")
            )
            click.echo(f"{number}  {plain(figure.label)}")
            if figure.filter:
                filter_ = f"--filter {quoted(figure.filter)}"
                click.echo(f"{'':9}{click.style(filter_, dim=True) if is_terminal() else filter_}")
        if name == "needs_attention" and board.urgent:
            rows = [
                {
                    "location": row.location,
                    "status": row.automation_status,
                    "days left": row.days_left,
                    "why": boards.short_reason(row),
                }
                for row in board.urgent[:_ROWS]
            ]
            echo_table([(key, key) for key in rows[0]], rows)
        if name == "calendar":
            for hour in board.busiest:
                over = "; the rest is put off" if hour.is_over else ""
                click.echo(f"{hour.figure.count:>7,}  fullest hour: {plain(hour.label)}{over}")
        if name == "calendar" and board.collisions:
            click.echo("  several of one target in the same hour:")
            for collision in board.collisions:
                click.echo(f"{collision.figure.count:>7,}  {collision.figure.label}")
    silent = [row for row in board.executors if row["silent_since"]]
    _heading("Agents and sensors")
    click.echo(f"{len(board.executors):>7}  known, {len(silent)} silent")
    for row in silent:
        click.echo(f"         {row['pool']}/{row['name']} silent since {row['silent_since']}")
        click.echo(f"         {counted(row['figure'].count, 'endpoint')}: {row['figure'].command}")
    failing = [row for row in board.connectors if row["ok"] is False]
    _heading("Connectors")
    click.echo(f"{len(board.connectors):>7}  known, {len(failing)} failed their last check")
    for row in failing:
        click.echo(f"         {plain(row['name'])}: {plain(row['message'] or '')}")
        click.echo(f"         {counted(row['figure'].count, 'endpoint')}: {row['figure'].command}")
    if board.unknown:
        _heading("Begun, and nobody knows whether it happened")
        for one in board.unknown[:_ROWS]:
            click.echo(f"         {plain(one.location)}: {one.action}, {one.since:%Y-%m-%d %H:%M}")
            click.echo(f"         {plain(one.remedy)}")
    click.echo("\nOpen the rows of a figure: certrail endpoint list --filter '…'")


def _heading(text: str) -> None:
    click.echo("")
    click.echo(click.style(text, bold=True) if is_terminal() else text)
