"""How a request ends, is asked to stop, and is opened again."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, exists, func, select, update
from sqlalchemy.exc import IntegrityError

from certrail.configuration.plan import Plan
from certrail.errors import InvalidRequest
from certrail.model import Action
from certrail.store import asked_approvals, audit, clock
from certrail.store import steps as store_steps
from certrail.store.database import transaction
from certrail.store.new_requests import conflict
from certrail.store.request_schedule import ELSEWHERE
from certrail.store.requests import Request, announce, get
from certrail.store.schema import certificates, endpoints, orders, requests, steps
from certrail.tracker import ACTIVE, SUCCESSFUL, Status, StepStatus
from certrail.words import quoted

ROLLED_BACK = "rolled-back"
"""Why nothing follows a rollback by itself: what was taken back is not to come again."""


def open_again(
    connection: Connection, request_id: UUID, plan: Plan, actor: str, at: datetime
) -> None:
    """Schedule a failed request anew in the caller's transaction; finished steps stay finished.

    What was ordered stands for its names and its key, as in a retry by hand.
    """
    live = exists().where(orders.c.request_id == request_id, ~orders.c.is_dead)
    row = connection.execute(
        select(requests.c.plan, requests.c.certificate_id, live.label("is_ordered")).where(
            requests.c.id == request_id
        )
    ).one()
    if row.certificate_id is not None or row.is_ordered:
        plan = plan.as_ordered(Plan.model_validate(row.plan))
    connection.execute(
        update(requests)
        .where(
            requests.c.id == request_id,
            requests.c.status.in_((Status.AUTOMATION_FAILED, Status.ACTION_REQUIRED)),
        )
        .values(
            status=Status.AUTOMATION_SCHEDULED,
            cancel_requested=False,
            plan=plan.model_dump(mode="json"),
            started_at=None,
            ended_at=None,
            ended_because=None,
            scheduled_at=at,
            told_at=None,
        )
    )
    store_steps.again(connection, [request_id])
    audit.note(connection, actor, "request.retry", plan.location, {"request_id": str(request_id)})


def finish(
    request_id: UUID, owner: str, status: Status, *, because: str | None = None, **payload: Any
) -> None:
    """End a run: set the final status, free the lease, note the event. Twice is quiet.

    Only the run that holds the request can; with "" as *owner*, only while nobody does.
    *because* says what ended it, when that was neither its work nor a person.
    """
    event = {
        Status.AUTOMATION_SUCCESSFUL: "certrail.request.completed",
        Status.CERTIFICATE_DELIVERED: "certrail.request.completed",
        Status.CANCELLED: "certrail.request.cancelled",
    }.get(status, "certrail.request.failed")
    with transaction() as connection:
        row = connection.execute(
            update(requests)
            .where(
                requests.c.id == request_id,
                requests.c.status.in_(ACTIVE),
                # A run that lost its lease must not end what waits for the next one.
                requests.c.lease_owner == owner if owner else requests.c.lease_owner.is_(None),
            )
            .values(
                status=status,
                lease_owner=None,
                lease_until=None,
                ended_at=func.now(),
                waits_for="prefect" if because in ELSEWHERE else None,
                ended_because=func.coalesce(because, requests.c.ended_because)
                if status is Status.CANCELLED
                else None,
            )
            .returning(requests.c.endpoint_id, requests.c.certificate_id, requests.c.action)
        ).first()
        if row is None:
            return
        # What comes next is decided anew, at the next sweep.
        changes: dict[str, Any] = {"renewal_decided_at": None}
        went_back = row.action == Action.ROLLBACK
        if status in SUCCESSFUL:
            came = _ours(row.certificate_id) if went_back else row.certificate_id
            changes |= {"certificate_id": came, "last_success_at": func.now()}
        location: str = connection.execute(
            update(endpoints)
            .where(endpoints.c.id == row.endpoint_id)
            .values(changes)
            .returning(endpoints.c.location)
        ).scalar_one()
        if status in SUCCESSFUL:
            if went_back:
                connection.execute(
                    update(requests)
                    .where(requests.c.id == request_id)
                    .values(ended_because=ROLLED_BACK)
                )
                announce(connection, request_id, "certrail.request.rolled-back")
            reached = "delivered" if status is Status.CERTIFICATE_DELIVERED else "installed"
            announce(connection, request_id, f"certrail.certificate.{reached}")
        else:
            connection.execute(
                update(steps)
                .where(
                    steps.c.request_id == request_id,
                    steps.c.status.in_((StepStatus.PENDING, StepStatus.RUNNING)),
                )
                .values(
                    status=StepStatus.CANCELLED
                    if status is Status.CANCELLED
                    else StepStatus.PENDING,
                )
            )
        announce(connection, request_id, event, status=str(status), **payload)
        audit.note(
            connection,
            f"worker {owner}" if owner else "reconcile",
            "request.end",
            location,
            {"request_id": str(request_id), "status": str(status)},
        )


def _ours(certificate_id: UUID) -> Any:
    """Return the id of a certificate that a CA issued to us, null for one that was only seen."""
    return (
        select(certificates.c.id)
        .where(certificates.c.id == certificate_id, certificates.c.ca.is_not(None))
        .scalar_subquery()
    )


def reopen(request_id: UUID, plan: Plan, actor: str) -> Request:
    """Make a failed or cancelled request active again; finished steps stay finished.

    One that needs an approval which nobody has given waits for it.

    Raises:
        Conflict: the endpoint has another active request.
        InvalidRequest: the request is not over, or it succeeded, or somebody denied it.
    """
    try:
        with transaction() as connection:
            row = connection.execute(
                update(requests)
                .where(
                    requests.c.id == request_id,
                    requests.c.status.in_(
                        (Status.AUTOMATION_FAILED, Status.ACTION_REQUIRED, Status.CANCELLED)
                    ),
                    ~asked_approvals.IS_DENIED,
                )
                .values(
                    status=Status.AUTOMATION_REQUESTED,
                    cancel_requested=False,
                    plan=plan.model_dump(mode="json"),
                    ended_at=None,
                    ended_because=None,
                    scheduled_at=None,
                    told_at=None,
                )
                .returning(requests.c.id)
            ).first()
            if row is None:
                raise _not_retried(get(request_id, connection))
            store_steps.again(connection, [request_id])
            asked_approvals.ask_again(connection, {request_id: plan})
            audit.note(
                connection, actor, "request.retry", plan.location, {"request_id": str(request_id)}
            )
    except IntegrityError as exc:
        raise conflict(exc, plan.location) from exc
    return get(request_id)


def _not_retried(request: Request) -> InvalidRequest:
    approval = request.approval or {}
    if request.status is Status.CANCELLED and approval.get("decision") == "denied":
        return InvalidRequest(
            f"{approval.get('decided_by', 'somebody')} denied the request, so it cannot be retried",
            remedy="A new one asks for approval anew: "
            f"certrail request start {quoted(request.location)}",
        )
    return InvalidRequest(
        "only a failed or cancelled request can be retried",
        remedy="Start a new one with `certrail request start`.",
    )


def ask_to_cancel(request_id: UUID, actor: str) -> Request:
    """Cancel a request that has not begun; ask one in progress to stop at its next safe point.

    Raises:
        InvalidRequest: it is over already.
    """
    with transaction() as connection:
        row = connection.execute(
            update(requests)
            .where(requests.c.id == request_id, requests.c.status.in_(ACTIVE))
            .values(cancel_requested=True, ended_because="operator")
            .returning(
                requests.c.lease_owner,
                clock.is_held(requests.c.lease_until).label("is_held"),
            )
        ).first()
        if row is None:
            raise InvalidRequest(
                "the request is over already", remedy="There is nothing to cancel."
            )
        audit.note(connection, actor, "request.cancel", str(request_id))
    if not row.is_held:
        # Not begun, or left by a worker that died: nobody else would end it.
        finish(request_id, row.lease_owner or "", Status.CANCELLED)
    return get(request_id)
