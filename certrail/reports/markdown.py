"""The dashboard as Markdown, for a Prefect artifact."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from certrail.log import plain
from certrail.reports.dashboard import TITLES, Dashboard, urgent_row

# What Markdown or HTML would read as more than text.
_SIGNS = re.compile(r"([\\`*_{}\[\]()#+!|<>~])")


def dashboard(board: Dashboard) -> str:
    """Return the dashboard; figures that are nought are left out but for the first group."""
    rate = "nothing was tried" if board.success_rate is None else f"{board.success_rate:.1%}"
    lines = [
        f"As of {board.at:%Y-%m-%d %H:%M} UTC. Installations proven within 30 days: **{rate}**.",
        "",
    ]
    for name, title in TITLES.items():
        group = [
            f for f in board.groups[name] if f.count or name in ("needs_attention", "coverage")
        ]
        if not group:
            continue
        lines += [f"## {title}", ""]
        lines += table(
            ["", "Endpoints", "Open with"],
            ([figure.label, figure.count, _code(figure.command)] for figure in group),
        )
        if name == "needs_attention" and board.urgent:
            lines += table(
                ["Location", "Status", "Days left", "Why"],
                (
                    [
                        row.location,
                        row.automation_status.text,
                        row.days_left,
                        "; ".join(urgent_row(row)["why"]),
                    ]
                    for row in board.urgent
                ),
            )
        if name == "calendar" and board.busiest:
            lines += table(
                ["Fullest hour of each CA", "Endpoints", "Open with"],
                (
                    [hour.label, hour.figure.count, _code(hour.figure.command)]
                    for hour in board.busiest
                ),
            )
    trouble = [
        *(
            [f"{row['name']} is silent", row["figure"].count, _code(row["figure"].command)]
            for row in board.executors
            if row["silent_since"]
        ),
        *(
            [f"check of {row['name']} failed", row["figure"].count, _code(row["figure"].command)]
            for row in board.connectors
            if row["ok"] is False
        ),
    ]
    if trouble:
        lines += ["## Agents, sensors and connectors in trouble", ""]
        lines += table(["", "Endpoints", "Open with"], trouble)
    if board.unknown:
        lines += ["## Begun, and nobody knows whether it happened", ""]
        lines += table(
            ["Location", "What", "What to do"],
            ([one.location, one.action, one.remedy] for one in board.unknown),
        )
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a table; cells are text, however they look."""
    lines = [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return [*lines, ""]


class _Code(str):
    """Text that is Markdown already."""


def _code(text: str) -> _Code:
    return _Code(f"`{plain(text).replace('`', '').replace('|', '')}`")


def _cell(value: Any) -> str:
    if isinstance(value, _Code):
        return value
    return "" if value is None else _SIGNS.sub(r"\\\1", plain(str(value)))
