"""A real SMTP server (aiosmtpd) that keeps what it takes, for tests of notifications.

    with mail_server() as mail:
        ... mail.port ... mail.received
        mail.stop(); mail.start()   # down for a while, the same port

Some local parts are answered specially: ``unknown@`` 550, ``busy@`` 451.
"""

from __future__ import annotations

import asyncio
import email
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from typing import Any

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.support.process import free_port

USER, PASSWORD = "certrail", "lab-mail-password-ü"


@dataclass(frozen=True)
class Received:
    """One accepted message: who it was for, and what it says."""

    sender: str
    recipients: tuple[str, ...]
    mail: EmailMessage
    raw: bytes
    encrypted: bool

    @property
    def subject(self) -> str:
        """The subject as a mail program shows it."""
        return str(self.mail["Subject"]).strip()

    @property
    def text(self) -> str:
        """The part without markup."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """The part with markup."""
        return self._part("html")

    def _part(self, kind: str) -> str:
        part = self.mail.get_body((kind,))
        assert part is not None
        return str(part.get_content())


class MailServer:
    """A server in a thread of its own.

    Attributes:
        received: every accepted message, oldest first.
        hold: while it is set, a message is kept waiting before it is accepted.
        holding: set while one waits.
    """

    def __init__(self, security: str, *, auth: bool) -> None:
        self.port = free_port()
        self.received: list[Received] = []
        self.hold = threading.Event()
        self.holding = threading.Event()
        self.connections = 0
        self._security = security
        self._auth = auth
        authority = trustme.CA()
        self.ca_bundle = authority.cert_pem.bytes().decode()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self._tls)
        self._protocols: list[SMTP] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Listen, on the same port as before."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(20), "the mail server does not start"

    def stop(self) -> None:
        """Close every connection and stop listening; what was received stays."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        self._loop = self._thread = None

    def to(self, recipient: str) -> list[Received]:
        """Return what was accepted for *recipient*."""
        return [one for one in list(self.received) if recipient in one.recipients]

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        server = await self._loop.create_server(
            self._protocol,
            "127.0.0.1",
            self.port,
            ssl=self._tls if self._security == "tls" else None,
        )
        ready.set()
        await self._over.wait()
        server.close()
        for protocol in self._protocols:
            if isinstance(protocol.transport, asyncio.WriteTransport):
                protocol.transport.abort()
        self._protocols.clear()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.05)

    def _protocol(self) -> SMTP:
        self.connections += 1
        with warnings.catch_warnings():
            # It remarks that authentication without TLS is a risk: here it is meant.
            warnings.simplefilter("ignore")
            protocol = SMTP(
                self,
                enable_SMTPUTF8=True,
                hostname="mail.example.test",
                tls_context=self._tls if self._security == "starttls" else None,
                require_starttls=self._security == "starttls",
                auth_required=self._auth,
                auth_require_tls=self._security == "starttls",
                authenticator=self._authenticate,
                loop=self._loop,
            )
        self._protocols.append(protocol)
        return protocol

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
        return AuthResult(success=good, handled=good)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer special local parts, take all others."""
        local = address.partition("@")[0]
        if local == "unknown":
            return "550 5.1.1 no such mailbox"
        if local == "busy":
            return "451 4.7.1 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Keep the message, after a pause if one is asked for."""
        while self.hold.is_set():
            self.holding.set()
            await asyncio.sleep(0.02)
        raw = envelope.original_content or b""
        mail = email.message_from_bytes(raw, policy=default)
        assert isinstance(mail, EmailMessage)
        self.received.append(
            Received(
                sender=str(envelope.mail_from),
                recipients=tuple(envelope.rcpt_tos),
                mail=mail,
                raw=raw,
                encrypted=session.ssl is not None or self._security == "tls",
            )
        )
        return "250 2.0.0 queued"


@contextmanager
def mail_server(security: str = "none", *, auth: bool = False) -> Iterator[MailServer]:
    """Run a server; *security* is ``starttls``, ``tls`` or ``none``."""
    server = MailServer(security, auth=auth)
    server.start()
    try:
        yield server
    finally:
        server.hold.clear()
        server.stop()
