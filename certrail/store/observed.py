"""What scans saw: certificates served, at endpoints that are known or new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Text,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from certrail.configuration.endpoint import EndpointConfig
from certrail.drift import judge
from certrail.model import Chain
from certrail.store import audit, certificates, configured, outbox
from certrail.store.database import transaction
from certrail.store.schema import certificates as certificate_table
from certrail.store.schema import connectors, endpoints, profiles, requests
from certrail.tracker import Status

_DAY = timedelta(days=1)
_TOLD = "drift_told"
"""In what is kept of a look: the foreign certificate that people were told of."""


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint that is known at a scanned address.

    Attributes:
        addresses: where it is reached; empty for its location.
        executor: which agent or sensor alone reaches it, None where this machine does.
    """

    id: UUID
    location: str
    addresses: tuple[str, ...]
    sni: str | None
    starttls: str | None
    trust_pem: str | None = None
    executor: str | None = None


def place_of(text: str) -> Place | None:
    """Return the endpoint of that location, None if it is not known."""
    with transaction() as connection:
        row = connection.execute(_places().where(endpoints.c.location == text.lower())).first()
    return _place(row) if row is not None else None


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
        if found is None:
            certificates.save(connection, chain)
            return _add(connection, address.lower(), seen)
        # What serves several endpoints showed one of them, and nobody knows
        # which: without their names the scan says nothing about each.
        if found.location == address.lower():
            _observe(connection, found.id, [(seen, chain)])
        else:
            certificates.save(connection, chain)
        return str(found.location)


def keep_for(place: Place, answers: Sequence[tuple[Mapping[str, Any], Chain | None]]) -> bool:
    """Keep what the addresses of a known endpoint presented; nothing where none presented any.

    Returns whether another certificate than ours is served there, and was not before.
    """
    presented = [(seen, chain) for seen, chain in answers if chain is not None]
    if not presented:
        return False
    with transaction() as connection:
        return _observe(connection, place.id, presented)


def known(limit: int, executor: str | None = None) -> list[Place]:
    """Return endpoints that can be looked at, in no order: behind *executor*, or behind none."""
    query = _places().where(_EXECUTOR.is_not_distinct_from(executor), _HAS_ADDRESS)
    with transaction() as connection:
        found = connection.execute(query.order_by(func.random()).limit(limit))
        return [_place(row) for row in found]


def behind() -> list[str]:
    """Return the executors that alone reach endpoints which can be looked at, by name."""
    joined = endpoints.outerjoin(connectors, endpoints.c.target == connectors.c.name)
    query = (
        select(_EXECUTOR)
        .select_from(joined)
        .where(_EXECUTOR.is_not(None), _HAS_ADDRESS)
        .distinct()
        .order_by(_EXECUTOR)
    )
    with transaction() as connection:
        return list(connection.execute(query).scalars())


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


def _observe(
    connection: Connection, endpoint_id: UUID, answers: Sequence[tuple[Mapping[str, Any], Chain]]
) -> bool:
    for _, chain in answers:
        certificates.save(connection, chain)
    busy = exists().where(
        requests.c.endpoint_id == endpoints.c.id, requests.c.status == Status.IN_PROGRESS
    )
    row = connection.execute(
        select(
            endpoints.c.location,
            endpoints.c.observed,
            endpoints.c.observed_at,
            certificate_table.c.fingerprint,
            busy.label("is_busy"),
            func.now().label("now"),
        )
        .select_from(
            endpoints.outerjoin(
                certificate_table, endpoints.c.certificate_id == certificate_table.c.id
            )
        )
        .where(endpoints.c.id == endpoint_id)
        .with_for_update(of=endpoints)
    ).first()
    if row is None:
        return False
    before = row.observed or {}
    drift = judge(
        [chain.fingerprint for _, chain in answers],
        ours=row.fingerprint or "",
        told=before.get(_TOLD, ""),
        is_busy=row.is_busy,
    )
    seen, chain = answers[drift.index]
    now_seen = {**seen, _TOLD: drift.told} if drift.told else dict(seen)
    # The same again is written once a day: each write lets the renewal be decided anew.
    if now_seen != before or row.observed_at is None or row.now - row.observed_at > _DAY:
        connection.execute(
            update(endpoints)
            .where(endpoints.c.id == endpoint_id)
            .values(observed=now_seen, observed_at=func.now())
        )
    if drift.is_new:
        leaf = chain.leaf
        outbox.put(
            connection,
            "certrail.certificate.drifted",
            row.location,
            detail="another certificate is served than the one that was installed",
            seen_at=str(seen.get("address", "")),
            served=chain.fingerprint,
            installed=row.fingerprint,
            issued_by=certificates.issuer_text(leaf),
            expires=leaf.not_valid_after_utc.isoformat(),
        )
    return drift.is_new


# The endpoint's own counts before that of its target.
_EXECUTOR = func.coalesce(endpoints.c.executor, connectors.c.executor)
_HAS_ADDRESS = or_(
    func.cardinality(endpoints.c.addresses) > 0,
    endpoints.c.location.regexp_match("^[^/]+:[0-9]+$"),
)


def _places() -> Select[Any]:
    return select(
        endpoints,
        profiles.c.settings["trust_pem"].astext.label("trust_pem"),
        _EXECUTOR.label("only"),
    ).select_from(
        endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id).outerjoin(
            connectors, endpoints.c.target == connectors.c.name
        )
    )


def _place(row: Row[Any]) -> Place:
    return Place(
        id=row.id,
        location=row.location,
        addresses=tuple(row.addresses),
        sni=row.sni,
        starttls=row.starttls,
        trust_pem=row.trust_pem,
        executor=row.only,
    )
