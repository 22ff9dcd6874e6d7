"""``certrail notify``: try notifications, see their words, and follow what was delivered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import click

from certrail import settings
from certrail.cli import _prefect, _prefect_blocks
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import echo_json, echo_table, examples
from certrail.configuration.profile import check_address
from certrail.errors import CertrailError, InvalidRequest, NotFound
from certrail.events import KINDS, Severity, kind_of, matches
from certrail.log import plain
from certrail.notify import rules
from certrail.notify.compose import compose
from certrail.notify.drain import account_settings
from certrail.notify.sample import EVENT
from certrail.notify.settings import NotificationSettings
from certrail.notify.words import describe
from certrail.store import audit, notifications, outbox
from certrail.store.database import transaction
from certrail.store.notifications import Delivery
from certrail.store.request_view import time_text

_STATUSES = ("pending", "sent", "failed", "dropped")


@click.group(
    epilog=examples("certrail notify test", "certrail notify log", "certrail notify preview")
)
def notify() -> None:
    """Test, preview and follow notifications."""


@notify.command(
    epilog=examples(
        "certrail notify test",
        "certrail notify test --channel mail --to ops@example.org",
        "certrail notify test --channel pager --json",
    )
)
@click.option("--channel", help="Only this notifier; by default all that the rules name.")
@click.option("--to", "recipient", help="Write to this address instead of those of the rules.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def test(channel: str | None, recipient: str | None, as_json: bool) -> int:
    """Send a test message now, from this machine, to whom the account-wide rules name.

    Exit code 1 if one of them does not take it.
    """
    found = _prefect.installation()
    if recipient:
        try:
            check_address((recipient,))
        except ValueError as exc:
            raise InvalidRequest(str(exc)) from exc
    with transaction() as connection:
        account = account_settings(connection)
        known = notifications.channels(connection)
    results = [
        _tried(target, known[target.channel], account, found.ui_url)
        for target in _tested(account, known, channel, recipient)
    ]
    audit.note_now(
        audit.local_actor(),
        "notify.test",
        channel or "account-wide",
        {"sent": sum(one["ok"] for one in results), "failed": sum(not r["ok"] for r in results)},
    )
    if as_json:
        echo_json(results)
    for one in () if as_json else results:
        word = click.style("sent", fg="green") if one["ok"] else click.style("failed", fg="red")
        to = f" to {one['recipient']}" if one["recipient"] else ""
        click.echo(f"{one['channel']}{to}: {word}: {plain(one['message'])}")
        if one["remedy"]:
            click.echo(f"  remedy: {plain(one['remedy'])}")
    return DONE if all(one["ok"] for one in results) else FAILED


@notify.command(
    epilog=examples(
        "certrail notify preview --event automation-failed",
        "certrail notify preview --event certificate-expired --part html > message.html",
        "certrail notify preview --id 3f0c8f8e-5f0e-4a52-9b1e-0b6b7f6f2f3a",
    )
)
@click.option("--event", default="automation-failed", show_default=True, help="Kind of event.")
@click.option("--id", "event_id", help="An event that happened, by its id.")
@click.option(
    "--part",
    type=click.Choice(["subject", "text", "html"]),
    help="Only this part; by default subject and text.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all parts.")
def preview(event: str, event_id: str | None, part: str | None, as_json: bool) -> None:
    """Show a message as it would be written, by your templates where you have any."""
    found = settings.adopt()
    with transaction() as connection:
        account = account_settings(connection)
        described = _described(connection, event_id, found.ui_url) if event_id else _invented(event)
    message = compose([described], account, message_id="preview", recipient="")
    if as_json:
        echo_json({"subject": message.subject, "text": message.text, "html": message.html})
    elif part:
        click.echo(getattr(message, part))
    else:
        click.echo(f"Subject: {message.subject}\n\n{message.text}")


@notify.command(
    epilog=examples(
        "certrail notify log --status failed",
        "certrail notify log --location www.example.org:443 --json",
    )
)
@click.option("--status", type=click.Choice(_STATUSES), help="Only these.")
@click.option("--to", "recipient", help="Only for this address or channel.")
@click.option("--location", help="Only about this endpoint.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Newest first."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def log(
    status: str | None, recipient: str | None, location: str | None, limit: int, as_json: bool
) -> None:
    """List who was told of what, and what became of it."""
    settings.adopt()
    rows = notifications.log(status=status, recipient=recipient, location=location, limit=limit)
    if as_json:
        echo_json([_to_json(row) for row in rows])
    elif rows:
        columns = ("created", "event", "location", "to", "status", "tries", "said")
        echo_table([(name, name) for name in columns], [_for_people(row) for row in rows])
    else:
        click.echo("nobody was told of anything yet")


@notify.command("list", epilog=examples("certrail notify list", "certrail notify list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(as_json: bool) -> None:
    """List every kind of event, and who hears of it by the account-wide rules."""
    settings.adopt()
    with transaction() as connection:
        account = account_settings(connection)
        known = notifications.channels(connection)
    mail = rules.mail_channel(account, known)
    rows = []
    for kind in KINDS:
        told = rules.targets(kind, account, None, mail)
        in_digest = account.digest is not None and matches(account.digest.events, kind)
        rows.append(
            {
                "event": kind.slug,
                "name": kind.name,
                "severity": str(kind.severity),
                "title": kind.title,
                "to": [one.recipient or one.channel for one in told],
                "digest": in_digest and kind.severity is not Severity.CRITICAL,
            }
        )
    if as_json:
        echo_json(rows)
        return
    columns = ("event", "severity", "title", "to", "digest")
    echo_table([(name, name) for name in columns], rows)
    if account.email and mail is None:
        click.echo("nothing carries e-mail: add a connector of type notifier-smtp", err=True)


def _tested(
    account: NotificationSettings,
    known: dict[str, str],
    channel: str | None,
    recipient: str | None,
) -> Sequence[rules.Target]:
    mail = rules.mail_channel(account, known)
    if channel is not None and channel not in known:
        raise NotFound(
            f"there is no notifier {channel}",
            remedy=f"There are: {', '.join(known) or 'none'}; `certrail connector add` adds one.",
        )
    if recipient:
        carrier = channel or mail
        if carrier is None or known.get(carrier) != rules.MAIL:
            raise InvalidRequest(
                "nothing carries e-mail", remedy="Name a connector of type notifier-smtp."
            )
        return (rules.Target(carrier, recipient),)
    found = [rules.Target(name) for name in account.channels]
    found += [rules.Target(mail, address) for address in account.email] if mail else []
    if channel is not None:
        found = [one for one in found if one.channel == channel]
        if not found and known[channel] != rules.MAIL:
            found = [rules.Target(channel)]
    if not found:
        raise InvalidRequest(
            "the account-wide rules name nobody",
            remedy="Write `notifications:` with `email` or `channels` into the configuration file "
            "and apply it, or give --channel and --to.",
        )
    return found


def _tried(
    target: rules.Target, slug: str, account: NotificationSettings, ui_url: str
) -> dict[str, Any]:
    described = {
        **_invented("test"),
        "id": str(uuid4()),
        "location": "this installation",
        "detail": f"{audit.local_actor()} asked for it with `certrail notify test`",
        "facts": [{"name": "Installation", "value": ui_url}],
        "link": "",
        "commands": [],
    }
    message = compose([described], account, message_id=described["id"], recipient=target.recipient)
    result: dict[str, Any] = {
        "channel": target.channel,
        "recipient": target.recipient,
        "ok": False,
        "message": "",
        "remedy": None,
    }
    try:
        with _prefect_blocks.load_block(f"{slug}/{target.channel}").connect() as notifier:
            return {**result, "ok": True, "message": notifier.send(message)}
    except CertrailError as exc:
        return {**result, "message": str(exc), "remedy": exc.remedy}


def _described(connection: Any, event_id: str, ui_url: str) -> dict[str, Any]:
    try:
        wanted = UUID(event_id)
    except ValueError as exc:
        raise InvalidRequest(f"{event_id!r} is no id of an event") from exc
    found = outbox.by_event_id(connection, wanted)
    if found is None:
        raise NotFound(
            f"there is no event {wanted}", remedy="`certrail notify log --json` has ids."
        )
    return describe(connection, found, ui_url=ui_url, now=datetime.now(UTC))


def _invented(slug: str) -> dict[str, Any]:
    kind = next((one for one in KINDS if slug in (one.slug, one.name)), None)
    if kind is None:
        raise InvalidRequest(
            f"there is no event {slug!r}", remedy="`certrail notify list` shows all."
        )
    failed = kind.severity.rank >= Severity.WARNING.rank
    return {
        **EVENT,
        "name": kind.name,
        "slug": kind.slug,
        "severity": str(kind.severity),
        "title": kind.title,
        "needs": kind.needs,
        "cause": EVENT["cause"] if failed else "",
        "remedy": EVENT["remedy"] if failed else "",
        "detail": "" if failed else "as it should be",
    }


def _to_json(row: Delivery) -> dict[str, Any]:
    return {
        "id": row.id,
        "event_id": str(row.event_id),
        "event": kind_of(row.event).slug,
        "name": row.event,
        "location": row.location,
        "request_id": str(row.request_id) if row.request_id else None,
        "channel": row.channel,
        "recipient": row.recipient,
        "status": row.status,
        "attempts": row.attempts,
        "held_because": row.held_because,
        "subject": row.subject,
        "answer": row.answer,
        "last_error": row.last_error,
        "remedy": row.remedy,
        "message_id": row.message_id,
        "created_at": time_text(row.created_at),
        "due_at": time_text(row.due_at),
        "ended_at": time_text(row.ended_at),
    }


def _for_people(row: Delivery) -> dict[str, Any]:
    return {
        "created": row.created_at,
        "event": kind_of(row.event).slug,
        "location": row.location,
        "to": row.recipient or row.channel,
        "status": row.status,
        "tries": row.attempts,
        "said": row.answer or row.last_error or row.held_because,
    }
