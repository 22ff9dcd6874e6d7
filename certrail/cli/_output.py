"""Printing: JSON, CSV, tables, times and statuses. Nothing here knows what it prints."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from certrail.log import plain
from certrail.tracker import Status, StepStatus

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_STYLES: Mapping[str, str] = {
    Status.AUTOMATION_SUCCESSFUL: "green",
    Status.CERTIFICATE_DELIVERED: "green",
    Status.AUTO_RENEW_SCHEDULED: "green",
    Status.AUTOMATION_FAILED: "bold red",
    Status.ACTION_REQUIRED: "bold red",
    Status.AUTOMATION_AT_RISK: "yellow",
    Status.APPROVAL_PENDING: "yellow",
    Status.IN_PROGRESS: "cyan",
    Status.AUTOMATION_REQUESTED: "cyan",
    Status.AUTOMATION_SCHEDULED: "cyan",
    Status.NOT_CONFIGURED: "dim",
    StepStatus.PENDING: "dim",
    StepStatus.RUNNING: "cyan",
    StepStatus.COMPLETED: "green",
    StepStatus.SKIPPED: "blue",
    StepStatus.FAILED: "bold red",
}
# Columns that are not broken into lines while others can be.
_WHOLE = ("location", "automation_status", "status", "id", "name")
# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def examples(*lines: str) -> str:
    """Return a command's epilog: example calls, as they are typed."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return the terminal, or a wide plain page where there is none."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not is_terminal(), emoji=False, markup=False)


def echo_json(data: Any) -> None:
    """Print *data* as JSON."""
    click.echo(json.dumps(data, indent=2))


def echo_json_array(rows: Iterable[Any]) -> None:
    """Print *rows* as a JSON array, each as it comes: as much as it may be."""
    begin = "[\n  "
    for row in rows:
        click.echo(begin + json.dumps(row, indent=2).replace("\n", "\n  "), nl=False)
        begin = ",\n  "
    click.echo("[]" if begin.startswith("[") else "\n]")


def echo_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows of plain data as CSV (RFC 4180).

    A cell that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([defused(cell(row.get(column))) for column in columns])


def defused(text: str) -> str:
    """Return *text* so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def cell(value: Any) -> str:
    """Return plain data as the text of one cell; lists are joined by blanks."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return plain(value.get("code") or json.dumps(value))
    if isinstance(value, list | tuple):
        return " ".join(cell(item) for item in value)
    return plain(value)


def echo_table(columns: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows: a table on a terminal, aligned columns elsewhere.

    Args:
        columns: key in the row, and heading.
        rows: datetimes are shown in local time, statuses with their colour.
    """
    texts = [[_shown(row.get(key)) for key, _ in columns] for row in rows]
    if not is_terminal():
        _echo_aligned([heading for _, heading in columns], texts)
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for key, heading in columns:
        numbers = any(
            isinstance(row.get(key), int | float) and not isinstance(row.get(key), bool)
            for row in rows
        )
        table.add_column(
            heading,
            overflow="fold",
            no_wrap=key in _WHOLE,
            justify="right" if numbers else "left",
        )
    for row, line in zip(rows, texts, strict=True):
        table.add_row(
            *(
                Text(text, style=style_of(row.get(key)))
                for (key, _), text in zip(columns, line, strict=True)
            )
        )
    console().print(table)


def style_of(value: Any) -> str:
    """Return the colour of a status, "" for anything else."""
    return _STYLES.get(value, "") if isinstance(value, Status | StepStatus) else ""


def status_text(status: Status | StepStatus) -> Text:
    """Return a status for people, coloured."""
    from rich.text import Text

    return Text(_shown(status), style=style_of(status))


def local(moment: datetime | None) -> str:
    """Return a time in the machine's zone, to the second: ``2026-11-23 14:02:11 CET``."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment else ""


def _shown(value: Any) -> str:
    if isinstance(value, Status):
        return value.text
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M %Z}"
    return cell(value)


def _echo_aligned(headings: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    lines = [list(headings), *map(list, texts)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(headings))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
