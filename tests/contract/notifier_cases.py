"""The notifiers under contract: how to start the other side, and what it got."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr

from blocks._base import NotifierBlock
from blocks.notifiers.apprise import AppriseUrl
from blocks.notifiers.smtp import SmtpMail
from blocks.notifiers.webhook import Webhook
from tests.support.hook_server import HookServer, hook_server
from tests.support.mail_server import PASSWORD, USER, MailServer, mail_server
from tests.support.scripted import Script, http_reply

GAPS = frozenset({"credential", "html", "identity", "throttling"})
"""What a case may lack.

A credential of its own, markup, an id that the receiver sees, and a way to say for how
long to stay away: SMTP has none, and Apprise does not hand on what the service said.
"""

GOOD_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
WRONG_SECRET = "whsec_d3Jvbmctc2VjcmV0LW9mLW5vYm9keS13cm9uZy1zZWM="


@dataclass(frozen=True)
class Told:
    """What the other side got, in the words of a message."""

    id: str
    subject: str
    text: str
    html: str


class World(ABC):
    """A running other side.

    Attributes:
        block: good settings.
        intruder: settings with a wrong credential.
        secrets: texts that may never be seen.
    """

    block: NotifierBlock
    intruder: NotifierBlock
    secrets: tuple[str, ...]
    port: int
    recipient = ""

    @abstractmethod
    def told(self) -> list[Told]:
        """Return what was taken, oldest first."""

    @abstractmethod
    def at(self, port: int) -> NotifierBlock:
        """Return the same settings for another port, with the shortest patience there is."""

    @abstractmethod
    def refuse(self, *, for_ever: bool) -> str:
        """Let the other side refuse; returns the recipient to write to."""


@dataclass(frozen=True)
class Case:
    """A notifier under contract.

    Attributes:
        nonsense: what a server of this kind never says.
        lacks: declared gaps, of :data:`GAPS`.
    """

    name: str
    block: type[NotifierBlock]
    world: Callable[[], AbstractContextManager[World]]
    nonsense: Script
    lacks: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.name


class MailWorld(World):
    recipient = "ops@example.test"

    def __init__(self, server: MailServer, security: str) -> None:
        self.server = server
        self.port = server.port
        self.secrets = (PASSWORD, "lab-wrong-password")
        self._fields = {
            "host": "127.0.0.1",
            "port": server.port,
            "security": security,
            "username": USER,
            "sender": "Certrail Zürich <certrail@example.test>",
            "ca_bundle": server.ca_bundle if security != "none" else "",
        }
        self.block = SmtpMail(**self._fields, password=SecretStr(PASSWORD))
        self.intruder = SmtpMail(**self._fields, password=SecretStr("lab-wrong-password"))

    def told(self) -> list[Told]:
        return [
            Told(
                str(one.mail["Message-ID"]).strip("<>").partition("@")[0],
                one.subject,
                one.text,
                one.html,
            )
            for one in self.server.received
        ]

    def at(self, port: int) -> NotifierBlock:
        fields = {**self._fields, "port": port, "timeout": 1}
        return SmtpMail(**fields, password=SecretStr(PASSWORD))

    def refuse(self, *, for_ever: bool) -> str:
        return "unknown@example.test" if for_ever else "busy@example.test"


def _mail(security: str) -> Callable[[], AbstractContextManager[World]]:
    @contextmanager
    def world() -> Iterator[World]:
        with mail_server(security, auth=True) as server:
            yield MailWorld(server, security)

    return world


class HookWorld(World):
    def __init__(self, server: HookServer) -> None:
        self.server = server
        self.port = server.port
        self.secrets = (GOOD_SECRET, WRONG_SECRET)
        self.block = Webhook(url=server.url, secret=SecretStr(GOOD_SECRET))
        self.intruder = Webhook(url=server.url, secret=SecretStr(WRONG_SECRET))

    def told(self) -> list[Told]:
        return [
            Told(seen, one["subject"], one["events"][0]["detail"], "")
            for seen, one in zip(self.server.ids, self.server.received, strict=True)
        ]

    def at(self, port: int) -> NotifierBlock:
        url = f"http://127.0.0.1:{port}/hook"
        return Webhook(url=url, secret=SecretStr(GOOD_SECRET), timeout=1)

    def refuse(self, *, for_ever: bool) -> str:
        self.server.status = 422 if for_ever else 503
        return ""


@contextmanager
def _hook() -> Iterator[World]:
    with hook_server(GOOD_SECRET) as server:
        yield HookWorld(server)


class AppriseWorld(World):
    """Apprise's own ``json://``, the plainest of its services."""

    def __init__(self, server: HookServer) -> None:
        self.server = server
        self.port = server.port
        self.secrets = ("lab-apprise-token",)
        self.block = self.at(server.port)
        self.intruder = self.block

    def told(self) -> list[Told]:
        return [Told("", one["title"], one["message"], "") for one in self.server.received]

    def at(self, port: int) -> NotifierBlock:
        url = f"json://me:lab-apprise-token@127.0.0.1:{port}/hook?rto=1&cto=1"
        return AppriseUrl(url=SecretStr(url))

    def refuse(self, *, for_ever: bool) -> str:
        self.server.status = 400 if for_ever else 503
        return ""


@contextmanager
def _apprise() -> Iterator[World]:
    with hook_server() as server:
        yield AppriseWorld(server)


_NOT_HTTP = b"220 I am a mail server\r\n"
_NOT_SMTP = http_reply(200, body="I am a web server")
_NO_WAIT = frozenset({"throttling"})

CASES = (
    Case("smtp starttls", SmtpMail, _mail("starttls"), _NOT_SMTP, _NO_WAIT),
    Case("smtp tls", SmtpMail, _mail("tls"), _NOT_SMTP, _NO_WAIT),
    Case("smtp in the clear", SmtpMail, _mail("none"), _NOT_SMTP, _NO_WAIT),
    Case("webhook", Webhook, _hook, _NOT_HTTP, frozenset({"html"})),
    Case(
        "apprise",
        AppriseUrl,
        _apprise,
        _NOT_HTTP,
        frozenset({"html", "identity", "credential"}) | _NO_WAIT,
    ),
)
