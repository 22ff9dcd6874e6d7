"""Automation requests and their step rows: the one record that every tracker reads.

How a request is run, ended and opened again is in :mod:`certrail.store.request_runs`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from certrail.configuration import Plan
from certrail.errors import Conflict, InvalidRequest, NotFound
from certrail.model import Action, Workflow
from certrail.store import audit, outbox
from certrail.store.database import statement, transaction
from certrail.store.schema import endpoints, journal, requests, steps
from certrail.tracker import ACTIVE, AUTOMATIC_REASONS, STEPS, Status, StepStatus


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request was made."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Request:
    """One automation request."""

    id: UUID
    endpoint_id: UUID
    location: str
    workflow: Workflow
    action: Action
    status: Status
    reason: Reason
    requested_by: str
    plan: Plan
    run_count: int
    job_id: UUID | None
    certificate_id: UUID | None
    previous_certificate_id: UUID | None
    staged: dict[str, Any] | None
    flow_run_id: UUID | None
    cancel_requested: bool
    lease_owner: str | None
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    approval: dict[str, Any] | None = None
    approval_until: datetime | None = None
    waits_for: str | None = None
    told_at: datetime | None = None
    is_pinned: bool = False
    ended_because: str | None = None

    @property
    def is_automatic(self) -> bool:
        """Whether the renewal policy made it, not a person."""
        return self.reason.code.startswith(AUTOMATIC_REASONS)

    @property
    def flow_run_name(self) -> str:
        """The name that Prefect shows: ``<action> <location>``."""
        return f"{self.action} {self.location}"


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
    if not reason.code.startswith(AUTOMATIC_REASONS):
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
        outbox.put(
            connection,
            "certrail.request.approval-pending",
            plan.location,
            request_id=request_id,
            action=str(action),
            requested_by=actor,
        )
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
            or_(*(requests.c.reason_code.startswith(begin) for begin in AUTOMATIC_REASONS)),
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


def get(request_id: UUID, connection: Connection | None = None) -> Request:
    """Return a request, as the caller's transaction sees it where *connection* is given.

    Raises:
        NotFound: there is none with that id.
    """
    with nullcontext(connection) if connection is not None else statement() as opened:
        row = opened.execute(_BY_ID, {"request_id": request_id}).first()
    if row is None:
        raise NotFound(f"there is no request {request_id}")
    return read(row)


@dataclass(frozen=True, slots=True)
class StepAsFound:
    """A request when one of its steps was about to be tried.

    Attributes:
        status, detail: of the step, as they were.
        begun: whether the try was noted; not for a step that is finished, nor
            for a request that is to stop or that another run holds.
    """

    request: Request
    status: StepStatus
    detail: str
    begun: bool


def begin_step(
    request_id: UUID, number: int, owners: Iterable[str], task_run_id: UUID | None
) -> StepAsFound:
    """Note that a try of the step begins, if one of *owners* holds the request.

    Raises:
        NotFound: there is no such request.
    """
    values = {
        "request_id": request_id,
        "number": number,
        "owners": list(owners),
        "task_run_id": task_run_id,
    }
    with statement() as connection:
        row = connection.execute(_BEGIN_STEP, values).first()
    if row is None:
        raise NotFound(f"there is no request {request_id}")
    return StepAsFound(
        read(row), StepStatus(row.step_status), row.step_detail or "", begun=row.step_begun
    )


def find(text: str, *, begun: bool = False) -> Request:
    """Return the request with that id (or the start of it), or the newest of that location.

    With *begun*, a renewal that the policy has planned and that waits for its
    time gives way to what happened before: somebody who looks at a location,
    or retries there, means that.

    Raises:
        NotFound: there is none.
        InvalidRequest: several ids start that way.
    """
    with transaction() as connection:
        by_location = (
            selected()
            .where(endpoints.c.location == text.lower())
            .order_by(*((_PLANNED,) if begun else ()), requests.c.created_at.desc())
            .limit(1)
        )
        found = connection.execute(by_location).all()
        if not found:
            by_id = selected().where(
                cast(requests.c.id, Text).startswith(text.lower(), autoescape=True)
            )
            found = connection.execute(by_id.limit(2)).all()
    if not found:
        raise NotFound(
            f"there is no request {text}",
            remedy="List them with `certrail request list`.",
        )
    if len(found) > 1:
        raise InvalidRequest(f"several requests start with {text}", remedy="Give more of the id.")
    return read(found[0])


def newest(
    *, status: Status | None = None, location: str | None = None, limit: int = 50
) -> list[Request]:
    """Return requests, newest first."""
    query = selected().order_by(requests.c.created_at.desc()).limit(limit)
    if status:
        query = query.where(requests.c.status == status)
    if location:
        query = query.where(endpoints.c.location == location.lower())
    with statement() as connection:
        return [read(row) for row in connection.execute(query)]


def of_run(flow_run_id: UUID) -> Request | None:
    """Return the request that a flow run carries, None if it carries none."""
    query = selected().where(requests.c.flow_run_id == flow_run_id)
    with transaction() as connection:
        row = connection.execute(query).first()
    return read(row) if row else None


def bind_run(request_id: UUID, flow_run_id: UUID | None) -> None:
    """Note which Prefect flow run carries the request; None: it needs another one."""
    with statement() as connection:
        connection.execute(
            update(requests).where(requests.c.id == request_id).values(flow_run_id=flow_run_id)
        )


def with_leftovers() -> list[Request]:
    """Return requests that are over although a published challenge was never withdrawn."""
    query = selected().where(
        requests.c.status.not_in(ACTIVE),
        exists().where(
            journal.c.request_id == requests.c.id,
            journal.c.action == "challenge.publish",
            journal.c.outcome.is_(None),
        ),
    )
    with transaction() as connection:
        return [read(row) for row in connection.execute(query)]


def keep_certificate(connection: Connection, request_id: UUID, certificate_id: UUID) -> None:
    """Note in the caller's transaction which certificate the request obtained."""
    connection.execute(
        update(requests).where(requests.c.id == request_id).values(certificate_id=certificate_id)
    )


def keep_staged(connection: Connection, request_id: UUID, staged: dict[str, Any] | None) -> None:
    """Store in the caller's transaction what install and restore need after a crash."""
    connection.execute(update(requests).where(requests.c.id == request_id).values(staged=staged))


def keep_observed(endpoint_id: UUID, observed: dict[str, Any]) -> None:
    """Store what a test or scan saw served at the endpoint."""
    with statement() as connection:
        connection.execute(
            update(endpoints)
            .where(endpoints.c.id == endpoint_id)
            .values(observed=observed, observed_at=func.now())
        )


def announce(connection: Connection, request_id: UUID, event: str, **payload: Any) -> None:
    """Put *event* about the request into the outbox, in the caller's transaction."""
    connection.execute(
        _ANNOUNCE, {"request_id": request_id, "event": event, "payload": json.dumps(payload)}
    )


def conflict(exc: IntegrityError, location: str) -> Exception:
    """Return what to raise for a broken constraint: a clear error where it is a known one."""
    if "uq_requests_one_active_for_each_endpoint" in str(exc.orig):
        return Conflict(
            f"{location} has an active request already",
            remedy=f"Follow it with `certrail request show {location}`, or cancel it first.",
        )
    return exc


_PLANNED = and_(
    requests.c.status == Status.AUTOMATION_SCHEDULED,
    or_(*(requests.c.reason_code.startswith(begin) for begin in AUTOMATIC_REASONS)),
)
_JOINED = requests.join(endpoints, requests.c.endpoint_id == endpoints.c.id)
_BY_ID = (
    select(requests, endpoints.c.location)
    .select_from(_JOINED)
    .where(requests.c.id == bindparam("request_id"))
)
_ANNOUNCE = text(
    """
    insert into outbox (event, resource, request_id, payload)
    select :event, 'certrail.endpoint.' || e.location, r.id,
      jsonb_build_object('location', e.location, 'action', r.action) || cast(:payload as jsonb)
    from requests r join endpoints e on e.id = r.endpoint_id
    where r.id = :request_id
    """
)
# One round trip instead of three, for each of the steps. What is selected is as it was before.
_BEGIN_STEP = text(
    """
    with begun as (
      update steps s set status = 'running', attempts = attempts + 1,
        started_at = coalesce(s.started_at, now()), ended_at = null, task_run_id = :task_run_id
      from requests r
      where s.request_id = :request_id and s.number = :number and r.id = s.request_id
        and s.status not in ('completed', 'skipped')
        and not r.cancel_requested and r.lease_owner = any(:owners)
      returning r.run_count
    ), noted as (
      insert into step_attempts (request_id, number, run, status, started_at)
      select :request_id, :number, run_count, 'running', now() from begun
    )
    select r.*, e.location, s.status as step_status, s.detail as step_detail,
      exists (select 1 from begun) as step_begun
    from requests r join endpoints e on e.id = r.endpoint_id
    join steps s on s.request_id = r.id and s.number = :number
    where r.id = :request_id
    """
)


def selected() -> Any:
    """Return the query whose rows :func:`read` takes, for others to narrow down."""
    return select(requests, endpoints.c.location).select_from(_JOINED)


def read(row: Row[Any]) -> Request:
    """Return the request in a row of :func:`selected`."""
    fields = row._mapping
    return Request(
        id=fields["id"],
        endpoint_id=fields["endpoint_id"],
        location=fields["location"],
        workflow=Workflow(fields["workflow"]),
        action=Action(fields["action"]),
        status=Status(fields["status"]),
        reason=Reason(fields["reason_code"], fields["reason_message"]),
        requested_by=fields["requested_by"],
        plan=Plan.model_validate(fields["plan"]),
        run_count=fields["run_count"],
        job_id=fields["job_id"],
        certificate_id=fields["certificate_id"],
        previous_certificate_id=fields["previous_certificate_id"],
        staged=fields["staged"],
        flow_run_id=fields["flow_run_id"],
        cancel_requested=fields["cancel_requested"],
        lease_owner=fields["lease_owner"],
        created_at=fields["created_at"],
        scheduled_at=fields["scheduled_at"],
        started_at=fields["started_at"],
        ended_at=fields["ended_at"],
        approval=fields["approval"],
        approval_until=fields["approval_until"],
        waits_for=fields["waits_for"],
        told_at=fields["told_at"],
        is_pinned=fields["is_pinned"],
        ended_because=fields["ended_because"],
    )
