"""Reports that people saved: what they are of, in which format, and when they are made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from certrail.errors import InvalidRequest, NotFound
from certrail.store import audit, outbox
from certrail.store.database import transaction
from certrail.store.schema import report_files, reports
from certrail.store.views import View
from certrail.words import counted

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
_LARGEST = 10 * 1024 * 1024
_KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class SavedReport:
    """One saved report.

    Attributes:
        kind: one of the kinds of reports.
        format: of the file that is made.
        view: which endpoints, in which order, with which columns.
        job: name of a bulk job.
        days: how far back or ahead it looks.
        cron: when it is made by itself, five fields; empty: when somebody asks.
        timezone: of these times.
        email: who gets it by mail, whatever the rules of notifications say.
    """

    name: str
    kind: str
    format: str = "csv"
    view: View = field(default_factory=View)
    job: str = ""
    days: int = 30
    cron: str = ""
    timezone: str = "UTC"
    email: tuple[str, ...] = ()
    saved_by: str = ""
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
            "email": list(report.email),
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


def made(report: SavedReport, at: datetime, *, rows: int, where: str, content: bytes) -> bool:
    """Note that a report was made; those who want to hear of it are told, with the file.

    Returns False, and tells nobody, where another process has made it since
    *report* was read.
    """
    with transaction() as connection:
        mine = connection.execute(
            update(reports)
            .where(
                reports.c.name == report.name,
                reports.c.made_at.is_not_distinct_from(report.made_at),
            )
            .values(made_at=at)
            .returning(reports.c.name)
        ).first()
        if mine is None:
            return False
        outbox.put(
            connection,
            "certrail.report.ready",
            report.name,
            resource=f"certrail.report.{report.name}",
            once=f"report {report.name} {at.isoformat()}",
            detail=f"report {report.name}: {counted(rows, 'row')} in {where}",
            rows=rows,
            file=where,
            email=list(report.email),
            attachment=_keep_file(connection, report.name, PurePath(where).name, content),
        )
    return True


def files(ids: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return name and content of files of reports; those that are gone are left out."""
    wanted = [UUID(one) for one in ids]
    if not wanted:
        return []
    query = select(report_files).where(report_files.c.id.in_(wanted))
    with transaction() as connection:
        found = {row.id: (row.file, bytes(row.content)) for row in connection.execute(query)}
    return [found[one] for one in wanted if one in found]


def _keep_file(connection: Connection, name: str, file: str, content: bytes) -> str | None:
    """Keep a file for the mail that tells of it; None where no mail server would take it."""
    if len(content) > _LARGEST:
        return None
    # A message is tried for three days; what is older was sent, or never will be.
    connection.execute(
        delete(report_files).where(
            report_files.c.report == name, report_files.c.made_at < func.now() - _KEPT
        )
    )
    kept = connection.execute(
        insert(report_files)
        .values(report=name, file=file, content=content)
        .returning(report_files.c.id)
    ).scalar_one()
    return str(kept)


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
        email=tuple(settings.get("email", ())),
        saved_by=row.saved_by,
        made_at=row.made_at,
    )
