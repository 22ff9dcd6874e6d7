"""The page of one endpoint: everything that is known of it, and what to say of an unknown one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from certrail.errors import NotFound
from certrail.store.database import transaction
from certrail.store.inventory import Endpoint, read
from certrail.store.inventory_query import rows
from certrail.store.schema import certificates, endpoints, profiles

_CANDIDATES = 500


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
        auto_renew: whether it renews by itself; None: as the profile says.
        executor: the agent or sensor that reaches it, None if any does.
        renewal: why and when it renews, as the sweep decided last.
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
    auto_renew: bool | None = None
    executor: str | None = None
    renewal: Mapping[str, Any] | None = None
    chain_pem: str | None = field(default=None, repr=False)


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
        row=read(row),
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
        auto_renew=more.auto_renew,
        executor=row.executor,
        renewal=more.renewal,
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
