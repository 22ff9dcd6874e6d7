"""What scans saw: certificates served, at endpoints that are known or new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Text, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from certrail.configuration import EndpointConfig
from certrail.model import Chain
from certrail.store import audit, certificates, configured
from certrail.store.database import transaction
from certrail.store.schema import endpoints, profiles


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint that is known at a scanned address.

    Attributes:
        addresses: where it is reached; empty for its location.
    """

    id: UUID
    location: str
    addresses: tuple[str, ...]
    sni: str | None
    starttls: str | None
    trust_pem: str | None = None


def place_of(text: str) -> Place | None:
    """Return the endpoint of that location, None if it is not known."""
    with transaction() as connection:
        row = connection.execute(
            select(endpoints, profiles.c.settings["trust_pem"].astext.label("trust_pem"))
            .select_from(endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id))
            .where(endpoints.c.location == text.lower())
        ).first()
    if row is None:
        return None
    return Place(
        id=row.id,
        location=row.location,
        addresses=tuple(row.addresses),
        sni=row.sni,
        starttls=row.starttls,
        trust_pem=row.trust_pem,
    )


def keep(address: str, seen: Mapping[str, Any], chain: Chain | None) -> str | None:
    """Keep what was seen at *address*; an unknown address that serves a certificate is added.

    Args:
        address: ``host:port``: a location, or one of an endpoint's addresses.
        seen: plain data for the inventory.
        chain: what was presented, None if nothing was.

    Returns:
        The endpoint's location; None where nothing was kept.
    """
    with transaction() as connection:
        found = connection.execute(
            select(endpoints.c.id, endpoints.c.location)
            .where(
                or_(
                    endpoints.c.location == address.lower(),
                    endpoints.c.addresses.contains(literal([address], ARRAY(Text))),
                )
            )
            .order_by((endpoints.c.location == address.lower()).desc(), endpoints.c.location)
            .limit(1)
        ).first()
        if chain is None:
            return found.location if found else None
        certificates.save(connection, chain)
        if found is None:
            return _add(connection, address.lower(), seen)
        # What serves several endpoints showed one of them, and nobody knows
        # which: without their names the scan says nothing about each.
        if found.location == address.lower():
            _observe(connection, found.id, seen)
        return str(found.location)


def keep_for(place: Place, seen: Mapping[str, Any], chain: Chain | None) -> None:
    """Keep what was seen at a known endpoint; nothing where no certificate was presented."""
    if chain is None:
        return
    with transaction() as connection:
        certificates.save(connection, chain)
        _observe(connection, place.id, seen)


def add_site(wanted: EndpointConfig) -> bool:
    """Add a site that a target serves as an endpoint; False if its location is known."""
    with transaction() as connection:
        if configured.stored_endpoints(connection, [wanted.location]):
            return False
        configured.apply_endpoints(connection, [wanted], audit.local_actor())
    return True


def _add(connection: Connection, location: str, seen: Mapping[str, Any]) -> str:
    connection.execute(
        insert(endpoints).values(
            location=location,
            starttls=seen.get("starttls") if seen.get("starttls") != "none" else None,
            observed=dict(seen),
            observed_at=func.now(),
        )
    )
    audit.note(connection, audit.local_actor(), "endpoint.found", location)
    return location


def _observe(connection: Connection, endpoint_id: UUID, seen: Mapping[str, Any]) -> None:
    connection.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint_id)
        .values(observed=dict(seen), observed_at=func.now())
    )
