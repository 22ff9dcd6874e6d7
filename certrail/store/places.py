"""Where the certificate of a request is installed, if that is several places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from certrail.store.database import statement, transaction
from certrail.store.schema import request_places as table

_TELL = text(
    "update steps set detail = :detail"
    " where request_id = :request_id and title = :title and status = 'running'"
)


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """One place of a request.

    Attributes:
        number: 0 for the endpoint's own.
        name: connector of the machine.
        staged: what install and restore need there; of the endpoint's own the request has it.
        is_installed: a client has seen it there.
        detail: what was done there, or why it was not.
    """

    number: int
    name: str
    staged: dict[str, Any] | None
    is_installed: bool
    detail: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data for people and programs."""
        return {"target": self.name, "installed": self.is_installed, "detail": self.detail}


def begin(request_id: UUID, names: Sequence[str]) -> list[PlaceRow]:
    """Return the places of a request in their order, after noting those that are not yet.

    A place that was moved to another machine since begins anew.
    """
    made = insert(table).values(
        [{"request_id": request_id, "number": n, "name": name} for n, name in enumerate(names)]
    )
    anew = {"name": made.excluded.name, "staged": None, "is_installed": False, "detail": None}
    with transaction() as connection:
        connection.execute(
            made.on_conflict_do_update(
                index_elements=["request_id", "number"],
                set_=anew,
                where=table.c.name != made.excluded.name,
            )
        )
        connection.execute(
            table.delete().where(table.c.request_id == request_id, table.c.number >= len(names))
        )
    return of_request(request_id)


def of_request(request_id: UUID) -> list[PlaceRow]:
    """Return the places of a request, none where it is only one."""
    query = select(table).where(table.c.request_id == request_id).order_by(table.c.number)
    with statement() as connection:
        return [
            PlaceRow(row.number, row.name, row.staged, row.is_installed, row.detail)
            for row in connection.execute(query)
        ]


def keep_staged(
    connection: Connection, request_id: UUID, number: int, staged: dict[str, Any] | None
) -> None:
    """Store what install and restore need in a place; without it the place is to be done again."""
    values: dict[str, Any] = {} if number == 0 else {"staged": staged}
    if staged is None:
        values["is_installed"] = False
    if values:
        connection.execute(
            update(table)
            .where(table.c.request_id == request_id, table.c.number == number)
            .values(**values)
        )


def tell(request_id: UUID, number: int, detail: str, *, is_installed: bool) -> None:
    """Note what became of a place."""
    with statement() as connection:
        connection.execute(
            update(table)
            .where(table.c.request_id == request_id, table.c.number == number)
            .values(detail=detail, is_installed=is_installed)
        )


def tell_step(request_id: UUID, title: str, detail: str) -> None:
    """Show *detail* with the step while it runs."""
    with statement() as connection:
        connection.execute(_TELL, {"request_id": request_id, "title": title, "detail": detail})


def count_installed(request_id: UUID) -> int:
    """Return in how many places it is."""
    query = select(func.count()).where(table.c.request_id == request_id, table.c.is_installed)
    with statement() as connection:
        return int(connection.execute(query).scalar_one())
