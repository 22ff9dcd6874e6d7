"""What the renewal policy has to know of an endpoint, read for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Row,
    any_,
    exists,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.errors import InvalidRequest
from certrail.model import Action
from certrail.renewal.due import Facts, Held, Past, Suggestion, Terms
from certrail.store import plans
from certrail.store.database import transaction
from certrail.store.plans import Prepared
from certrail.store.reasons import is_automatic
from certrail.store.request_ends import ROLLED_BACK
from certrail.store.schema import certificates, endpoints, renewal_info
from certrail.store.schema import requests as table
from certrail.tracker import FAILED, SUCCESSFUL, Status

HELD_BECAUSE = ("operator", "denied", ROLLED_BACK)
"""What ended a request after which the endpoint does not renew by itself."""
AUTOMATIC = is_automatic(table.c.reason_code)


@dataclass(frozen=True, slots=True)
class Known:
    """One endpoint as the policy sees it.

    Attributes:
        prepared: how a request for it would be made.
        certificate_id: the certificate it has from us.
    """

    endpoint_id: UUID
    location: str
    prepared: Prepared
    certificate_id: UUID | None
    facts: Facts


def look(ids: Sequence[UUID]) -> dict[UUID, Known | InvalidRequest]:
    """Return what the policy has to know of endpoints, or why they cannot be renewed."""
    prepared = plans.for_endpoints(ids)
    found: dict[UUID, Known | InvalidRequest] = {}
    with transaction() as connection:
        rows = connection.execute(_facts(ids)).all()
    for row in rows:
        ready = prepared.get(row.endpoint_id)
        if isinstance(ready, InvalidRequest):
            found[row.endpoint_id] = ready
        elif ready is not None:
            found[row.endpoint_id] = Known(
                row.endpoint_id, row.location, ready, row.id, _read_facts(row, ready)
            )
    return found


def _facts(ids: Sequence[UUID]) -> Any:
    mine = table.c.endpoint_id == endpoints.c.id
    ordered = (
        select(table.c.plan, table.c.reason_code, table.c.ended_at)
        .where(
            mine,
            table.c.certificate_id == endpoints.c.certificate_id,
            table.c.status.in_(SUCCESSFUL),
            table.c.action.not_in((Action.REDEPLOY, Action.ROLLBACK)),
        )
        .order_by(table.c.created_at.desc())
        .limit(1)
        .lateral("ordered")
    )
    newest = (
        select(
            table.c.status,
            table.c.reason_code,
            table.c.ended_at,
            table.c.run_count,
            table.c.ended_because,
        )
        .where(
            mine,
            AUTOMATIC,
            table.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
        )
        .order_by(table.c.created_at.desc())
        .limit(1)
        .lateral("newest")
    )
    held = exists().where(
        mine,
        AUTOMATIC,
        table.c.status == Status.CANCELLED,
        table.c.ended_because.in_(HELD_BECAUSE),
        table.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
    )
    # What was taken back on purpose must not come again with the next sweep.
    went_back = exists().where(
        mine,
        table.c.is_latest,
        table.c.action == Action.ROLLBACK,
        table.c.ended_because == ROLLED_BACK,
    )
    unanswered = (
        select(func.count())
        .where(
            mine,
            table.c.ended_because == "approval-expired",
            table.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
        )
        .correlate(endpoints)
        .scalar_subquery()
    )
    return (
        select(
            endpoints.c.id.label("endpoint_id"),
            endpoints.c.location,
            endpoints.c.auto_renew,
            endpoints.c.observed,
            endpoints.c.observed_at,
            endpoints.c.last_success_at,
            certificates.c.id,
            certificates.c.fingerprint,
            certificates.c.names.label("certificate_names"),
            certificates.c.key_kind,
            certificates.c.issuer,
            certificates.c.ca,
            certificates.c.not_before,
            certificates.c.not_after,
            certificates.c.revoked_at,
            renewal_info.c.window_start,
            renewal_info.c.window_end,
            renewal_info.c.explanation_url,
            ordered.c.plan.label("ordered_plan"),
            ordered.c.reason_code.label("ordered_reason"),
            ordered.c.ended_at.label("ordered_at"),
            newest.c.status.label("newest_status"),
            newest.c.reason_code.label("newest_reason"),
            newest.c.ended_at.label("newest_ended"),
            newest.c.run_count.label("newest_runs"),
            newest.c.ended_because.label("newest_because"),
            held.label("held"),
            went_back.label("went_back"),
            unanswered.label("unanswered"),
        )
        .select_from(
            endpoints.outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
            .outerjoin(renewal_info, renewal_info.c.certificate_id == certificates.c.id)
            .outerjoin(ordered, literal(True))
            .outerjoin(newest, literal(True))
        )
        .where(endpoints.c.id == any_(literal(list(ids), ARRAY(UUID_))))
    )


def _read_facts(row: Row[Any], ready: Prepared) -> Facts:
    plan = ready.plan
    auto = ready.profile.renew.auto if row.auto_renew is None else row.auto_renew
    held = None
    if row.id is not None:
        held = Held(
            fingerprint=row.fingerprint,
            names=frozenset(row.certificate_names),
            key_kind=row.key_kind,
            issuer=row.issuer,
            not_before=row.not_before,
            not_after=row.not_after,
            revoked_at=row.revoked_at,
        )
    return Facts(
        held=held,
        wanted=_terms(plan.model_dump(mode="json")),
        ordered=_terms(row.ordered_plan) if row.ordered_plan else None,
        suggestion=Suggestion(row.window_start, row.window_end, row.explanation_url)
        # Only the CA that issued it knows when to renew it.
        if row.window_start is not None and row.ca == plan.ca.name
        else None,
        is_gone=_is_gone(row),
        auto=auto,
        cancelled_by="a rollback" if row.went_back else "an operator" if row.held else "",
        past=_past(row),
    )


def _past(row: Row[Any]) -> Past | None:
    if row.newest_status in FAILED and row.newest_ended is not None:
        return Past(row.newest_reason, "failed", row.newest_ended, max(row.newest_runs, 1))
    if row.newest_because == "approval-expired" and row.newest_ended is not None:
        return Past(row.newest_reason, "unanswered", row.newest_ended, row.unanswered + 4)
    if row.ordered_reason and row.ordered_at is not None:
        return Past(row.ordered_reason, "succeeded", row.ordered_at)
    return None


def _is_gone(row: Row[Any]) -> bool:
    if not row.observed or row.last_success_at is None or row.observed_at is None:
        return False
    found = row.observed.get("findings") or ()
    return row.observed_at > row.last_success_at and any(
        isinstance(one, dict) and one.get("code") == "no-certificate" for one in found
    )


def _terms(plan: dict[str, Any]) -> Terms:
    return Terms(
        names=frozenset(plan["names"]),
        ca=plan["ca"]["name"],
        ca_profile=plan.get("ca_profile") or "",
        key_algorithm=plan.get("key_algorithm") or "",
    )
