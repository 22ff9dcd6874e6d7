"""A report: rows under headings, a few charts, and what it is about. How it looks is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Chart:
    """Numbers worth a picture.

    Attributes:
        points: label and number, in the order in which they are shown.
    """

    title: str
    points: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked for, as plain data.

    Attributes:
        kind: stable name of the kind.
        title: for people.
        at: as of when.
        columns: key in the rows, and heading.
        rows: texts, numbers, times (RFC 3339), lists and None; no secret is among them.
        charts: pictures, where the format can show them.
        about: what it was restricted to, for people.
    """

    kind: str
    title: str
    at: datetime
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Mapping[str, Any]]
    charts: Sequence[Chart] = field(default=())
    about: str = ""
