"""Making reports: the saved ones, any view, or a kind."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from certrail.reports import kinds
from certrail.reports.formats import rendered
from certrail.reports.report import Report
from certrail.reports.tables import Wanted
from certrail.store import reports, views
from certrail.store.reports import SavedReport

FOLDER = "reports"


@dataclass(frozen=True, slots=True)
class Made:
    """A saved report that was made."""

    name: str
    report: Report
    path: Path


def named(name: str) -> SavedReport:
    """Return the saved report of that name, or the view of that name as a report.

    Raises:
        NotFound: there is neither.
    """
    saved = reports.find(name)
    if saved is not None:
        return saved
    known = [one.name for one in views.every()]
    if name not in known:
        raise reports.unknown(name, [*known, *(one.name for one in reports.every())])
    return SavedReport(name, "endpoints", view=views.get(name))


def build(saved: SavedReport, *, ui_url: str = "", now: datetime | None = None) -> Report:
    """Return the report as of now."""
    wanted = Wanted(view=saved.view, job=saved.job, days=saved.days, ui_url=ui_url)
    return kinds.build(saved.kind, wanted, now)


def make_now(name: str, folder: Path, *, ui_url: str = "") -> Made | None:
    """Make a saved report, into *folder*; None where another process just did.

    Raises:
        NotFound: there is none of that name, or what it is on is gone.
        OSError: it cannot be written.
    """
    saved = reports.find(name)
    if saved is None:
        raise reports.unknown(name, [one.name for one in reports.every()])
    at = datetime.now(UTC)
    report = build(saved, ui_url=ui_url, now=at)
    path = folder / f"{saved.name}-{at:%Y%m%dT%H%M%SZ}.{saved.format}"
    content = rendered(report, saved.format)
    put(path, content)
    told = reports.made(saved, at, rows=len(report.rows), where=str(path), content=content)
    return Made(saved.name, report, path) if told else None


def put(path: Path, content: bytes) -> None:
    """Write *content* beside *path*, then put it in its place: whole, or not at all.

    Raises:
        OSError: it cannot be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
