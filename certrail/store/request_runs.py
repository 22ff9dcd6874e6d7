"""The life of a request: taken by a run under a lease, ended, cancelled, opened again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from certrail.configuration import Plan
from certrail.errors import InvalidRequest, JournalConflict
from certrail.jobs.status import OPEN
from certrail.model import Action
from certrail.store import audit
from certrail.store.database import statement, transaction
from certrail.store.new_requests import conflict
from certrail.store.requests import Request, announce, get, read, selected
from certrail.store.schema import certificates, endpoints, jobs, orders, requests, steps
from certrail.tracker import ACTIVE, SUCCESSFUL, Status, StepStatus

ELSEWHERE = frozenset({"called-off", "approval-expired"})
"""What ends a request without Prefect: its run there is cancelled afterwards."""
ROLLED_BACK = "rolled-back"
"""Why nothing follows a rollback by itself: what was taken back is not to come again."""


def unattended(older_than: timedelta) -> list[Request]:
    """Return active requests that no living worker holds: waiting, or left by a dead one.

    Those made within *older_than* are left out: their maker may be just
    about to start the run. So are those of an open job, which looks after them.
    """
    looked_after = exists().where(jobs.c.id == requests.c.job_id, jobs.c.status.in_(OPEN))
    query = selected().where(
        requests.c.status.in_(ACTIVE),
        ~looked_after,
        or_(requests.c.lease_until.is_(None), requests.c.lease_until < func.now()),
        requests.c.created_at < func.now() - older_than,
        # Those whose time has not come are many, and looked at by `scheduled`.
        or_(
            requests.c.status != Status.AUTOMATION_SCHEDULED,
            requests.c.flow_run_id.is_(None),
            requests.c.scheduled_at <= func.now(),
        ),
    )
    with statement() as connection:
        return [read(row) for row in connection.execute(query)]


def scheduled(limit: int) -> list[Request]:
    """Return scheduled requests that Prefect was told of: the next ones, and some of the others.

    Of very many, each turn looks at others.
    """
    query = selected().where(
        requests.c.status == Status.AUTOMATION_SCHEDULED,
        requests.c.flow_run_id.is_not(None),
        requests.c.lease_owner.is_(None),
    )
    with transaction() as connection:
        rows = [*connection.execute(query.order_by(requests.c.scheduled_at).limit(limit))]
        if len(rows) == limit:
            rows += connection.execute(query.order_by(func.random()).limit(limit))
    return list({row.id: read(row) for row in rows}.values())


def adopt(request_id: UUID, at: datetime, actor: str) -> bool:
    """Take over the moment that an operator gave a scheduled request in Prefect.

    From now on nothing else moves it. Returns whether it was still scheduled.
    """
    with transaction() as connection:
        row = connection.execute(
            update(requests)
            .where(requests.c.id == request_id, requests.c.status == Status.AUTOMATION_SCHEDULED)
            .values(scheduled_at=at, told_at=at, is_pinned=True)
            .returning(requests.c.id)
        ).first()
        if row is not None:
            audit.note(connection, actor, "request.moved", str(request_id), {"to": at.isoformat()})
    return row is not None


def told(request_id: UUID, at: datetime | None) -> None:
    """Note that Prefect knows when the request begins."""
    with transaction() as connection:
        connection.execute(update(requests).where(requests.c.id == request_id).values(told_at=at))


def ended_elsewhere(limit: int) -> list[Request]:
    """Return requests that are over although Prefect still has a run for them."""
    query = selected().where(
        requests.c.status == Status.CANCELLED,
        requests.c.waits_for == "prefect",
    )
    with transaction() as connection:
        return [read(row) for row in connection.execute(query.limit(limit))]


def prefect_knows(request_id: UUID) -> None:
    """Note that the run of a request that is over is over in Prefect too."""
    with transaction() as connection:
        connection.execute(
            update(requests).where(requests.c.id == request_id).values(waits_for=None)
        )


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
    _steps_again(connection, request_id)
    audit.note(connection, actor, "request.retry", plan.location, {"request_id": str(request_id)})


def _steps_again(connection: Connection, request_id: UUID) -> None:
    connection.execute(
        update(steps)
        .where(
            steps.c.request_id == request_id,
            steps.c.status.in_((StepStatus.FAILED, StepStatus.CANCELLED)),
        )
        .values(
            status=StepStatus.PENDING,
            cause=None,
            remedy=None,
            retryable=None,
            error=None,
            detail=None,
            ended_at=None,
        )
    )


def release(request_id: UUID, owner: str) -> None:
    """Give the lease back without ending the request: another worker goes on with it."""
    with statement() as connection:
        connection.execute(
            update(requests)
            .where(requests.c.id == request_id, requests.c.lease_owner == owner)
            .values(lease_owner=None, lease_until=None)
        )


def wait(request_id: UUID, owner: str, until: datetime, why: str, number: int) -> None:
    """Give the lease back and wait with the certificate that was obtained, to install it later.

    Args:
        request_id, owner: the request and who holds it.
        until: when it goes on.
        why: for people; shown with the step that waits.
        number: of that step.
    """
    with transaction() as connection:
        row = connection.execute(
            update(requests)
            .where(
                requests.c.id == request_id,
                requests.c.lease_owner == owner,
                requests.c.status == Status.IN_PROGRESS,
            )
            .values(
                status=Status.AUTOMATION_SCHEDULED,
                waits_for="window",
                scheduled_at=until,
                told_at=until,
                is_pinned=False,
                lease_owner=None,
                lease_until=None,
            )
            .returning(requests.c.id)
        ).first()
        if row is None:
            raise JournalConflict("another run holds this request")
        connection.execute(
            update(steps)
            .where(steps.c.request_id == request_id, steps.c.number == number)
            .values(detail=why)
        )
        announce(
            connection,
            request_id,
            "certrail.request.scheduled",
            scheduled_at=until.isoformat(),
            detail=why,
        )


def take(request_id: UUID, owner: str, lease: timedelta) -> Request:
    """Begin a run: take the lease, set the request in progress and count the run.

    Raises:
        JournalConflict: another run holds the lease.
        InvalidRequest: the request is already over.
    """
    with transaction() as connection:
        row = connection.execute(
            update(requests)
            .where(
                requests.c.id == request_id,
                requests.c.status.in_(ACTIVE),
                requests.c.status != Status.APPROVAL_PENDING,
                ~requests.c.cancel_requested,
                or_(
                    requests.c.lease_until.is_(None),
                    requests.c.lease_until < func.now(),
                    requests.c.lease_owner == owner,
                ),
            )
            .values(
                status=Status.IN_PROGRESS,
                lease_owner=owner,
                lease_until=func.now() + lease,
                run_count=requests.c.run_count + 1,
                started_at=func.coalesce(requests.c.started_at, func.now()),
                ended_at=None,
                waits_for=None,
            )
            .returning(requests.c.run_count)
        ).first()
        if row is not None and row.run_count == 1:
            announce(connection, request_id, "certrail.request.started")
        request = get(request_id, connection)
    if row is not None:
        return request
    if request.cancel_requested or request.status not in ACTIVE:
        raise InvalidRequest(
            f"the request is {request.status.text.lower()}",
            remedy="Start a new request, or `certrail request retry` a failed one.",
        )
    if request.status is Status.APPROVAL_PENDING:
        raise InvalidRequest(
            "the request waits for approval", remedy=f"certrail request approve {request.id}"
        )
    raise JournalConflict(f"{request.lease_owner} holds this request")


def renew_leases(owner: str, request_ids: Sequence[UUID], lease: timedelta) -> set[UUID]:
    """Extend the leases that *owner* still holds; returns those asked to be cancelled."""
    if not request_ids:
        return set()
    with statement() as connection:
        rows = connection.execute(
            update(requests)
            .where(requests.c.id.in_(request_ids), requests.c.lease_owner == owner)
            .values(lease_until=func.now() + lease)
            .returning(requests.c.id, requests.c.cancel_requested)
        )
        return {row.id for row in rows if row.cancel_requested}


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

    Raises:
        Conflict: the endpoint has another active request.
        InvalidRequest: the request is not over, or it succeeded.
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
                raise InvalidRequest(
                    "only a failed or cancelled request can be retried",
                    remedy="Start a new one with `certrail request start`.",
                )
            _steps_again(connection, request_id)
            audit.note(
                connection, actor, "request.retry", plan.location, {"request_id": str(request_id)}
            )
    except IntegrityError as exc:
        raise conflict(exc, plan.location) from exc
    return get(request_id)


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
                (requests.c.lease_until > func.now()).label("is_held"),
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
