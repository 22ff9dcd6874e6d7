"""The inventory: one row for each endpoint with its certificate, status and last request.

Everything a list shows is computed by one query, so that filters and sorting
work on any column and a limit is applied by the database. Values always travel
as parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select

from certrail.errors import NotFound
from certrail.store.database import transaction
from certrail.store.filters import Clause, parse
from certrail.store.inventory_query import ALIASES, FIELDS, condition, order, rows
from certrail.store.schema import certificates, endpoints, profiles
from certrail.tracker import Status

COLUMNS = (*FIELDS, "flow_run_url")
"""The keys of a row, in the order of the documentation."""

_CANDIDATES = 500


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


@dataclass(frozen=True, slots=True)
class Detail:
    """What the page of one endpoint shows beside its row.

    Attributes:
        row: as in the list.
        addresses: where it is reached, empty for its location.
        server: the settings of the server, as configured.
        settings: the profile's, None without a profile.
        certificate_id: the certificate it got from us last.
        observed: what the last scan or test saw.
    """

    row: Endpoint
    addresses: tuple[str, ...]
    sni: str | None
    starttls: str | None
    server: Mapping[str, Any]
    settings: Mapping[str, Any] | None
    certificate_id: UUID | None
    observed: Mapping[str, Any] | None
    observed_at: datetime | None
    created_at: datetime
    updated_at: datetime | None
    chain_pem: str | None = field(default=None, repr=False)


def parse_filter(text: str) -> list[Clause]:
    """Read a filter expression over the inventory's columns.

    Raises:
        InvalidRequest: it cannot be read, or names a field that is not there.
    """
    return parse(text, FIELDS, ALIASES)


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
        after: only locations behind this one; goes on where an earlier page,
            sorted by location, ended.

    Raises:
        InvalidRequest: there is no such column.
    """
    relation = rows()
    query = select(relation).where(*(condition(relation, clause) for clause in filters))
    if after:
        query = query.where(relation.c.location > after)
    query = query.order_by(*order(relation, sort)).limit(limit)
    with transaction() as connection:
        return [_read(row) for row in connection.execute(query)]


def count(filters: Sequence[Clause] = ()) -> int:
    """Return how many endpoints all of *filters* hold for."""
    relation = rows()
    query = select(func.count()).select_from(relation)
    with transaction() as connection:
        return connection.execute(
            query.where(*(condition(relation, clause) for clause in filters))
        ).scalar_one()


def locations(filters: Sequence[Clause] = ()) -> list[tuple[UUID, str]]:
    """Return id and location of the endpoints that all of *filters* hold for, sorted."""
    relation = rows()
    query = select(relation.c.id, relation.c.location).order_by(relation.c.location)
    with transaction() as connection:
        found = connection.execute(query.where(*(condition(relation, c) for c in filters)))
        return [(row.id, row.location) for row in found]


def get(location: str) -> Detail:
    """Return all that is known of one endpoint.

    Raises:
        NotFound: the inventory has none of that location.
    """
    relation = rows()
    with transaction() as connection:
        row = connection.execute(
            select(relation).where(relation.c.location == location.lower())
        ).first()
        if row is None:
            raise unknown(location, connection)
        more = connection.execute(
            select(endpoints, profiles.c.settings.label("profile_settings"))
            .select_from(endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id))
            .where(endpoints.c.id == row.id)
        ).one()
        chain_pem = connection.execute(
            select(certificates.c.chain_pem).where(certificates.c.fingerprint == row.fingerprint)
        ).scalar()
    return Detail(
        row=_read(row),
        addresses=tuple(more.addresses),
        sni=more.sni,
        starttls=more.starttls,
        server=more.server,
        settings=more.profile_settings,
        certificate_id=more.certificate_id,
        observed=more.observed,
        observed_at=more.observed_at,
        created_at=more.created_at,
        updated_at=more.updated_at,
        chain_pem=chain_pem,
    )


def unknown(location: str, connection: Connection) -> NotFound:
    """Return the error for a location that the inventory does not have, with the nearest one."""
    near = _near(location.lower(), connection)
    return NotFound(
        f"the inventory has no endpoint {location}",
        remedy=(f"Did you mean {near}? " if near else "")
        + "`certrail endpoint list` shows all; add it with `certrail apply`.",
    )


def _near(location: str, connection: Connection) -> str | None:
    host = location.split(":", maxsplit=1)[0]
    listed = select(endpoints.c.location).order_by(endpoints.c.location).limit(_CANDIDATES)
    contained = listed.where(endpoints.c.location.icontains(host, autoescape=True))
    found: str | None = connection.execute(contained).scalars().first()
    if found:
        return found
    # A slip in one label of the name: look among those of the same domain.
    tail = host.partition(".")[2] or host[:3]
    some = connection.execute(
        listed.where(endpoints.c.location.icontains(tail, autoescape=True))
    ).scalars()
    return next(iter(get_close_matches(location, list(some), n=1)), None)


def _read(row: Row[Any]) -> Endpoint:
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
        security_findings=_findings(row.observed),
        flow_run_id=row.flow_run_id,
    )


def _findings(observed: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], ...]:
    """Return the findings of endpoint and addresses, each once."""
    if not observed:
        return ()
    found = list(observed.get("findings") or ())
    for address in observed.get("addresses") or ():
        found += address.get("findings") or ()
    return tuple({str(sorted(finding.items())): finding for finding in found}.values())
