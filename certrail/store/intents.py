"""Effects whose outcome nobody recorded, of requests that will not ask any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import exists, or_, select

from certrail.store import clock
from certrail.store.database import transaction
from certrail.store.schema import endpoints, journal, orders, requests
from certrail.tracker import ACTIVE, FAILED, Status

_REMEDIES = {
    "order": "Look at the CA for an order of these names; cancel it there if it is not wanted.",
    "install": "See what is served: `certrail endpoint scan LOCATION`; a redeploy puts ours back.",
    "deliver": "Look at the destination; a redeploy delivers the certificate again.",
}
_ELSE = "Look at what the request shows; a new request asks before it does anything again."
# Reconciliation withdraws these itself; an answer to a challenge, or a look, leaves nothing behind.
_HARMLESS = ("challenge.publish", "challenge.respond", "restore.look")


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """One effect that was begun, and that may have happened or not.

    Attributes:
        action: what was begun, as in the journal.
        since: when.
        status: how its request ended.
    """

    request_id: UUID
    location: str
    action: str
    since: datetime
    status: Status

    @property
    def remedy(self) -> str:
        """What a person can do."""
        told = _REMEDIES.get(self.action.partition(".")[0], _ELSE)
        return told.replace("LOCATION", self.location)


def unknown(older_than: timedelta = timedelta(hours=1), limit: int = 100) -> list[OpenIntent]:
    """Return effects begun longer ago than *older_than* that have no outcome, newest first.

    A request that is under way, or that failed and can be retried, asks the
    other side itself what became of them. What is left: requests that were
    cancelled or ended otherwise meanwhile, and failed ones that a newer request
    of the endpoint has replaced. Orders that are known to be dead are left out.
    """
    newer = requests.alias("newer")
    replaced = exists().where(
        newer.c.endpoint_id == requests.c.endpoint_id, newer.c.created_at > requests.c.created_at
    )
    dead = exists().where(orders.c.key == journal.c.key, orders.c.is_dead)
    query = (
        select(
            journal.c.request_id,
            journal.c.action,
            journal.c.intent_at,
            requests.c.status,
            endpoints.c.location,
        )
        .select_from(
            journal.join(requests, journal.c.request_id == requests.c.id).join(
                endpoints, requests.c.endpoint_id == endpoints.c.id
            )
        )
        .where(
            journal.c.outcome.is_(None),
            clock.is_older(journal.c.intent_at, older_than),
            journal.c.action.not_in(_HARMLESS),
            requests.c.status.not_in(ACTIVE),
            or_(requests.c.status.not_in(FAILED), replaced),
            ~dead,
        )
        .order_by(journal.c.intent_at.desc())
        .limit(limit)
    )
    with transaction() as connection:
        return [
            OpenIntent(row.request_id, row.location, row.action, row.intent_at, Status(row.status))
            for row in connection.execute(query)
        ]
