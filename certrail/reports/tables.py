"""What reports are made of: what is wanted, rows, columns and charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from certrail.reports.report import Chart
from certrail.store.database import transaction
from certrail.store.request_view import time_text
from certrail.store.views import View

MOST = 12
"""Labels of a chart; what comes less often is told as one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report is restricted to.

    Attributes:
        view: which endpoints, in which order, with which columns.
        job: name of a bulk job, for a report on one.
        days: how far back (or ahead, for what is to come) it looks.
        ui_url: where Prefect's pages are, for links.
    """

    view: View = field(default_factory=View)
    job: str = ""
    days: int = 30
    ui_url: str = ""


def heading(key: str) -> str:
    """Return a key as a heading."""
    return _HEADINGS.get(key) or key.replace("_", " ").capitalize()


_HEADINGS = {"not_after": "Valid to", "ca": "CA", "seq": "No.", "took_s": "Took, s"}


def plain(query: Any, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return what *query* finds as rows of plain data."""
    with transaction() as connection:
        found = [row._mapping for row in connection.execute(query)]
    return [
        {key: time_text(row[key]) if isinstance(row[key], datetime) else row[key] for key in keys}
        for row in found
    ]


def chart(title: str, labels: Iterable[str]) -> Chart:
    """Return how often each label comes, the most frequent first."""
    counts = Counter(labels).most_common()
    rest = sum(count for _, count in counts[MOST:])
    return Chart(title, [*counts[:MOST], *([("others", rest)] if rest else [])])


def by_day(title: str, times: Iterable[str | None]) -> Chart:
    """Return how many of *times* (RFC 3339) fall on each day."""
    counts = Counter(moment[:10] for moment in times if moment)
    return Chart(title, sorted(counts.items())[:60])


def columns(*names: str) -> list[tuple[str, str]]:
    """Return keys with their headings."""
    return [(name, heading(name)) for name in names]
