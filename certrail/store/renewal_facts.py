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
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.errors import InvalidRequest
from certrail.model import Action
from certrail.renewal.due import Facts, Held, Suggestion, Terms
from certrail.renewal.pause import Past, Undone
from certrail.store import plans
from certrail.store.database import transaction
from certrail.store.plans import Prepared
from certrail.store.reasons import is_automatic
from certrail.store.request_ends import ROLLED_BACK
from certrail.store.schema import certificates, endpoints, renewal_info
from certrail.store.schema import requests as table
from certrail.tracker import AUTOMATIC_REASONS, FAILED, SUCCESSFUL, Status

HELD_BECAUSE = ("operator", "denied", ROLLED_BACK)
"""What ended a request after which the endpoint does not renew by itself."""
RELEASED = "released"
"""What such an end becomes when somebody lets the endpoint renew by itself again."""
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
        select(table.c.plan, table.c.reason_code)
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
    present = table.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id)
    # Whoever made it: what failed for a person a minute ago fails for the policy too.
    newest = (
        select(
            table.c.status,
            table.c.reason_code,
            table.c.reason_message,
            table.c.ended_at,
            table.c.run_count,
        )
        .where(
            mine,
            present,
            or_(table.c.status.in_(FAILED), table.c.ended_because == "approval-expired"),
        )
        .order_by(table.c.ended_at.desc().nulls_last())
        .limit(1)
        .lateral("newest")
    )
    failures = (
        select(func.sum(func.greatest(table.c.run_count, 1)))
        .where(
            mine,
            present,
            table.c.status.in_(FAILED),
            func.coalesce(table.c.ended_at > endpoints.c.last_success_at, True),
        )
        .correlate(endpoints)
        .scalar_subquery()
    )
    undone = (
        select(table.c.reason_message, table.c.ended_at)
        .where(
            mine,
            present,
            ~AUTOMATIC,
            table.c.status == Status.CANCELLED,
            func.coalesce(table.c.ended_because, "").not_in(("approval-expired", RELEASED)),
        )
        .order_by(table.c.ended_at.desc().nulls_last())
        .limit(1)
        .lateral("undone")
    )
    held = exists().where(
        mine,
        AUTOMATIC,
        table.c.status == Status.CANCELLED,
        table.c.ended_because.in_(HELD_BECAUSE),
        present,
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
            present,
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
            newest.c.status.label("newest_status"),
            newest.c.reason_code.label("newest_reason"),
            newest.c.ended_at.label("newest_ended"),
            newest.c.run_count.label("newest_runs"),
            newest.c.reason_message.label("newest_message"),
            failures.label("failures"),
            undone.c.reason_message.label("undone_message"),
            undone.c.ended_at.label("undone_at"),
            held.label("held"),
            went_back.label("went_back"),
            unanswered.label("unanswered"),
        )
        .select_from(
            endpoints.outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
            .outerjoin(renewal_info, renewal_info.c.certificate_id == certificates.c.id)
            .outerjoin(ordered, literal(True))
            .outerjoin(newest, literal(True))
            .outerjoin(undone, literal(True))
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
        obtained_for=row.ordered_reason or "",
        past=_past(row),
        undone=Undone(row.undone_at, _before(row.undone_message)) if row.undone_at else None,
    )


def _past(row: Row[Any]) -> Past | None:
    if row.newest_ended is None:
        return None
    if row.newest_status not in FAILED:
        return Past("unanswered", row.newest_ended, row.unanswered + 4)
    failures = max(row.failures or 0, row.newest_runs, 1)
    if row.newest_reason.startswith(AUTOMATIC_REASONS):
        return Past("failed", row.newest_ended, failures)
    return Past("failed", row.newest_ended, failures, _before(row.newest_message))


def _before(reason: str) -> str:
    return f"the request before it ({reason})"


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
