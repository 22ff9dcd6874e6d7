"""From the outbox to the recipients: route what happened, then send what is due.

Both may run in several processes at once. Routing is one transaction for each
batch of events, and a row of the log is unique for its event and recipient, so
nobody is told twice. Sending claims a message under a lease before it opens a
connection and ends the claim after the other side took it: a process that is
killed before is followed by another, with the same message id. Only one that
is killed in the moment between the receiver's "taken" and our note of it
leaves a message that comes twice, with one id.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy import Connection

from certrail.configuration.profile import Notifications
from certrail.connectors import Notifier
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    InvalidRequest,
    KeyUnavailable,
    NotFound,
    PermissionRefused,
    Unreachable,
)
from certrail.events import kind_of
from certrail.log import logger, plain
from certrail.message import Attachment, Message
from certrail.notify import of_jobs, rules
from certrail.notify.compose import compose
from certrail.notify.of_jobs import Course
from certrail.notify.settings import NotificationSettings
from certrail.notify.words import describe, ends, severity_of
from certrail.store import database, notification_facts, notifications, outbox, reports
from certrail.store import notification_claims as claims
from certrail.store.database import transaction
from certrail.store.notification_claims import Claim
from certrail.store.outbox import Happened

OpenNotifier = Callable[[str], AbstractContextManager[Notifier]]

_LEASE = timedelta(seconds=float(os.environ.get("CERTRAIL_SEND_SECONDS", "120")))
_BATCH = 200
_AT_ONCE = 4
_LONGEST = timedelta(days=3)
# Somebody will correct the connector, and then the messages have to be there.
_OF_THE_CHANNEL = (
    AuthenticationFailed,
    InvalidRequest,
    KeyUnavailable,
    NotFound,
    PermissionRefused,
    Unreachable,
)


@dataclass(slots=True)
class Drained:
    """What a pass did.

    Attributes:
        routed: events that were looked at.
        sent: messages that were taken.
        postponed: messages that are tried again.
        failed: messages that will not be taken.
        troubles: what went wrong, for people, by channel.
    """

    routed: int = 0
    sent: int = 0
    postponed: int = 0
    failed: int = 0
    troubles: dict[str, str] = field(default_factory=dict)


def account_settings(connection: Connection) -> NotificationSettings:
    """Return the account-wide rules; the defaults where none were applied."""
    stored = notifications.settings(connection)
    if stored is None:
        return NotificationSettings()
    try:
        return NotificationSettings.model_validate(stored)
    except ValidationError as exc:
        raise InvalidRequest(
            f"the stored notification rules cannot be used: {exc.error_count()} fields",
            remedy="Apply the file with `notifications:` again.",
        ) from None


def note_expiries(now: datetime) -> int:
    """Put expiring and expired certificates into the outbox, each threshold once.

    Returns how many were told.
    """
    told = 0
    with transaction() as connection:
        days = account_settings(connection).expiring_days
        for location, fingerprint, not_after, within in notification_facts.crossing(
            connection, days
        ):
            name = "expired" if within is None else "expiring"
            told += outbox.put(
                connection,
                f"certrail.certificate.{name}",
                location,
                once=f"{name}:{location}:{fingerprint}:{within or 0}",
                not_after=not_after.isoformat(),
                fingerprint=fingerprint,
                detail=f"its certificate {ends(not_after, now)}",
            )
    return told


def route(now: datetime) -> int:
    """Write down who is to hear of what happened; returns how many events were looked at."""
    routed = 0
    while True:
        with transaction() as connection:
            waiting = _in_turn(connection, outbox.unrouted(connection, limit=_BATCH))
            if not waiting:
                return routed
            account = account_settings(connection)
            channels = notifications.channels(connection)
            mail = rules.mail_channel(account, channels)
            profiles = notifications.profile_rules(connection, [one.location for one in waiting])
            courses = _courses(connection, waiting)
            for event in waiting:
                kind = kind_of(event.event)
                severity = severity_of(event, kind)
                profile = _profile(profiles.get(event.location))
                job_id = of_jobs.turn(event)
                course = courses.get(event.job_id) if event.job_id else None
                # Those whom a saved report names get it whatever the rules say.
                named = tuple(event.payload.get("email") or ())
                for target in rules.targets(kind, account, profile, mail, named):
                    slug = channels.get(target.channel, "")
                    timed = partial(rules.timing, kind, severity, slug, account)
                    when = of_jobs.timing(event, course, severity, slug, timed, now)
                    notifications.add(
                        connection,
                        event.outbox_id,
                        target.channel,
                        target.recipient,
                        due_at=when.due_at,
                        digest=when.digest,
                        held_because=when.held_because,
                    )
                if job_id is not None:
                    due = of_jobs.let_go(kind, severity, account, now)
                    notifications.let_go(connection, job_id, due)
            outbox.mark_routed(connection, [one.outbox_id for one in waiting])
            routed += len(waiting)


def _in_turn(connection: Connection, waiting: Sequence[Happened]) -> Sequence[Happened]:
    """Leave the end or a pause of a job for later, while events of its endpoints are still held."""
    turns = {event.outbox_id: job_id for event in waiting if (job_id := of_jobs.turn(event))}
    taken = [event.outbox_id for event in waiting]
    early = outbox.jobs_with_others(connection, list(turns.values()), taken)
    return [event for event in waiting if turns.get(event.outbox_id) not in early]


def _courses(connection: Connection, waiting: Sequence[Happened]) -> dict[UUID, Course]:
    of_members = {one.job_id for one in waiting if one.job_id is not None}
    if not of_members:
        return {}
    return {row.id: Course(*row) for row in notification_facts.job_courses(connection, of_members)}


def send_due(open_notifier: OpenNotifier, *, ui_url: str) -> Drained:
    """Send every message that is due, several at once; returns what became of them."""
    done = Drained()
    sender = _Sender(open_notifier, ui_url, done)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="notify") as pool:
        for future in [pool.submit(sender.run) for _ in range(_AT_ONCE)]:
            future.result()
    return done


class _Sender:
    def __init__(self, open_notifier: OpenNotifier, ui_url: str, done: Drained) -> None:
        self._open = open_notifier
        self._ui_url = ui_url
        self._done = done
        self._guard = threading.Lock()
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"

    def run(self) -> None:
        while True:
            with self._guard:
                broken = list(self._done.troubles)
            claim = claims.claim(self._owner, _LEASE, now=database.now(), except_=broken)
            if claim is None:
                return
            self._send(claim)

    def _send(self, claim: Claim) -> None:
        message = message_of(claim, self._ui_url)
        try:
            if not claim.reference:
                raise NotFound(
                    f"there is no notifier {claim.channel}",
                    remedy="Add it, or take it out of `notifications`.",
                )
            with self._open(claim.reference) as notifier:
                answer = notifier.send(message)
        except CertrailError as exc:
            self._failed(claim, message, exc)
            return
        claims.sent(claim.ids, self._owner, subject=message.subject, answer=plain(answer))
        with self._guard:
            self._done.sent += 1

    def _failed(self, claim: Claim, message: Message, error: CertrailError) -> None:
        of_channel = isinstance(error, _OF_THE_CHANNEL)
        now = database.now()
        told = f"{type(error).__name__}: {plain(error)}"
        if (error.retryable or of_channel) and now - claim.since < _LONGEST:
            claims.postpone(
                claim.ids,
                self._owner,
                due_at=now + rules.pause(claim.attempts, message.severity),
                error=told,
                remedy=error.remedy,
                subject=message.subject,
            )
        else:
            claims.failed(
                claim.ids, self._owner, subject=message.subject, error=told, remedy=error.remedy
            )
        with self._guard:
            if of_channel:
                # The others for it wait as well: they would fail the same way.
                self._done.troubles[claim.channel] = f"{told}. {error.remedy}"
            if (error.retryable or of_channel) and now - claim.since < _LONGEST:
                self._done.postponed += 1
            else:
                self._done.failed += 1
        logger.warning("%s to %s: %s", claim.channel, claim.recipient or "-", told)


def message_of(claim: Claim, ui_url: str) -> Message:
    """Return what a claimed message says, as things stand now."""
    events = of_jobs.told(outbox.by_ids(claim.outbox_ids))
    now = database.now()
    with transaction() as connection:
        settings = account_settings(connection)
        described = [describe(connection, event, ui_url=ui_url, now=now) for event in events]
    return compose(
        described,
        settings,
        message_id=claim.message_id,
        recipient=claim.recipient,
        because=claim.held_because or "",
        attachments=[
            Attachment(name, content)
            for name, content in reports.files(
                [one.payload["attachment"] for one in events if one.payload.get("attachment")]
            )
        ],
    )


def _profile(raw: Mapping[str, object] | None) -> Notifications | None:
    if raw is None:
        return None
    try:
        return Notifications.model_validate(raw)
    except ValidationError:
        # Rules of an earlier version that today's refuse: the account-wide ones apply.
        return None
