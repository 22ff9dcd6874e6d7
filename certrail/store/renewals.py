"""Scheduled renewals: the requests that carry them, made, moved and called off.

Each function works on a bounded number of rows and can be repeated at any time.
The present is handed in, so that a year can be gone through in a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    and_,
    any_,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_
from sqlalchemy.exc import IntegrityError

from certrail.configuration.plan import Hold, Plan
from certrail.errors import InvalidRequest
from certrail.renewal.due import Decision
from certrail.store import audit, new_requests, request_ends, requests
from certrail.store.database import transaction
from certrail.store.plans import Prepared
from certrail.store.renewal_candidates import Candidate
from certrail.store.renewal_facts import AUTOMATIC, Known, look
from certrail.store.requests import Request
from certrail.store.schema import requests as table
from certrail.tracker import Status

ACTOR = "renewal policy"


def schedule(
    wanted: Sequence[tuple[Candidate, datetime]], now: datetime
) -> tuple[list[UUID], list[tuple[Candidate, InvalidRequest]]]:
    """Make the requests of renewals, or open again those that failed.

    Whoever was faster wins: an endpoint that has an active request by now is left out.

    Returns the requests, and what cannot be renewed with the reason.
    """
    known = look([candidate.endpoint_id for candidate, _ in wanted])
    made: list[UUID] = []
    refused: list[tuple[Candidate, InvalidRequest]] = []
    for candidate, at in wanted:
        ready = known.get(candidate.endpoint_id)
        if isinstance(ready, InvalidRequest):
            refused.append((candidate, ready))
        elif ready is not None:
            try:
                with transaction() as connection:
                    made.append(_one(connection, candidate, ready, at, now))
            except IntegrityError:
                continue
    return made, refused


def move(moves: Sequence[tuple[UUID, datetime]]) -> list[UUID]:
    """Put scheduled renewals to other moments; what has begun meanwhile stays. Returns the moved.

    Prefect is told afterwards: until then ``told_at`` differs.
    """
    moved: list[UUID] = []
    with transaction() as connection:
        for request_id, at in moves:
            row = connection.execute(
                update(table)
                .where(
                    table.c.id == request_id,
                    table.c.status == Status.AUTOMATION_SCHEDULED,
                    table.c.waits_for.is_(None),
                    ~table.c.is_pinned,
                )
                .values(scheduled_at=at)
                .returning(table.c.id)
            ).first()
            if row is not None:
                moved.append(row.id)
    return moved


def refresh(known: Iterable[tuple[Known, Decision]]) -> list[UUID]:
    """Let renewals that are scheduled follow what was decided anew: plan and reason, or no renewal.

    Returns those that were called off.
    """
    by_endpoint = {one.endpoint_id: (one, decision) for one, decision in known}
    ended: list[UUID] = []
    if not by_endpoint:
        return ended
    with transaction() as connection:
        scheduled = connection.execute(
            select(table.c.id, table.c.endpoint_id, table.c.plan, table.c.reason_code)
            .where(
                table.c.endpoint_id == any_(literal(list(by_endpoint), ARRAY(UUID_))),
                table.c.status.in_((Status.AUTOMATION_SCHEDULED, Status.APPROVAL_PENDING)),
                table.c.run_count == 0,
                AUTOMATIC,
            )
            .with_for_update()
        ).all()
        for row in scheduled:
            one, decision = by_endpoint[row.endpoint_id]
            if decision.code.renews:
                _follow(connection, row, one, decision)
            else:
                told = {"why": decision.message}
                audit.note(connection, ACTOR, "request.called-off", one.location, told)
                ended.append(row.id)
    for request_id in ended:
        request_ends.finish(request_id, "", Status.CANCELLED, because="called-off")
    return ended


def _follow(connection: Connection, row: Row[Any], one: Known, decision: Decision) -> None:
    plan = planned(one.prepared, decision.deadline).model_dump(mode="json")
    if plan == row.plan and decision.code.value == row.reason_code:
        return
    connection.execute(
        update(table)
        .where(table.c.id == row.id)
        .values(plan=plan, reason_code=decision.code.value, reason_message=decision.message)
    )


def untold(limit: int) -> list[Request]:
    """Return scheduled requests that Prefect knows at another time, and renewals it does not know.

    A request that a person made is handed over by whoever made it, else by
    the reconciling flow.
    """
    query = (
        requests.selected()
        .where(
            or_(
                and_(
                    AUTOMATIC,
                    table.c.flow_run_id.is_(None),
                    table.c.status.in_((Status.AUTOMATION_SCHEDULED, Status.APPROVAL_PENDING)),
                ),
                and_(
                    table.c.status == Status.AUTOMATION_SCHEDULED,
                    table.c.flow_run_id.is_not(None),
                    table.c.lease_owner.is_(None),
                    table.c.told_at.is_distinct_from(table.c.scheduled_at),
                ),
            ),
        )
        .order_by(table.c.scheduled_at)
        .limit(limit)
    )
    with transaction() as connection:
        return [requests.read(row) for row in connection.execute(query)]


def planned(prepared: Prepared, deadline: datetime | None) -> Plan:
    """Return the plan of an automatic renewal: it keeps to the maintenance windows."""
    calendar, renew = prepared.profile.calendar, prepared.profile.renew
    if calendar.always_open:
        return prepared.plan
    wait = Hold(calendar=calendar, deadline=deadline if renew.deadline_overrides_window else None)
    return prepared.plan.model_copy(update={"hold": wait})


def _one(
    connection: Connection, candidate: Candidate, known: Known, at: datetime, now: datetime
) -> UUID:
    plan = planned(known.prepared, candidate.deadline)
    if candidate.request_id is not None:
        request_ends.open_again(connection, candidate.request_id, plan, ACTOR, at)
        return candidate.request_id
    return new_requests.add(
        connection,
        candidate.endpoint_id,
        action=known.prepared.default_action,
        plan=plan,
        reason=candidate.reason,
        actor=ACTOR,
        scheduled_at=max(at, now),
        previous_certificate_id=known.prepared.certificate_id,
    )
