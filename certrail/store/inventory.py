"""The inventory: one row for each endpoint with its certificate, status and last request.

Everything a list shows is computed by one query, so that filters and sorting
work on any column and a limit is applied by the database. Values always travel
as parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Subquery,
    and_,
    any_,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.errors import InvalidRequest
from certrail.risk import Check, Risk, RiskFacts, assess
from certrail.store.database import transaction
from certrail.store.filters import Clause, parse
from certrail.store.inventory_conditions import condition, is_derived
from certrail.store.inventory_order import Part, Place, near, parts
from certrail.store.inventory_query import ALIASES, FIELDS, KEY_REUSED, WORDS, rows
from certrail.store.schema import HAS_FURTHER_PLACES, endpoints
from certrail.tracker import Status

_CHUNK = 1000
# A page whose conditions no index answers is looked for among so many rows first.
_NEAR = 2000
_MOST_NEAR = 200
_AT_ONCE = 60

_ADDED = ("risks", "step", "ca", "lifetime_days")
_ASKED_FOR_ONLY = ("executor", "dns")
COLUMNS = (
    *(name for name in FIELDS if name not in (*_ADDED, *_ASKED_FOR_ONLY)),
    "flow_run_url",
    *_ADDED,
    "renewal_pause",
)
"""The keys of a row, in the order of the documentation."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the inventory."""

    id: UUID
    location: str
    names: tuple[str, ...]
    common_name: str | None
    profile: str | None
    workflow: str | None
    target: str | None
    server: str | None
    automation_status: Status
    job_name: str | None
    request_id: UUID | None
    not_after: datetime | None
    days_left: int | None
    issuer: str | None
    fingerprint: str | None
    serial: str | None
    key: str | None
    tags: tuple[str, ...]
    last_success_at: datetime | None
    next_renewal_at: datetime | None
    security_findings: tuple[Mapping[str, Any], ...]
    flow_run_id: UUID | None
    risks: tuple[Risk, ...] = ()
    step: str | None = None
    ca: str | None = None
    lifetime_days: int | None = None
    renewal_pause: str | None = None


def parse_filter(text: str) -> list[Clause]:
    """Read a filter expression over the inventory's columns.

    Raises:
        InvalidRequest: it cannot be read, or names a field or status that is not there.
    """
    return parse(text, FIELDS, ALIASES, WORDS)


def find(
    filters: Sequence[Clause] = (),
    *,
    sort: str = "location",
    limit: int | None = None,
    after: str = "",
) -> list[Endpoint]:
    """Return the endpoints that all of *filters* hold for.

    Args:
        filters: from :func:`parse_filter`.
        sort: a column, with ``-`` before it for descending; empty values come last.
        limit: at most so many.
        after: a location: go on behind it, where an earlier page of this order ended.

    Raises:
        InvalidRequest: there is no such column, or no endpoint of that location.
    """
    with transaction() as connection:
        place = _place(connection, sort, after) if after else None
        return [row for row, _ in _page(connection, filters, sort, limit, place)]


def stream(
    filters: Sequence[Clause] = (), *, sort: str = "location", after: str = "", page: int = 1000
) -> Iterator[Endpoint]:
    """Yield the endpoints that :func:`find` returns, however many, a page at a time."""
    with transaction() as connection:
        place = _place(connection, sort, after) if after else None
    while True:
        with transaction() as connection:
            found = _page(connection, filters, sort, page, place)
        yield from (row for row, _ in found)
        if not found:
            return
        place = found[-1][1]


def _page(
    connection: Connection,
    filters: Sequence[Clause],
    sort: str,
    limit: int | None,
    place: Place | None,
) -> list[tuple[Endpoint, Place]]:
    # First which rows, from what filters and order need; then all columns of these few.
    relation = rows()
    wanted = [condition(relation, clause) for clause in filters]
    places: dict[UUID, Place] = {}
    for number, part in enumerate(parts(relation, sort)):
        if place is not None and number < place.part:
            continue
        start = place if place is not None and number == place.part else None
        left = None if limit is None else limit - len(places)
        if left is not None and left <= _MOST_NEAR and (part.is_derived or is_derived(filters)):
            nearby = [near(relation, sort, number, start, _NEAR)]
            near_ones = [condition(relation, clause, few=True) for clause in filters]
            found_near = _rows_in(connection, relation, part, start, left, near_ones + nearby)
        else:
            found_near = []
        if left is None or len(found_near) < left:
            found_near = _rows_in(connection, relation, part, start, left, wanted)
        for row in found_near:
            places[row.id] = Place(number, row.sort_key, row.location)
        if limit is not None and len(places) >= limit:
            break
    found = {row.id: row for row in _rows_of(connection, list(places))}
    # What was deleted meanwhile is not there any more.
    return [(found[id_], place) for id_, place in places.items() if id_ in found]


def _rows_in(
    connection: Connection,
    relation: Subquery,
    part: Part,
    start: Place | None,
    limit: int | None,
    wanted: Sequence[ColumnElement[bool]],
) -> Sequence[Row[Any]]:
    """Return the first rows of a part behind *start* that all of *wanted* hold for."""
    key = literal(None) if part.key is None else part.key
    query = select(relation.c.id, relation.c.location, key.label("sort_key")).where(*wanted)
    if part.of is not None:
        query = query.where(part.of)
    if start is not None:
        query = query.where(part.behind(start, relation.c.location))
    return connection.execute(query.order_by(*part.order(relation.c.location)).limit(limit)).all()


def _rows_of(connection: Connection, ids: list[UUID]) -> Iterator[Endpoint]:
    relation = rows()
    for start in range(0, len(ids), _CHUNK):
        chunk = literal(ids[start : start + _CHUNK], ARRAY(UUID_))
        for row in connection.execute(select(relation).where(relation.c.id == any_(chunk))):
            yield read(row)


def _place(connection: Connection, sort: str, location: str) -> Place:
    relation = rows()
    for number, part in enumerate(parts(relation, sort)):
        key = literal(None) if part.key is None else part.key
        query = select(key.label("sort_key")).where(relation.c.location == location.lower())
        row = connection.execute(query if part.of is None else query.where(part.of)).first()
        if row is not None:
            return Place(number, row.sort_key, location.lower())
    raise InvalidRequest(
        f"the inventory has no endpoint {location} to go on behind",
        remedy="Give the location of the last row that you have.",
    )


def count(filters: Sequence[Clause] = ()) -> int:
    """Return how many endpoints all of *filters* hold for."""
    relation = rows()
    query = select(func.count()).select_from(relation)
    with transaction() as connection:
        return connection.execute(
            query.where(*(condition(relation, clause) for clause in filters))
        ).scalar_one()


def counts(filters: Sequence[Sequence[Clause]]) -> list[int]:
    """Return how many endpoints each of several selections has, in one pass over all."""
    relation = rows()
    columns = [
        func.count().filter(and_(true(), *(condition(relation, clause) for clause in clauses)))
        for clauses in filters
    ]
    found: list[int] = []
    with transaction() as connection:
        for start in range(0, len(columns), _AT_ONCE):
            some = [one.label(f"c{n}") for n, one in enumerate(columns[start : start + _AT_ONCE])]
            found += connection.execute(select(*some).select_from(relation)).one()
    return found


def values(column: str, filters: Sequence[Clause] = ()) -> list[tuple[str, int]]:
    """Return the values of a column and how many endpoints have each, the most frequent first."""
    relation = rows()
    query = (
        select(relation.c[column], func.count().label("n"))
        .where(relation.c[column].is_not(None), *(condition(relation, c) for c in filters))
        .group_by(relation.c[column])
        .order_by(func.count().desc(), relation.c[column])
    )
    with transaction() as connection:
        return [(str(row[0]), int(row[1])) for row in connection.execute(query)]


def locations(filters: Sequence[Clause] = ()) -> list[tuple[UUID, str]]:
    """Return id and location of the endpoints that all of *filters* hold for, sorted."""
    relation = rows()
    query = select(relation.c.id, relation.c.location).order_by(relation.c.location)
    with transaction() as connection:
        found = connection.execute(query.where(*(condition(relation, c) for c in filters)))
        return [(row.id, row.location) for row in found]


def servers_on(target: str) -> list[tuple[str, dict[str, Any]]]:
    """Return location and ``server`` of each place on *target*, by location.

    A place is that of an endpoint, or one of its further ones (``also_on``).
    """
    query = (
        select(endpoints.c.location, endpoints.c.target, endpoints.c.server, endpoints.c.also_on)
        .where(or_(endpoints.c.target == target, HAS_FURTHER_PLACES))
        .order_by(endpoints.c.location)
    )
    with transaction() as connection:
        found = connection.execute(query).all()
    places = [
        (row.location, server)
        for row in found
        for name, server in [
            (row.target, row.server),
            *((one["target"], one["server"] or row.server) for one in row.also_on),
        ]
        if name == target
    ]
    return [(location, dict(server)) for location, server in places if server]


def read(row: Row[Any]) -> Endpoint:
    """Return a row of :func:`certrail.store.inventory_query.rows`."""
    return Endpoint(
        id=row.id,
        location=row.location,
        names=tuple(row.names),
        common_name=row.common_name,
        profile=row.profile,
        workflow=row.workflow,
        target=row.target,
        server=row.server,
        automation_status=Status(row.automation_status),
        job_name=row.job_name,
        request_id=row.request_id,
        not_after=row.not_after,
        days_left=row.days_left,
        issuer=row.issuer,
        fingerprint=row.fingerprint,
        serial=row.serial,
        key=row.key,
        tags=tuple(row.tags),
        last_success_at=row.last_success_at,
        next_renewal_at=row.next_renewal_at,
        security_findings=_findings(row),
        flow_run_id=row.flow_run_id,
        risks=assess(_facts(row)),
        step=row.step,
        ca=row.ca,
        lifetime_days=row.lifetime_days,
        renewal_pause=_pause(row.renewal_pause),
    )


def _pause(found: Mapping[str, Any] | None) -> str | None:
    """Return why the renewal waits, None once it does not."""
    if not found or datetime.fromisoformat(found["until"]) <= datetime.now(UTC):
        return None
    return str(found["message"])


def _facts(row: Row[Any]) -> RiskFacts:
    def check(label: str) -> Check | None:
        fields = row._mapping
        if fields[f"{label}_name"] is None:
            return None
        return Check(
            fields[f"{label}_name"],
            fields[f"{label}_check_ok"],
            fields[f"{label}_checked_at"],
            fields[f"{label}_check_message"],
        )

    differs = row.shown_id is not None and row.shown_id != row.certificate_id
    return RiskFacts(
        now=datetime.now(UTC),
        has_profile=row.profile is not None,
        auto_renew=row.auto_renew,
        not_after=row.not_after,
        next_renewal_at=row.next_renewal_at,
        last_success_at=row.last_success_at,
        ca=check("ca"),
        dns=check("dns"),
        target=check("target"),
        served=row.fingerprint if differs else row.recorded,
        recorded=row.recorded,
        present_ca=row.present_ca,
        present_key=row.present_key,
        present_names=tuple(row.present_names or ()),
        wanted_ca=row.ca,
        wanted_key=row.wanted_key,
        wanted_names=tuple(row.own_names),
        held=bool(row.held),
        executor=row.executor,
        silent_since=row.silent_since,
    )


def _findings(row: Row[Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the findings of endpoint and addresses, each once."""
    observed = row.observed or {}
    found = list(observed.get("findings") or ())
    for address in observed.get("addresses") or ():
        found += address.get("findings") or ()
    if row.key_reused:
        found.append(_REUSED)
    return tuple({str(sorted(finding.items())): finding for finding in found}.values())


_REUSED = {
    "code": KEY_REUSED,
    "severity": "warning",
    "message": "other hosts serve the same key: who takes one of them has the key of all",
    "remedy": "Have a certificate with a key of its own issued for each host.",
}
