"""Which renewals come due, which of the scheduled ones may move, and how full the hours are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Row,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
)

from certrail.renewal.budget import hour_of
from certrail.renewal.due import Code
from certrail.store.database import transaction
from certrail.store.reasons import is_automatic
from certrail.store.renewal_decisions import A_DAY, BY_CRITICALITY
from certrail.store.renewal_facts import AUTOMATIC
from certrail.store.requests import Reason
from certrail.store.schema import certificates, endpoints, profiles
from certrail.store.schema import requests as table
from certrail.tracker import ACTIVE, FAILED, Status


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint whose renewal is to be scheduled, or a renewal that is scheduled.

    Attributes:
        at: when the policy wants it to begin.
        ends: when its certificate ends.
        request_id: of the scheduled renewal; of the failed one that goes on; None for a new one.
        scheduled_at: when the scheduled one begins as things stand, None if none is.
    """

    endpoint_id: UUID
    ca: str
    criticality: str
    at: datetime
    ends: datetime
    reason: Reason
    deadline: datetime | None
    request_id: UUID | None = None
    scheduled_at: datetime | None = None


def due(now: datetime, horizon: timedelta, limit: int) -> list[Candidate]:
    """Return endpoints whose renewal is near and not scheduled yet, the critical ones first.

    A renewal that failed goes on with the same request, once its pause is over.
    What failed for a person, or what a job left undone, is followed by a request
    of the policy's own, and not before it is time: until then it can be retried.
    """
    latest = (
        select(
            table.c.id,
            table.c.status,
            table.c.job_id,
            table.c.previous_certificate_id,
            table.c.reason_code,
        )
        .where(table.c.endpoint_id == endpoints.c.id)
        .order_by(table.c.created_at.desc())
        .limit(1)
        .lateral("latest")
    )
    goes_on = and_(
        latest.c.status.in_(FAILED),
        is_automatic(latest.c.reason_code),
        latest.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
    )
    # A newer request, though it is only planned, would hide it from the job's list and retry.
    stays = or_(
        latest.c.status.in_(FAILED),
        and_(latest.c.status == Status.CANCELLED, latest.c.job_id.is_not(None)),
    )
    query = (
        select(
            endpoints.c.id,
            profiles.c.ca,
            endpoints.c.criticality,
            endpoints.c.next_renewal_at,
            endpoints.c.renewal,
            certificates.c.not_after,
            case((goes_on, latest.c.id)).label("request_id"),
        )
        .select_from(
            endpoints.join(profiles, endpoints.c.profile_id == profiles.c.id)
            .outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
            .outerjoin(latest, literal(True))
        )
        .where(
            endpoints.c.next_renewal_at <= now + horizon,
            endpoints.c.renewal_decided_at.is_not(None),
            ~exists().where(table.c.endpoint_id == endpoints.c.id, table.c.status.in_(ACTIVE)),
            or_(endpoints.c.next_renewal_at <= now, func.coalesce(~stays, True)),
        )
        .order_by(BY_CRITICALITY, endpoints.c.next_renewal_at)
        .limit(limit)
    )
    with transaction() as connection:
        return [_candidate(row, row.request_id, None) for row in connection.execute(query)]


def movable() -> list[Candidate]:
    """Return the scheduled renewals that have not begun and that no operator moved."""
    query = (
        select(
            endpoints.c.id,
            profiles.c.ca,
            endpoints.c.criticality,
            endpoints.c.next_renewal_at,
            endpoints.c.renewal,
            certificates.c.not_after,
            table.c.id.label("request_id"),
            table.c.scheduled_at,
        )
        .select_from(
            table.join(endpoints, table.c.endpoint_id == endpoints.c.id)
            .join(profiles, endpoints.c.profile_id == profiles.c.id)
            .outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
        )
        .where(
            table.c.status == Status.AUTOMATION_SCHEDULED,
            AUTOMATIC,
            ~table.c.is_pinned,
            table.c.waits_for.is_(None),
            endpoints.c.next_renewal_at.is_not(None),
        )
    )
    with transaction() as connection:
        return [
            _candidate(row, row.request_id, row.scheduled_at) for row in connection.execute(query)
        ]


def taken(now: datetime) -> dict[str, Counter[int]]:
    """Return for each CA how many places of each hour are taken by what may not be moved.

    That is what began, and what an operator put there.
    """
    begins = func.coalesce(table.c.started_at, table.c.scheduled_at)
    query = (
        select(profiles.c.ca, begins.label("at"))
        .select_from(
            table.join(endpoints, table.c.endpoint_id == endpoints.c.id).join(
                profiles, endpoints.c.profile_id == profiles.c.id
            )
        )
        .where(
            AUTOMATIC,
            or_(
                and_(table.c.started_at.is_not(None), table.c.started_at > now - A_DAY / 12),
                and_(table.c.status == Status.AUTOMATION_SCHEDULED, table.c.is_pinned),
            ),
        )
    )
    found: dict[str, Counter[int]] = {}
    with transaction() as connection:
        for row in connection.execute(query):
            found.setdefault(row.ca, Counter())[hour_of(row.at)] += 1
    return found


def budgets() -> dict[str, int]:
    """Return how many renewals may begin at each CA in an hour."""
    with transaction() as connection:
        stored = connection.execute(select(profiles.c.ca, profiles.c.settings)).all()
    found: dict[str, int] = {}
    for row in stored:
        most = int((row.settings.get("renew") or {}).get("max_per_hour") or 300)
        found[row.ca] = min(most, found.get(row.ca, most))
    return found


def _candidate(row: Row[Any], request_id: UUID | None, scheduled_at: datetime | None) -> Candidate:
    told = row.renewal or {}
    deadline = told.get("deadline")
    return Candidate(
        endpoint_id=row.id,
        ca=row.ca,
        criticality=row.criticality,
        at=row.next_renewal_at,
        ends=row.not_after or row.next_renewal_at,
        reason=Reason(told.get("code", Code.DUE.value), told.get("message", "")),
        deadline=datetime.fromisoformat(deadline) if deadline else None,
        request_id=request_id,
        scheduled_at=scheduled_at,
    )
