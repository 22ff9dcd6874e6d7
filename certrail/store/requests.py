"""Automation requests as they are read: the one record that every tracker reads.

How one is made is in :mod:`certrail.store.new_requests`; how it is run in
:mod:`certrail.store.request_runs`; how it ends or is opened again in
:mod:`certrail.store.request_ends`.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
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
    select,
    text,
    update,
)

from certrail.configuration.plan import Plan
from certrail.errors import InvalidRequest, NotFound
from certrail.model import Action, Workflow
from certrail.store.database import statement, transaction
from certrail.store.reasons import is_automatic
from certrail.store.schema import endpoints, journal, requests
from certrail.tracker import ACTIVE, AUTOMATIC_REASONS, Status


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request was made."""

    code: str
    message: str

    @property
    def is_automatic(self) -> bool:
        """Whether it is the renewal policy's, not a person's."""
        return self.code.startswith(AUTOMATIC_REASONS)


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
        return self.reason.is_automatic

    @property
    def flow_run_name(self) -> str:
        """The name that Prefect shows: ``<action> <location>``."""
        return f"{self.action} {self.location}"


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


def find(text: str, *, begun: bool = False) -> Request:
    """Return the request with that id (or the start of it), or the latest of that location.

    That is the active one, also where an older request runs again. With
    *begun*, a renewal that the policy has planned and that waits for its time
    gives way to what happened before: somebody who looks at a location, or
    retries there, means that.

    Raises:
        NotFound: there is none.
        InvalidRequest: several ids start that way.
    """
    with transaction() as connection:
        by_location = (
            selected()
            .where(endpoints.c.location == text.lower())
            .order_by(
                *((_PLANNED,) if begun else ()),
                requests.c.is_latest.desc(),
                requests.c.created_at.desc(),
            )
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
    with statement(durable=False) as connection:
        connection.execute(
            update(endpoints)
            .where(endpoints.c.id == endpoint_id)
            .values(observed=observed, observed_at=func.now())
        )


def announce(
    connection: Connection,
    request_id: UUID,
    event: str,
    *,
    once: str | None = None,
    **payload: Any,
) -> None:
    """Put *event* about the request into the outbox, in the caller's transaction.

    Args:
        connection: the transaction of the state change.
        request_id: which request.
        event: full name, one of :data:`certrail.events.KINDS`.
        once: says what may be told one time only; a second event of the same is dropped.
        payload: plain data without secrets.
    """
    values = {"request_id": request_id, "event": event, "once": once}
    connection.execute(_ANNOUNCE, {**values, "payload": json.dumps(payload)})


_PLANNED = and_(
    requests.c.status == Status.AUTOMATION_SCHEDULED,
    is_automatic(requests.c.reason_code),
    # One that waits for its window, or for another try, has begun.
    requests.c.run_count == 0,
)
_JOINED = requests.join(endpoints, requests.c.endpoint_id == endpoints.c.id)
_BY_ID = (
    select(requests, endpoints.c.location)
    .select_from(_JOINED)
    .where(requests.c.id == bindparam("request_id"))
)
_ANNOUNCE = text(
    """
    insert into outbox (event, resource, request_id, once, payload)
    select :event, 'certrail.endpoint.' || e.location, r.id, cast(:once as text),
      jsonb_build_object('location', e.location, 'action', r.action) || cast(:payload as jsonb)
    from requests r join endpoints e on e.id = r.endpoint_id
    where r.id = :request_id
    on conflict (once) do nothing
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
