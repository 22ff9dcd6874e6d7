"""The file of results: one chapter for each benchmark, each with its own day and machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_HEAD = """# Benchmarks

Written by `make bench`, chapter by chapter. Read the ratios: absolute figures vary with the
machine and with what else it does.
"""
_MARK = re.compile(r"^<!-- chapter: ([a-z-]+) -->\n", re.MULTILINE)


def chapter(name: str, text: str, *, machine: str, day: str) -> str:
    """Return a chapter that begins with a heading as it is kept: marked, and with its origin."""
    heading, _, rest = text.strip().partition("\n")
    origin = f"Measured on {day} by `python -m benchmarks --only {name}`: {machine}."
    return f"<!-- chapter: {name} -->\n{heading}\n\n{origin}\n\n{rest.strip()}\n"


def merged(before: str, new: Mapping[str, str], order: Sequence[str]) -> str:
    """Return the file with its *new* chapters; those measured before are kept as they are.

    Args:
        before: the file as it is, "" for none.
        new: what :func:`chapter` returned, by name.
        order: the names of all chapters; one that is not there is dropped.
    """
    pieces = _MARK.split(before)
    kept = {
        name: f"<!-- chapter: {name} -->\n{text.strip()}\n"
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }
    whole = {**kept, **new}
    return "\n".join([_HEAD, *(whole[name] for name in order if name in whole)])


def rows_of(before: str, name: str) -> list[tuple[str, ...]]:
    """Return the rows of the table of a chapter, without its heads; none if there is no chapter."""
    pieces = _MARK.split(before)
    text = dict(zip(pieces[1::2], pieces[2::2], strict=True)).get(name, "")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def with_rows(
    heads: Sequence[str],
    before: Sequence[Sequence[str]],
    new: Sequence[Sequence[str]],
    *,
    key: int,
) -> str:
    """Return a table with *new* rows beside those measured *before*.

    The first *key* cells say what was measured: a new row replaces the one
    that measured the same. A row of another shape than *heads* is dropped.
    """
    rows = {tuple(row[:key]): tuple(row) for row in before if len(row) == len(heads)}
    rows |= {tuple(row[:key]): tuple(row) for row in new}
    ordered = sorted(rows.values(), key=lambda row: [_number(cell) for cell in row[:key]])
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in ordered)]) + "\n"


def _number(cell: str) -> tuple[int, str]:
    return (int(cell), "") if cell.isdecimal() else (0, cell)
