"""Which endpoints are to be decided anew, what was decided, and who holds it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
    update,
)

from certrail.renewal.due import Code, Decision
from certrail.store import audit, endpoint_detail
from certrail.store.database import transaction
from certrail.store.renewal_facts import HELD_BECAUSE, RELEASED
from certrail.store.schema import certificates, endpoints, profiles
from certrail.store.schema import requests as table

A_DAY = timedelta(days=1)

# Decisions follow what changes; this is for what nobody thought of.
# Whatever was missed is made good the same day.
_LOOK_AGAIN = timedelta(hours=12)

BY_CRITICALITY = case(
    {"critical": 0, "high": 1, "normal": 2, "low": 3}, value=endpoints.c.criticality, else_=2
)


# PostgreSQL's name for the transaction that wrote a row last (its manual, "System Columns").
_VERSION = cast(literal_column("endpoints.xmin"), Text)
_KEEP = (
    update(endpoints)
    .where(
        endpoints.c.id == bindparam("endpoint_id"),
        func.coalesce(bindparam("version", type_=Text), _VERSION) == _VERSION,
    )
    .values(
        next_renewal_at=bindparam("at"),
        renewal=bindparam("told"),
        renewal_decided_at=bindparam("decided"),
    )
)


def undecided(now: datetime, limit: int) -> dict[UUID, str]:
    """Return endpoints of which something changed since their renewal was decided last.

    Each with the version of its row, for :func:`keep`.
    """
    decided = endpoints.c.renewal_decided_at
    revoked = select(certificates.c.id).where(
        certificates.c.revoked_at.is_not(None), certificates.c.revoked_at > now - A_DAY
    )
    query = (
        select(endpoints.c.id, _VERSION)
        .select_from(endpoints.join(profiles, endpoints.c.profile_id == profiles.c.id))
        .where(
            or_(
                decided.is_(None),
                decided < now - _LOOK_AGAIN,
                endpoints.c.updated_at > decided,
                endpoints.c.observed_at > decided,
                # A request tests the endpoint before it ends: decided in between, the
                # decision knew nothing of the certificate that it brought.
                endpoints.c.last_success_at > decided,
                profiles.c.updated_at > decided,
                and_(
                    endpoints.c.certificate_id.in_(revoked),
                    func.coalesce(endpoints.c.renewal["code"].astext, "") != Code.REVOKED.value,
                ),
            )
        )
        .order_by(decided.asc().nulls_first(), BY_CRITICALITY)
        .limit(limit)
    )
    with transaction() as connection:
        return {row.id: version for row in connection.execute(query) for version in row[1:]}


def keep(
    decisions: Iterable[tuple[UUID, Decision]], now: datetime, versions: Mapping[UUID, str]
) -> None:
    """Store decisions: the moment, the reason, and that they were made *now*.

    One whose endpoint changed since its version was read is left out: it was
    made from what is no longer so, and is made anew in the next turn.
    """
    values = [
        {
            "endpoint_id": one,
            "at": decision.at,
            "told": _to_json(decision),
            "decided": now,
            "version": versions.get(one),
        }
        # In one order, as whoever else locks several of them does: none waits for the other.
        for one, decision in sorted(decisions, key=lambda pair: pair[0])
    ]
    if values:
        with transaction() as connection:
            connection.execute(_KEEP, values)


def hold(location: str, wanted: bool | None, actor: str) -> None:
    """Switch automatic renewal on, off, or to what the profile says (None).

    Switched on, a renewal that was called off comes back.

    Raises:
        NotFound: there is no such endpoint.
    """
    with transaction() as connection:
        row = connection.execute(
            update(endpoints)
            .where(endpoints.c.location == location.lower())
            .values(auto_renew=wanted, updated_at=func.now(), renewal_decided_at=None)
            .returning(endpoints.c.id, endpoints.c.location)
        ).first()
        if row is None:
            raise endpoint_detail.unknown(location, connection)
        if wanted is not False:
            connection.execute(
                update(table)
                .where(table.c.endpoint_id == row.id, table.c.ended_because.in_(HELD_BECAUSE))
                .values(ended_because=RELEASED)
            )
        word = {True: "on", False: "off", None: "default"}[wanted]
        audit.note(connection, actor, "endpoint.auto-renew", row.location, {"to": word})


def _to_json(decision: Decision) -> dict[str, Any]:
    return {
        "code": decision.code.value,
        "message": decision.message,
        "at": decision.at.isoformat() if decision.at else None,
        "deadline": decision.deadline.isoformat() if decision.deadline else None,
        "pause": {
            "code": paused.code.value,
            "message": paused.message,
            "until": paused.until.isoformat(),
        }
        if (paused := decision.pause)
        else None,
    }
