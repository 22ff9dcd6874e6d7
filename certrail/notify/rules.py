"""Who hears of an event, and when. Pure: no clock and no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from certrail.configuration.profile import Notifications
from certrail.events import Kind, Severity, matches
from certrail.notify.settings import Digest, NotificationSettings

PROGRAM = "notifier-webhook"
MAIL = "notifier-smtp"


@dataclass(frozen=True, slots=True)
class Target:
    """One recipient: a channel, and an address where the channel needs one."""

    channel: str
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a message is due.

    Attributes:
        due_at: not before then.
        digest: messages of one digest are told as one; None: by itself.
        held_because: why it waits, "" if it does not.
    """

    due_at: datetime
    digest: str | None = None
    held_because: str = ""


def mail_channel(account: NotificationSettings, channels: Mapping[str, str]) -> str | None:
    """Return the connector that carries e-mail, None if nothing says which.

    Args:
        account: the account-wide rules.
        channels: type of each notifier connector, by name.
    """
    if account.mail:
        return account.mail
    found = [name for name, slug in channels.items() if slug == MAIL]
    return found[0] if len(found) == 1 else None


def targets(
    kind: Kind,
    account: NotificationSettings,
    profile: Notifications | None,
    mail: str | None,
    named: tuple[str, ...] = (),
) -> tuple[Target, ...]:
    """Return who hears of an event of *kind*.

    Args:
        kind: what happened.
        account: the account-wide rules.
        profile: those of the endpoint's profile, None if it has none.
        mail: see :func:`mail_channel`.
        named: addresses that the event itself names; they are told in any case.
    """
    found = _all(named, (), mail)
    replaced = profile is not None and profile.mode == "replace"
    if not replaced and matches(account.events, kind):
        found |= _all(account.email, account.channels, mail)
    if profile is not None and matches(profile.events or account.events, kind):
        if profile.email or profile.channels:
            found |= _all(profile.email, profile.channels, mail)
        elif profile.events and not replaced:
            # Further events for those who are told anyway.
            found |= _all(account.email, account.channels, mail)
    return tuple(found)


def timing(
    kind: Kind, severity: Severity, channel_slug: str, account: NotificationSettings, now: datetime
) -> Timing:
    """Return when an event of *kind* is told through a channel of that type.

    Programs are told at once, and so is everybody of what is critical.
    """
    if channel_slug == PROGRAM or severity is Severity.CRITICAL:
        return Timing(now)
    if account.digest is not None and matches(account.digest.events, kind):
        due = next_digest(account.digest, now)
        return Timing(due, f"digest {due.isoformat()}", "digest")
    if account.quiet_hours is not None:
        for opens, closes in account.quiet_hours.openings(now, now + timedelta(seconds=1)):
            if opens <= now < closes:
                end = closes.astimezone(UTC)
                return Timing(end, f"quiet {end.isoformat()}", "quiet hours")
    return Timing(now)


def next_digest(digest: Digest, now: datetime) -> datetime:
    """Return when the digest is sent next, in UTC."""
    zone = ZoneInfo(digest.timezone)
    day = now.astimezone(zone).date()
    while True:
        due = datetime.combine(day, digest.at, zone).astimezone(UTC)
        if due > now:
            return due
        day += timedelta(days=1)


def pause(attempts: int, severity: Severity) -> timedelta:
    """Return how long to wait after the *attempts*-th try failed."""
    longest = 5 if severity is Severity.CRITICAL else 60
    return timedelta(minutes=min(2 ** min(attempts - 1, 10), longest))


def _all(email: tuple[str, ...], channels: tuple[str, ...], mail: str | None) -> dict[Target, None]:
    found = {Target(channel): None for channel in channels}
    if mail is not None:
        found |= {Target(mail, address): None for address in email}
    return found
