"""Approvals that are asked for: of retried requests once more, and what tells people so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import (
    Connection,
    Interval,
    any_,
    bindparam,
    func,
    literal,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.configuration.plan import Plan
from certrail.model import Action
from certrail.policy import approval_of_retry
from certrail.store.schema import requests
from certrail.tracker import Status

_DECISION = func.coalesce(requests.c.approval["decision"].astext, "")
IS_DENIED = _DECISION == "denied"
"""Whether somebody denied the request, also where its renewal was allowed again since."""

_TELL = text(
    """
    insert into outbox (event, resource, request_id, payload)
    select 'certrail.request.approval-pending', 'certrail.endpoint.' || e.location, r.id,
      jsonb_build_object(
        'location', e.location, 'action', r.action, 'requested_by', r.requested_by
      )
    from requests r join endpoints e on e.id = r.endpoint_id
    where r.id = any(:request_ids)
    order by e.location
    """
).bindparams(bindparam("request_ids", type_=ARRAY(UUID_)))


def tell(connection: Connection, request_ids: Sequence[UUID]) -> None:
    """Tell in the caller's transaction that requests wait for approval, each by an event."""
    if request_ids:
        connection.execute(_TELL, {"request_ids": list(request_ids)})


def ask_again(connection: Connection, plans: Mapping[UUID, Plan]) -> None:
    """Let retried requests wait until somebody approves them, where nobody has.

    In the caller's transaction, which has made them active.

    Args:
        connection: the transaction of the retry.
        plans: what each request does this time, by the request's id.
    """
    those = requests.c.id == any_(literal(list(plans), ARRAY(UUID_)))
    rows = connection.execute(
        select(
            requests.c.id, requests.c.action, requests.c.certificate_id, requests.c.approval
        ).where(those)
    ).all()
    asked = {
        row.id: approval
        for row in rows
        if (
            approval := approval_of_retry(
                row.approval,
                plans[row.id].approval,
                obtains=Action(row.action).obtains and row.certificate_id is None,
            )
        )
    }
    connection.execute(
        update(requests)
        .where(those, _DECISION != "approved")
        .values(approval=null(), approval_until=None)
    )
    if not asked:
        return
    connection.execute(
        update(requests)
        .where(requests.c.id == bindparam("of"))
        .values(
            status=Status.APPROVAL_PENDING,
            approval=bindparam("wanted"),
            approval_until=func.now() + bindparam("within", type_=Interval),
        ),
        [
            {
                "of": request_id,
                "wanted": approval.model_dump(mode="json"),
                "within": timedelta(hours=approval.expires_hours),
            }
            for request_id, approval in asked.items()
        ],
    )
    tell(connection, list(asked))
