"""An inventory whose notifiers are real servers, without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, text

from blocks._base import NotifierBlock
from blocks.notifiers.smtp import SmtpMail
from blocks.notifiers.webhook import Webhook
from certrail.connectors import Notifier
from certrail.notify import drain
from certrail.notify.drain import Drained
from certrail.notify.settings import NotificationSettings
from certrail.store import notifications, outbox
from certrail.store.database import transaction
from certrail.store.schema import connectors
from tests.support.hook_server import HookServer, hook_server
from tests.support.mail_server import MailServer, mail_server

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OPS = "ops@example.test"
UI = "http://127.0.0.1:4200"


@dataclass
class Desk:
    """Puts events in and lets them out.

    Attributes:
        mail, hooks: the receiving servers.
        blocks: notifiers, by ``slug/name``.
    """

    mail: MailServer
    hooks: HookServer
    blocks: dict[str, NotifierBlock] = field(default_factory=dict)

    def rules(self, **fields: Any) -> None:
        """Apply account-wide rules."""
        wanted = NotificationSettings.model_validate(fields)
        with transaction() as connection:
            notifications.keep_settings(connection, wanted.model_dump(mode="json"))

    def happen(self, event: str, location: str, **fields: Any) -> None:
        """Let something happen."""
        with transaction() as connection:
            outbox.put(connection, event, location, **fields)

    def route(self, now: datetime | None = None) -> int:
        """Route what happened."""
        return drain.route(now or datetime.now(UTC))

    def send(self) -> Drained:
        """Send what is due."""
        return drain.send_due(self.open, ui_url=UI)

    def drain(self) -> Drained:
        """Do both."""
        self.route()
        return self.send()

    @property
    def open(self) -> Callable[[str], AbstractContextManager[Notifier]]:
        """Open a notifier by its reference."""

        @contextmanager
        def opened(reference: str) -> Iterator[Notifier]:
            with self.blocks[reference].connect() as notifier:
                yield notifier

        return opened

    def pass_time(self, span: timedelta) -> None:
        """Let what waits become due as if *span* had passed."""
        with transaction() as connection:
            connection.execute(
                text("update notifications set due_at = due_at - :span, claimed_until = null"),
                {"span": span},
            )


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    """A mail server called `mail`, a webhook called `hook`, and rules for both."""
    with mail_server() as mail, hook_server(SECRET) as hooks:
        there = Desk(mail, hooks)
        there.blocks["notifier-smtp/mail"] = SmtpMail(
            host="127.0.0.1",
            port=mail.port,
            security="none",
            sender="Certrail <certrail@example.test>",
            timeout=10,
        )
        there.blocks["notifier-webhook/hook"] = Webhook(url=hooks.url, secret=SecretStr(SECRET))
        with transaction() as connection:
            connection.execute(
                insert(connectors),
                [
                    {"name": "mail", "slug": "notifier-smtp"},
                    {"name": "hook", "slug": "notifier-webhook"},
                ],
            )
        there.rules(email=[OPS], channels=["hook"])
        yield there
