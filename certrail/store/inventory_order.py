"""Order and paging: a list in any order, page by page, each page by index.

A list is a few parts one after the other: the rows that have a value in the
order of that value, then those that have none. A page goes on behind a row by
comparing with that row's place, never by counting rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Subquery, any_, func, literal, or_, select, tuple_

from certrail.errors import InvalidRequest
from certrail.store.inventory_conditions import DERIVED, status_is
from certrail.store.inventory_query import ALIASES, FIELDS, JOINED, UNSORTED, endpoint_rows, rows
from certrail.tracker import Status


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a list that are ordered alike.

    Attributes:
        of: which rows.
        key: what they are ordered by before their location; None for the location alone.
        descending: the other way round, locations too: an index is read backwards.
        is_derived: no index says which rows these are.
    """

    of: ColumnElement[bool] | None
    key: ColumnElement[Any] | None
    descending: bool = False
    is_derived: bool = False

    def order(self, location: ColumnElement[Any]) -> list[Any]:
        """Return what the database orders by."""
        keys = [location] if self.key is None else [self.key, location]
        return [key.desc() for key in keys] if self.descending else keys

    def behind(self, place: Place, location: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return the condition for rows of this part that come after *place* in it."""
        here: ColumnElement[Any] = location
        there: ColumnElement[Any] = literal(place.location)
        if self.key is not None:
            here, there = tuple_(self.key, location), tuple_(literal(place.value), there)
        return here < there if self.descending else here > there


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in a list: number of the part, value of its key, location."""

    part: int
    value: Any
    location: str


def near(
    relation: Subquery, sort: str, number: int, start: Place | None, count: int
) -> ColumnElement[bool]:
    """Return the condition for being among the first *count* rows of part *number* of a list.

    The database cannot know how many rows a derived condition holds for, and
    may compute it for all of them although the page is right at the beginning.
    """
    part = parts(relation, sort)[number]
    name = ALIASES.get(sort.removeprefix("-"), sort.removeprefix("-"))
    # Without the joins, which would be made for each of these rows.
    inner = rows("near") if name in JOINED else endpoint_rows("near")
    if part.of is None or name == "automation_status":
        here = Part(None, None, part.descending)
    else:
        here = parts(inner, sort)[number]
    query = select(inner.c.id).order_by(*here.order(inner.c.location)).limit(count)
    if here.of is not None:
        query = query.where(here.of)
    if start is not None:
        query = query.where(here.behind(start, inner.c.location))
    found: ColumnElement[bool] = relation.c.id == any_(func.array(query.scalar_subquery()))
    return found


def parts(relation: Subquery, sort: str) -> list[Part]:
    """Return the parts of the list that is sorted by column *sort* (``-`` for descending).

    Raises:
        InvalidRequest: there is no such column, or it has no order.
    """
    descending = sort.startswith("-")
    name = sort.removeprefix("-")
    name = ALIASES.get(name, name)
    if name not in FIELDS or name in UNSORTED:
        known = ", ".join(n for n in FIELDS if n not in UNSORTED)
        raise InvalidRequest(
            f"the inventory cannot be sorted by {name!r}", remedy=f"Sort by one of: {known}"
        )
    if name == "location":
        return [Part(None, None, descending)]
    if name == "automation_status":
        listed = sorted(Status, key=lambda status: status.value, reverse=descending)
        return [
            Part(
                or_(*(t for t in status_is(relation, status) if t is not None)),
                None,
                descending,
                is_derived=status in DERIVED,
            )
            for status in listed
        ]
    if name in _TEXTS:
        key, there = _TEXTS[name](relation)
    else:
        column: ColumnElement[Any] = relation.c["not_after" if name == "days_left" else name]
        key, there = column, column.is_not(None)
    return [Part(there, key, descending), Part(~there, None)]


def _lower(name: str) -> Callable[[Subquery], tuple[ColumnElement[Any], ColumnElement[bool]]]:
    def of(relation: Subquery) -> tuple[ColumnElement[Any], ColumnElement[bool]]:
        column = relation.c[name]
        return func.lower(column), column.is_not(None)

    return of


_TEXTS: dict[str, Callable[[Subquery], tuple[ColumnElement[Any], ColumnElement[bool]]]] = {
    **{name: _lower(name) for name in ("common_name", "issuer", "serial", "key", "server")},
    "names": lambda relation: (
        func.left(relation.c.shown_words, 300),
        relation.c.shown_words != "",
    ),
    "tags": lambda relation: (relation.c.sort_tags, relation.c.sort_tags != ""),
    "workflow": lambda relation: (
        relation.c.sort_workflow,
        relation.c.sort_workflow.is_not(None),
    ),
    "ca": lambda relation: (relation.c.sort_ca, relation.c.sort_ca.is_not(None)),
}
