"""How an automation request is made, with its steps, and what gives way to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    Connection,
    func,
    insert,
    update,
)
from sqlalchemy.exc import IntegrityError

from certrail.configuration.plan import Plan
from certrail.errors import Conflict
from certrail.model import Action
from certrail.store import asked_approvals, audit, outbox
from certrail.store.database import transaction
from certrail.store.reasons import is_automatic
from certrail.store.requests import Reason, Request, announce, get
from certrail.store.schema import requests, steps
from certrail.tracker import STEPS, Status, StepStatus
from certrail.words import quoted

ONE_ACTIVE = "uq_requests_one_active_for_each_endpoint"
"""The index that keeps an endpoint from having two active requests."""


def create(
    endpoint_id: UUID,
    *,
    action: Action,
    plan: Plan,
    reason: Reason,
    actor: str,
    scheduled_at: datetime | None = None,
    job_id: UUID | None = None,
    previous_certificate_id: UUID | None = None,
    certificate_id: UUID | None = None,
) -> Request:
    """Store a new request with its pending steps.

    Raises:
        Conflict: the endpoint has an active request already.
    """
    try:
        with transaction() as connection:
            request_id = add(
                connection,
                endpoint_id,
                action=action,
                plan=plan,
                reason=reason,
                actor=actor,
                scheduled_at=scheduled_at,
                job_id=job_id,
                previous_certificate_id=previous_certificate_id,
                certificate_id=certificate_id,
            )
    except IntegrityError as exc:
        raise conflict(exc, plan.location) from exc
    return get(request_id)


def add(
    connection: Connection,
    endpoint_id: UUID,
    *,
    action: Action,
    plan: Plan,
    reason: Reason,
    actor: str,
    scheduled_at: datetime | None = None,
    job_id: UUID | None = None,
    previous_certificate_id: UUID | None = None,
    certificate_id: UUID | None = None,
) -> UUID:
    """Store a new request in the caller's transaction; see :func:`create`.

    Raises:
        IntegrityError: the endpoint has an active request already.
    """
    asked = plan.approval if action.obtains else None
    status = (
        Status.APPROVAL_PENDING
        if asked
        else Status.AUTOMATION_SCHEDULED
        if scheduled_at
        else Status.AUTOMATION_REQUESTED
    )
    if not reason.is_automatic:
        supersede(connection, [endpoint_id], actor)
    request_id: UUID = connection.execute(
        insert(requests)
        .values(
            endpoint_id=endpoint_id,
            job_id=job_id,
            workflow=plan.workflow,
            action=action,
            status=status,
            reason_code=reason.code,
            reason_message=reason.message,
            requested_by=actor,
            plan=plan.model_dump(mode="json"),
            scheduled_at=scheduled_at,
            told_at=scheduled_at,
            certificate_id=certificate_id,
            previous_certificate_id=previous_certificate_id,
            approval=asked.model_dump(mode="json") if asked else None,
            approval_until=func.now() + timedelta(hours=asked.expires_hours) if asked else None,
        )
        .returning(requests.c.id)
    ).scalar_one()
    # One statement: the driver sends many at once in a way that waits for the network.
    connection.execute(
        insert(steps).values(
            [
                {
                    "request_id": request_id,
                    "number": number,
                    "title": title,
                    "status": StepStatus.PENDING,
                }
                for number, title in enumerate(STEPS[plan.workflow], start=1)
            ]
        )
    )
    audit.note(
        connection,
        actor,
        "request.start",
        plan.location,
        {"request_id": str(request_id), "action": str(action), "reason": reason.code},
    )
    if asked:
        asked_approvals.tell(connection, [request_id])
    elif scheduled_at:
        outbox.put(
            connection,
            "certrail.request.scheduled",
            plan.location,
            request_id=request_id,
            scheduled_at=scheduled_at.isoformat(),
        )
    return request_id


def supersede(connection: Connection, endpoint_ids: Sequence[UUID], actor: str) -> None:
    """End the renewals that are scheduled: what a person asks for takes their place."""
    ended = connection.execute(
        update(requests)
        .where(
            requests.c.endpoint_id.in_(endpoint_ids),
            requests.c.status.in_((Status.AUTOMATION_SCHEDULED, Status.APPROVAL_PENDING)),
            is_automatic(requests.c.reason_code),
            # One that has its certificate already goes on: a second order would be waste.
            requests.c.certificate_id.is_(None),
        )
        .values(
            status=Status.CANCELLED,
            ended_at=func.now(),
            ended_because="superseded",
            waits_for="prefect",
        )
        .returning(requests.c.id)
    ).all()
    for row in ended:
        connection.execute(
            update(steps)
            .where(steps.c.request_id == row.id, steps.c.status == StepStatus.PENDING)
            .values(status=StepStatus.CANCELLED)
        )
        audit.note(connection, actor, "request.superseded", str(row.id))
        announce(
            connection,
            row.id,
            "certrail.request.cancelled",
            status=str(Status.CANCELLED),
            detail=f"a request of {actor} took its place",
        )


def conflict(exc: IntegrityError, location: str) -> Exception:
    """Return what to raise for a broken constraint: a clear error where it is a known one."""
    if ONE_ACTIVE in str(exc.orig):
        return Conflict(
            f"{location} has an active request already",
            remedy=f"Follow it with `certrail request show {quoted(location)}`, "
            "or cancel it first.",
        )
    return exc
