"""Who runs a request: taken by a run under a lease, kept, given back, or left to wait."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import exists, func, or_, update

from certrail.errors import InvalidRequest, JournalConflict
from certrail.jobs.status import OPEN
from certrail.store import clock
from certrail.store.database import statement, transaction
from certrail.store.requests import Request, announce, get, read, selected
from certrail.store.schema import jobs, requests, steps
from certrail.tracker import ACTIVE, Status


def unattended(older_than: timedelta) -> list[Request]:
    """Return active requests that no living worker holds: waiting, or left by a dead one.

    Those made within *older_than* are left out: their maker may be just
    about to start the run. So are those of an open job, which looks after them.
    """
    looked_after = exists().where(jobs.c.id == requests.c.job_id, jobs.c.status.in_(OPEN))
    query = selected().where(
        requests.c.status.in_(ACTIVE),
        ~looked_after,
        clock.is_free(requests.c.lease_until),
        clock.is_older(requests.c.created_at, older_than),
        # Those whose time has not come are many, and looked at by `scheduled`.
        or_(
            requests.c.status != Status.AUTOMATION_SCHEDULED,
            requests.c.flow_run_id.is_(None),
            requests.c.scheduled_at <= func.now(),
        ),
    )
    with statement() as connection:
        return [read(row) for row in connection.execute(query)]


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


def take(
    request_id: UUID, owner: str, lease: timedelta, *, flow_run_id: UUID | None = None
) -> Request:
    """Begin a run: take the lease, set the request in progress and count the run.

    Args:
        flow_run_id: Prefect's run that carries the request from now on; None: as it was.

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
                or_(clock.is_free(requests.c.lease_until), requests.c.lease_owner == owner),
            )
            .values(
                status=Status.IN_PROGRESS,
                lease_owner=owner,
                lease_until=clock.lease(lease),
                run_count=requests.c.run_count + 1,
                started_at=func.coalesce(requests.c.started_at, func.now()),
                ended_at=None,
                waits_for=None,
                **({} if flow_run_id is None else {"flow_run_id": flow_run_id}),
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
            .values(lease_until=clock.lease(lease))
            .returning(requests.c.id, requests.c.cancel_requested)
        )
        return {row.id for row in rows if row.cancel_requested}
