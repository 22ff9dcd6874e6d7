"""Approvals: a request that waits for somebody to agree before a certificate is issued."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from certrail.configuration.profile import Approval
from certrail.errors import InvalidRequest, PermissionRefused
from certrail.store import audit, request_ends, requests
from certrail.store.database import transaction
from certrail.store.requests import Request
from certrail.store.schema import requests as table
from certrail.tracker import Status

EXPIRED = "approval-expired"
DENIED = "denied"


def approve(request_id: UUID, actor: str, note: str = "") -> Request:
    """Let the request go on: at its time, or now if that has passed.

    Raises:
        InvalidRequest: it does not wait for approval, or no longer.
        PermissionRefused: *actor* may not approve it.
    """
    with transaction() as connection:
        row = connection.execute(
            select(
                table.c.status,
                table.c.approval,
                table.c.requested_by,
                table.c.scheduled_at,
                (table.c.approval_until <= func.now()).label("is_late"),
                (table.c.scheduled_at > func.now()).label("is_ahead"),
            )
            .where(table.c.id == request_id)
            .with_for_update()
        ).one()
        _must_wait(row)
        if row.is_late:
            raise InvalidRequest(
                "the approval came too late: it has expired", remedy="Start the request again."
            )
        _must_be_allowed(row.approval, row.requested_by, actor)
        connection.execute(
            update(table)
            .where(table.c.id == request_id)
            .values(
                status=Status.AUTOMATION_SCHEDULED if row.is_ahead else Status.AUTOMATION_REQUESTED,
                scheduled_at=row.scheduled_at if row.is_ahead else None,
                told_at=None,
                approval=_decided(row.approval, "approved", actor, note),
                approval_until=None,
            )
        )
        _note(connection, request_id, actor, "request.approve", note)
        if row.is_ahead:
            requests.announce(
                connection,
                request_id,
                "certrail.request.scheduled",
                scheduled_at=row.scheduled_at.isoformat(),
            )
    return requests.get(request_id)


def deny(request_id: UUID, actor: str, note: str = "") -> Request:
    """Refuse the request: it is cancelled, and a renewal does not come back by itself.

    Raises:
        InvalidRequest: it does not wait for approval.
        PermissionRefused: *actor* may not decide about it.
    """
    with transaction() as connection:
        row = connection.execute(
            select(table.c.status, table.c.approval, table.c.requested_by)
            .where(table.c.id == request_id)
            .with_for_update()
        ).one()
        _must_wait(row)
        approvers = (row.approval or {}).get("approvers") or ()
        if approvers and actor not in approvers:
            raise _refused(f"{actor} is not among its approvers", approvers)
        connection.execute(
            update(table)
            .where(table.c.id == request_id)
            .values(approval=_decided(row.approval, "denied", actor, note))
        )
        _note(connection, request_id, actor, "request.deny", note)
    request_ends.finish(request_id, "", Status.CANCELLED, because=DENIED)
    return requests.get(request_id)


def overdue() -> list[Request]:
    """Return the requests whose approval has expired."""
    query = requests.selected().where(
        table.c.status == Status.APPROVAL_PENDING, table.c.approval_until <= func.now()
    )
    with transaction() as connection:
        return [requests.read(row) for row in connection.execute(query)]


def expire(request: Request) -> None:
    """End a request that nobody approved in time."""
    with transaction() as connection:
        audit.note(
            connection,
            "certrail",
            "request.approval-expired",
            request.location,
            {"request_id": str(request.id)},
        )
    request_ends.finish(request.id, "", Status.CANCELLED, because=EXPIRED)


def by_anyone(request: Request) -> bool:
    """Return whether whoever asked, or somebody unknown, may approve the request."""
    asked = Approval.model_validate(
        {k: v for k, v in (request.approval or {}).items() if k in Approval.model_fields}
    )
    return asked.by == "anyone" and not asked.approvers


def told(request: Request) -> str:
    """Return what is waited for, for people."""
    asked = request.approval or {}
    who = "a second person" if asked.get("by") == "second-person" else "somebody"
    if approvers := asked.get("approvers"):
        who = " or ".join(approvers)
    until = f" until {_text(request.approval_until)}" if request.approval_until else ""
    return f"waits for approval by {who}{until}: certrail request approve {request.id}"


def _must_wait(row: Any) -> None:
    if row.status != Status.APPROVAL_PENDING:
        raise InvalidRequest(
            f"the request does not wait for approval: it is {Status(row.status).text.lower()}",
            remedy="`certrail request list --status approval-pending` shows those that do.",
        )


def _must_be_allowed(approval: dict[str, Any] | None, requested_by: str, actor: str) -> None:
    asked = approval or {}
    approvers = asked.get("approvers") or ()
    if approvers and actor not in approvers:
        raise _refused(f"{actor} is not among its approvers", approvers)
    if asked.get("by") == "second-person" and actor == requested_by:
        raise _refused(f"{actor} asked for it, so somebody else has to approve it", approvers)


def _refused(cause: str, approvers: Any) -> PermissionRefused:
    who = ", ".join(approvers) or "another account"
    return PermissionRefused(cause, remedy=f"Let {who} approve it.")


def _decided(
    approval: dict[str, Any] | None, decision: str, actor: str, note: str
) -> dict[str, Any]:
    return {**(approval or {}), "decision": decision, "decided_by": actor, "note": note}


def _note(connection: Any, request_id: UUID, actor: str, action: str, note: str) -> None:
    audit.note(connection, actor, action, str(request_id), {"note": note} if note else None)


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
