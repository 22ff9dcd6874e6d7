"""What nobody asked for: alarms of Prefect's automations, and renewals that did not happen."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from certrail.errors import InvalidRequest
from certrail.notify.words import ends
from certrail.store import notification_facts, outbox
from certrail.store.database import transaction

ALARMS = frozenset(
    {
        "certrail.run.failed",
        "certrail.run.crashed",
        "certrail.run.late",
        "certrail.system.silent",
    }
)
"""Events that an automation may put into the outbox."""


def raise_alarm(
    event: str,
    *,
    subject: str,
    occurrence: str,
    detail: str,
    flow_run_id: UUID | None = None,
) -> bool:
    """Put an alarm into the outbox; returns whether it is a new one.

    Args:
        event: one of :data:`ALARMS`.
        subject: what it is about: a flow run's name, a flow.
        occurrence: tells one alarm from the next; the same again is not told again.
        detail: one sentence.
        flow_run_id: the Prefect run it is about.

    Raises:
        InvalidRequest: it is no such event.
    """
    if event not in ALARMS:
        raise InvalidRequest(f"{event!r} is no alarm", remedy=f"Alarms are {sorted(ALARMS)}.")
    payload: dict[str, Any] = {"detail": detail}
    with transaction() as connection:
        request_id = None
        if flow_run_id is not None:
            payload["flow_run_id"] = str(flow_run_id)
            found = notification_facts.request_of_run(connection, flow_run_id)
            if found is not None:
                request_id, subject = found
        return outbox.put(
            connection,
            event,
            subject,
            request_id=request_id,
            once=f"{event}:{occurrence}",
            resource="" if request_id else f"certrail.run.{flow_run_id or subject}",
            **payload,
        )


def note_overdue(now: datetime) -> int:
    """Put into the outbox what should have been renewed by now; each certificate once.

    A renewal is overdue when half of the time is over that its policy left for
    it, and no request is under way. Returns how many were told.
    """
    told = 0
    with transaction() as connection:
        for location, fingerprint, not_after in notification_facts.overdue(connection):
            told += outbox.put(
                connection,
                "certrail.renewal.overdue",
                location,
                once=f"overdue:{location}:{fingerprint}",
                not_after=not_after.isoformat(),
                fingerprint=fingerprint,
                detail=f"no request is under way, and its certificate {ends(not_after, now)}",
            )
    return told
