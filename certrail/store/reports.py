"""Reports that people saved: what they are of, in which format, and when they are made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from certrail.errors import InvalidRequest, NotFound
from certrail.store import audit, outbox
from certrail.store.database import transaction
from certrail.store.schema import reports
from certrail.store.views import View

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


@dataclass(frozen=True, slots=True)
class SavedReport:
    """One saved report.

    Attributes:
        kind: one of the kinds of reports.
        format: of the file that is made.
        view: which endpoints, in which order, with which columns.
        job: name of a bulk job.
        days: how far back or ahead it looks.
        cron: when it is made, five fields; empty: when somebody asks.
        timezone: of these times.
    """

    name: str
    kind: str
    format: str = "csv"
    view: View = field(default_factory=View)
    job: str = ""
    days: int = 30
    cron: str = ""
    timezone: str = "UTC"
    saved_by: str = ""
    created_at: datetime | None = None
    made_at: datetime | None = None

    def next_at(self, after: datetime) -> datetime | None:
        """Return when it is made next after *after*, None if it has no schedule.

        Raises:
            InvalidRequest: the schedule cannot be read.
        """
        if not self.cron:
            return None
        try:
            moments = CronSim(self.cron, after.astimezone(ZoneInfo(self.timezone)))
            return next(moments).astimezone(UTC)
        except (CronSimError, StopIteration) as exc:
            raise InvalidRequest(
                f"{self.cron!r} is not a schedule: {exc or 'it never comes'}",
                remedy="Give five fields: minute hour day month weekday, such as '0 6 * * mon'.",
            ) from exc
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise InvalidRequest(
                f"unknown time zone {self.timezone!r}", remedy="Give one like Europe/Berlin."
            ) from exc

    def is_due(self, now: datetime) -> bool:
        """Whether its moment has come since it was made, or saved, last."""
        since = self.made_at or self.created_at
        if since is None:
            return False
        moment = self.next_at(since)
        return moment is not None and moment <= now


def save(report: SavedReport, actor: str) -> bool:
    """Save a report under its name; returns whether the name is new.

    Raises:
        InvalidRequest: name, filters or schedule cannot be read.
    """
    if not _NAME.match(report.name):
        raise InvalidRequest(
            f"{report.name!r} cannot be the name of a report",
            remedy="Use up to 63 letters, digits, dots, hyphens and underscores.",
        )
    report.view.clauses()
    report.next_at(datetime.now(UTC))
    values: dict[str, Any] = {
        "kind": report.kind,
        "format": report.format,
        "settings": {
            "filters": list(report.view.filters),
            "sort": report.view.sort,
            "columns": list(report.view.columns),
            "job": report.job,
            "days": report.days,
        },
        "cron": report.cron,
        "timezone": report.timezone,
        "saved_by": actor,
    }
    statement = insert(reports).values(name=report.name, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={**values, "updated_at": func.now()}
    )
    with transaction() as connection:
        is_new: bool = connection.execute(
            statement.returning(reports.c.updated_at.is_(None))
        ).scalar_one()
        audit.note(connection, actor, "report.save", report.name, values)
    return is_new


def every() -> list[SavedReport]:
    """Return all saved reports by name."""
    with transaction() as connection:
        return [_read(row) for row in connection.execute(select(reports).order_by(reports.c.name))]


def find(name: str) -> SavedReport | None:
    """Return the saved report of that name, None if there is none."""
    with transaction() as connection:
        row = connection.execute(select(reports).where(reports.c.name == name)).first()
    return _read(row) if row is not None else None


def remove(name: str, actor: str) -> None:
    """Delete a saved report.

    Raises:
        NotFound: there is none of that name.
    """
    with transaction() as connection:
        gone = connection.execute(
            delete(reports).where(reports.c.name == name).returning(reports.c.name)
        ).first()
        if gone is not None:
            audit.note(connection, actor, "report.delete", name)
    if gone is None:
        raise unknown(name, [one.name for one in every()])


def made(name: str, at: datetime, *, rows: int, where: str) -> None:
    """Note that a report was made; those who want to hear of it are told."""
    with transaction() as connection:
        connection.execute(update(reports).where(reports.c.name == name).values(made_at=at))
        outbox.put(
            connection,
            "certrail.report.ready",
            name,
            resource=f"certrail.report.{name}",
            once=f"report {name} {at.isoformat()}",
            detail=f"report {name}: {rows} rows in {where}",
            rows=rows,
            file=where,
        )


def unknown(name: str, known: Sequence[str]) -> NotFound:
    """Return the error for a report that is not there."""
    near = get_close_matches(name, known, n=1)
    return NotFound(
        f"there is no report {name}",
        remedy=(f"Did you mean {near[0]}? " if near else "") + "`certrail report list` shows all.",
    )


def _read(row: Row[Any]) -> SavedReport:
    settings = row.settings
    return SavedReport(
        name=row.name,
        kind=row.kind,
        format=row.format,
        view=View(
            tuple(settings.get("filters", ())),
            settings.get("sort", "location"),
            tuple(settings.get("columns", ())),
        ),
        job=settings.get("job", ""),
        days=settings.get("days", 30),
        cron=row.cron,
        timezone=row.timezone,
        saved_by=row.saved_by,
        created_at=row.updated_at or row.created_at,
        made_at=row.made_at,
    )
