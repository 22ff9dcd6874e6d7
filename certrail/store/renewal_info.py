"""When a CA wants its certificates renewed (RFC 9773): what it said last, and when to ask again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from certrail.model import Chain, RenewalInfo
from certrail.store.database import transaction
from certrail.store.schema import certificates, connectors, endpoints, profiles, renewal_info


@dataclass(frozen=True, slots=True)
class Question:
    """A certificate that its CA is to be asked about.

    Attributes:
        ca: the connector's reference, ``slug/name``.
    """

    certificate_id: UUID
    ca: str
    chain: Chain


def questions(now: datetime, limit: int) -> list[Question]:
    """Return the certificates in use whose CA may be asked (again) by now."""
    use_ari = func.coalesce(profiles.c.settings["renew"]["use_ari"].as_boolean(), true())
    auto = func.coalesce(
        endpoints.c.auto_renew, profiles.c.settings["renew"]["auto"].as_boolean(), true()
    )
    query = (
        select(certificates.c.id, certificates.c.chain_pem, connectors.c.slug, connectors.c.name)
        .select_from(
            endpoints.join(profiles, endpoints.c.profile_id == profiles.c.id)
            .join(certificates, endpoints.c.certificate_id == certificates.c.id)
            .join(connectors, connectors.c.name == certificates.c.ca)
            .outerjoin(renewal_info, renewal_info.c.certificate_id == certificates.c.id)
        )
        .where(
            # Of all connectors only these speak ACME.
            connectors.c.slug == "ca-acme",
            profiles.c.ca == certificates.c.ca,
            certificates.c.not_after > now,
            use_ari,
            auto,
            or_(renewal_info.c.ask_again_at.is_(None), renewal_info.c.ask_again_at <= now),
        )
        .order_by(renewal_info.c.ask_again_at.asc().nulls_first())
        .limit(limit)
    )
    with transaction() as connection:
        return [
            Question(row.id, f"{row.slug}/{row.name}", Chain.from_pem(row.chain_pem))
            for row in connection.execute(query)
        ]


def keep(
    certificate_id: UUID,
    info: RenewalInfo | None,
    now: datetime,
    again: datetime,
    error: str | None = None,
) -> bool:
    """Store the CA's answer; None where it suggests nothing. Returns whether the window moved.

    A failed attempt (*error*) leaves the last known window in force.
    """
    values: dict[str, object] = {"asked_at": now, "ask_again_at": again, "error": error}
    if error is None:
        values |= {
            "window_start": info.start if info else None,
            "window_end": info.end if info else None,
            "explanation_url": info.explanation_url if info else "",
        }
    with transaction() as connection:
        before = connection.execute(
            select(renewal_info.c.window_start, renewal_info.c.window_end)
            .where(renewal_info.c.certificate_id == certificate_id)
            .with_for_update()
        ).first()
        connection.execute(
            insert(renewal_info)
            .values(certificate_id=certificate_id, **values)
            .on_conflict_do_update(index_elements=["certificate_id"], set_=values)
        )
        was = (before.window_start, before.window_end) if before else (None, None)
        is_ = (info.start, info.end) if info else (None, None)
        moved = error is None and was != is_
        if moved:
            connection.execute(
                update(endpoints)
                .where(endpoints.c.certificate_id == certificate_id)
                .values(renewal_decided_at=None)
            )
    return moved
