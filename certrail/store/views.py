"""Views: named selections of endpoints, those that come with us and those that people save."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from certrail.errors import Conflict, InvalidRequest, NotFound
from certrail.store import audit
from certrail.store.database import transaction
from certrail.store.filters import Clause, parse
from certrail.store.inventory_query import ALIASES, FIELDS, WORDS
from certrail.store.schema import views

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


@dataclass(frozen=True, slots=True)
class View:
    """A named selection of endpoints.

    Attributes:
        filters: expressions, all of which must hold.
        sort: column, with ``-`` for descending.
        columns: what a table shows; empty for the usual ones.
        help: what it is for, for people.
    """

    filters: tuple[str, ...] = ()
    sort: str = "location"
    columns: tuple[str, ...] = ()
    help: str = ""

    def clauses(self) -> list[Clause]:
        """Return the conditions, for :func:`certrail.store.inventory.find`.

        Raises:
            InvalidRequest: an expression cannot be read.
        """
        return [clause for text in self.filters for clause in parse(text, FIELDS, ALIASES, WORDS)]


@dataclass(frozen=True, slots=True)
class NamedView:
    """A view as it is listed.

    Attributes:
        saved_by: who saved it last; None for a system view.
    """

    name: str
    view: View
    saved_by: str | None = None
    saved_at: datetime | None = None

    @property
    def is_system(self) -> bool:
        """Whether it comes with us."""
        return self.saved_by is None


SYSTEM_VIEWS: Mapping[str, View] = {
    "needs-attention": View(
        ("status=automation-failed,action-required,approval-pending,automation-at-risk",),
        sort="days_left",
        columns=("location", "automation_status", "days_left", "risks", "profile"),
        help="somebody has to do something",
    ),
    "scheduled": View(
        ("status=automation-scheduled,auto-renew-scheduled",),
        sort="next_renewal_at",
        columns=("location", "automation_status", "next_renewal_at", "days_left", "job_name"),
        help="will run at a known time",
    ),
    "in-progress": View(
        ("status=in-progress,automation-requested",),
        columns=("location", "automation_status", "job_name", "request_id", "profile"),
        help="running now or queued",
    ),
    "expiring": View(
        ("days_left<30",),
        sort="days_left",
        help="certificate ends within 30 days, or has ended",
    ),
    "failed": View(
        ("status=automation-failed,action-required",),
        columns=("location", "automation_status", "request_id", "job_name", "days_left"),
        help="the last request failed",
    ),
    "unmanaged": View(
        ("profile=",),
        columns=("location", "common_name", "issuer", "days_left", "security_findings"),
        help="seen, but no profile automates it",
    ),
}


def get(name: str) -> View:
    """Return the view of that name.

    Raises:
        NotFound: there is none.
    """
    if name in SYSTEM_VIEWS:
        return SYSTEM_VIEWS[name]
    with transaction() as connection:
        row = connection.execute(select(views).where(views.c.name == name)).first()
        if row is None:
            raise _unknown(connection, name)
    return _read(row).view


def clauses(name: str) -> list[Clause]:
    """Return the conditions of the view of that name.

    Raises:
        NotFound: there is no such view.
    """
    return get(name).clauses()


def every() -> list[NamedView]:
    """Return the system views, then the saved ones by name."""
    with transaction() as connection:
        saved = [_read(row) for row in connection.execute(select(views).order_by(views.c.name))]
    return [*(NamedView(name, view) for name, view in SYSTEM_VIEWS.items()), *saved]


def save(name: str, view: View, actor: str) -> bool:
    """Save *view* under *name*; returns whether the name is new.

    Raises:
        InvalidRequest: the name cannot be one, or a filter cannot be read.
        Conflict: a system view has that name.
    """
    if not _NAME.match(name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of a view",
            remedy="Use up to 63 letters, digits, dots, hyphens and underscores.",
        )
    if name in SYSTEM_VIEWS:
        raise Conflict(f"{name} is a system view", remedy="Choose another name.")
    view.clauses()
    values: dict[str, Any] = {
        "filters": list(view.filters),
        "sort": view.sort,
        "columns": list(view.columns),
        "help": view.help,
        "saved_by": actor,
    }
    statement = insert(views).values(name=name, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={**values, "updated_at": func.now()}
    )
    with transaction() as connection:
        is_new: bool = connection.execute(
            statement.returning(views.c.updated_at.is_(None))
        ).scalar_one()
        audit.note(connection, actor, "view.save", name, values)
    return is_new


def remove(name: str, actor: str) -> None:
    """Delete a saved view.

    Raises:
        NotFound: there is none.
        Conflict: it is a system view.
    """
    if name in SYSTEM_VIEWS:
        raise Conflict(f"{name} is a system view and stays", remedy="Delete saved views only.")
    with transaction() as connection:
        gone = connection.execute(
            delete(views).where(views.c.name == name).returning(views.c.name)
        ).first()
        if gone is None:
            raise _unknown(connection, name)
        audit.note(connection, actor, "view.delete", name)


def _unknown(connection: Connection, name: str) -> NotFound:
    known: Sequence[str] = [*SYSTEM_VIEWS, *connection.execute(select(views.c.name)).scalars()]
    near = get_close_matches(name, known, n=1)
    return NotFound(
        f"there is no view {name}",
        remedy=(f"Did you mean {near[0]}? " if near else "") + "`certrail view list` shows all.",
    )


def _read(row: Row[Any]) -> NamedView:
    view = View(tuple(row.filters), row.sort, tuple(row.columns), row.help)
    return NamedView(row.name, view, row.saved_by, row.updated_at or row.created_at)
