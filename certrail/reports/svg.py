"""Charts as inline SVG: no script, no font, nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH = 900
_BAR = 22
_LABEL = 240


def columns(points: Sequence[tuple[str, int]], *, height: int = 150) -> str:
    """Return upright bars; labels under every seventh one where there are many."""
    if not points:
        return ""
    most = max(1, *(count for _, count in points))
    step = _WIDTH / len(points)
    every = 1 if len(points) <= 14 else 5
    parts = [_open(height + 36, f"at most {most}")]
    for number, (label, count) in enumerate(points):
        tall = height * count / most
        x = number * step
        parts.append(
            f'<rect x="{x + 2:.1f}" y="{height - tall + 14:.1f}" width="{step - 4:.1f}" '
            f'height="{tall:.1f}"><title>{escape(label)}: {count}</title></rect>'
        )
        if count:
            parts.append(_text(x + step / 2, height - tall + 10, str(count), "middle"))
        if number % every == 0:
            parts.append(_text(x + step / 2, height + 30, label, "middle"))
    return "".join([*parts, "</svg>"])


def bars(points: Sequence[tuple[str, int]]) -> str:
    """Return lying bars, one below the other, with label and number."""
    if not points:
        return ""
    most = max(1, *(count for _, count in points))
    parts = [_open(_BAR * len(points) + 4, f"at most {most}")]
    room = _WIDTH - _LABEL - 70
    for number, (label, count) in enumerate(points):
        y = number * _BAR
        parts.append(_text(_LABEL - 8, y + 16, label, "end"))
        wide = room * count / most
        parts.append(
            f'<rect x="{_LABEL}" y="{y + 4}" width="{wide:.1f}" height="{_BAR - 7}">'
            f"<title>{escape(label)}: {count}</title></rect>"
        )
        parts.append(_text(_LABEL + wide + 6, y + 16, str(count), "start"))
    return "".join([*parts, "</svg>"])


def _open(height: int, what: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(what)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    shown = text if len(text) <= 34 else text[:33] + "…"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(shown)}</text>'
