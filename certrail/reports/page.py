"""Pages: one HTML file that loads nothing, so that it may be mailed and kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from certrail.log import plain
from certrail.reports import svg
from certrail.reports.dashboard import TITLES, Dashboard, urgent_row
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
code { font-size: .85em; opacity: .75 } tr.bad td.n { color: var(--bad); font-weight: 700 }
svg { width: 100%; height: auto } svg rect { fill: var(--bar) }
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
                        f"certrail endpoint show {row.location}",
                    ]
                    for row in board.urgent
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
            body.append(figures([figure for figure in group if figure.count]))
            body.append(_collisions(board))
        elif not group:
            body.append("<p>Nothing.</p>")
        else:
            if name in ("security", "ca_load", "in_flight"):
                body.append(svg.bars([(figure.label, figure.count) for figure in group]))
            body.append(figures(group, bad=name == "security"))
    body.append("<h2>Agents and sensors</h2>")
    body.append(
        table(
            ["Pool", "Name", "Host", "Heard of", "Silent since"],
            (
                [row["pool"], row["name"], row["host"], row["last_seen_at"], row["silent_since"]]
                for row in board.executors
            ),
        )
    )
    body.append("<h2>Connectors</h2>")
    body.append(
        table(
            ["Name", "Type", "Check", "Said", "Endpoints"],
            (
                [
                    row["name"],
                    row["type"],
                    {True: "good", False: "failed", None: "never checked"}[row["ok"]],
                    row["message"] if row["ok"] is False else "",
                    f"certrail endpoint list --filter {row['filter']}",
                ]
                for row in board.connectors
            ),
        )
    )
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
        f'<td class="n">{figure.count:,}</td><td><code>{_text(figure.command)}</code></td></tr>'
        for figure in group
    ]
    return f"<table>{''.join(lines)}</table>"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; every cell is escaped."""
    lines = ["<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows]
    if not lines:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _collisions(board: Dashboard) -> str:
    if not board.collisions:
        return ""
    return "<p>Several of one target in the same hour:</p>" + figures(
        [collision.figure for collision in board.collisions]
    )


def _heading(name: str) -> str:
    return f"<h2>{escape(TITLES[name])}</h2>"


def _class(is_bad: bool) -> str:
    return ' class="bad"' if is_bad else ""


def _cell(value: Any) -> str:
    kind = ' class="n"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{_text(value)}</td>"


def _text(value: Any) -> str:
    return "" if value is None else escape(plain(str(value)))
