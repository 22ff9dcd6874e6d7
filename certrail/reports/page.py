"""Pages: one HTML file that loads nothing, so that it may be mailed and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from certrail.log import plain
from certrail.reports import svg
from certrail.reports.dashboard import TITLES, Collision, Dashboard, urgent_row
from certrail.reports.figures import Figure

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #2f6fb3; --bad: #c0392b; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.at { opacity: .7 } table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word } th { font-weight: 600 }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
code { font-size: .85em; opacity: .75; user-select: all; overflow-wrap: anywhere }
tr.bad td.n, tr.bad td:first-child { color: var(--bad); font-weight: 700 }
.figures td:first-child { width: 40% } .figures td.n { width: 4rem }
summary { cursor: pointer } svg { width: 100%; height: auto } svg rect { fill: var(--bar) }
svg text { font-size: 11px; fill: currentColor }
@media print { body { margin: 0; max-width: none } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def dashboard(board: Dashboard) -> str:
    """Return the dashboard as a page."""
    rate = "nothing was tried" if board.success_rate is None else f"{board.success_rate:.1%}"
    body = [
        f'<p class="at">as of {board.at:%Y-%m-%d %H:%M} UTC · installations proven within 30 '
        f"days: <b>{rate}</b></p>",
        _heading("needs_attention"),
        figures(board.groups["needs_attention"], bad=True),
    ]
    if board.urgent:
        body.append(
            table(
                ["Location", "Status", "Days left", "Why", "Open"],
                (
                    [
                        row.location,
                        row.automation_status.text,
                        row.days_left,
                        "; ".join(urgent_row(row)["why"]),
                        urgent_row(row)["command"],
                    ]
                    for row in board.urgent
                ),
            )
        )
    if silent := [row for row in board.executors if row["silent_since"]]:
        body += ["<h2>Agents and sensors that are down</h2>", _executors(silent)]
    if failing := [row for row in board.connectors if row["ok"] is False]:
        body += ["<h2>Connectors that failed their check</h2>", _connectors(failing)]
    if board.unknown:
        body.append("<h2>Begun, and nobody knows whether it happened</h2>")
        body.append(
            table(
                ["Location", "What", "Since", "Request", "What to do"],
                (
                    [
                        one.location,
                        one.action,
                        f"{one.since:%Y-%m-%d %H:%M} UTC",
                        f"certrail request show {str(one.request_id)[:8]}",
                        one.remedy,
                    ]
                    for one in board.unknown
                ),
            )
        )
    for name in TITLES:
        if name == "needs_attention":
            continue
        body.append(_heading(name))
        group = board.groups[name]
        if name == "calendar":
            body.append(svg.columns([(figure.label, figure.count) for figure in group]))
            body.append(_hours("The fullest hour of each CA:", board.busiest))
            body.append(_hours("Several of one target in the same hour:", board.collisions))
            days = figures([figure for figure in group if figure.count])
            body.append(f"<details><summary>Day by day</summary>{days}</details>")
        elif not group:
            body.append("<p>Nothing.</p>")
        else:
            if name in ("security", "ca_load", "in_flight"):
                body.append(svg.bars([(figure.label, figure.count) for figure in group]))
            body.append(figures(group, bad=name == "security"))
    body += ["<h2>Agents and sensors</h2>", _executors(board.executors)]
    body += ["<h2>Connectors</h2>", _connectors(board.connectors)]
    return page("Certificates: dashboard", "".join(body))


def page(title: str, body: str) -> str:
    """Return a whole page; *body* is HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def figures(group: Sequence[Figure], *, bad: bool = False) -> str:
    """Return figures with the call that opens their rows."""
    lines = [
        f"<tr{_class(bad and figure.count > 0)}><td>{_text(figure.label)}</td>"
        f'<td class="n">{figure.count:,}</td><td>{_code(figure.command)}</td></tr>'
        for figure in group
    ]
    return f'<table class="figures">{"".join(lines)}</table>'


def table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], *, bad: Sequence[bool] = ()
) -> str:
    """Return a table; every cell is escaped. Rows that are *bad* stand out."""
    lines = [
        f"<tr{_class(number < len(bad) and bad[number])}>"
        + "".join(_cell(value) for value in row)
        + "</tr>"
        for number, row in enumerate(rows)
    ]
    if not lines:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _hours(title: str, hours: Sequence[Collision]) -> str:
    if not hours:
        return ""
    lines = [
        f"<tr{_class(hour.is_over)}><td>{_text(hour.label)}</td>"
        f'<td class="n">{hour.figure.count:,}</td><td>{_code(hour.figure.command)}</td></tr>'
        for hour in hours
    ]
    return f'<p>{escape(title)}</p><table class="figures">{"".join(lines)}</table>'


def _executors(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ["Pool", "Name", "Host", "Heard of", "State", "Endpoints", "Open"],
        (
            [
                row["pool"],
                row["name"],
                row["host"],
                time_of(row["last_seen_at"]),
                state_of(row),
                row["figure"].count,
                row["figure"].command,
            ]
            for row in rows
        ),
        bad=[bool(row["silent_since"]) for row in rows],
    )


def _connectors(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ["Name", "Type", "Check", "Said", "Endpoints", "Open"],
        (
            [
                row["name"],
                row["type"],
                {True: "good", False: "failed", None: "never checked"}[row["ok"]],
                row["message"] if row["ok"] is False else "",
                row["figure"].count,
                row["figure"].command,
            ]
            for row in rows
        ),
        bad=[row["ok"] is False for row in rows],
    )


def time_of(text: str | None) -> str:
    """Return a time of the JSON as people read it."""
    return "" if not text else f"{text[:16].replace('T', ' ')} UTC"


def state_of(row: Mapping[str, Any]) -> str:
    """Return in words whether an agent or sensor lives."""
    if row["silent_since"]:
        return f"silent since {time_of(row['silent_since'])}"
    return "stopped" if row["stopped_at"] else "online"


def _heading(name: str) -> str:
    return f"<h2>{escape(TITLES[name])}</h2>"


def _class(is_bad: bool) -> str:
    return ' class="bad"' if is_bad else ""


def _cell(value: Any) -> str:
    kind = ' class="n"' if isinstance(value, int | float) else ""
    is_command = isinstance(value, str) and value.startswith("certrail ")
    return f"<td{kind}>{_code(value) if is_command else _text(value)}</td>"


def _code(command: str) -> str:
    # A click selects the whole call, to be copied.
    return f"<code>{_text(command)}</code>"


def _text(value: Any) -> str:
    return "" if value is None else escape(plain(str(value)))
