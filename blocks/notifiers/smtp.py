"""E-mail through an SMTP server (RFC 5321), as text and HTML.

The connection is encrypted before anything is said, or not at all: a server
that offers no STARTTLS (RFC 3207) where it is asked for gets nothing.
"""

from __future__ import annotations

import base64
import mimetypes
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate, parseaddr
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from blocks._base import NotifierBlock, open_secret
from certrail.connectors import Notifier
from certrail.errors import (
    AuthenticationFailed,
    ConnectorError,
    InvalidRequest,
    PermissionRefused,
    Rejected,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.events import Severity
from certrail.log import effect, plain
from certrail.message import Message
from certrail.remote.http import tls_context

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_LONGEST = 300


class SmtpMail(NotifierBlock):
    """Write e-mail through an SMTP server, with STARTTLS, TLS from the start, or neither."""

    _block_type_name = "Certrail notifier: e-mail (SMTP)"
    _block_type_slug = "notifier-smtp"

    host: str = Field(description="Name or address of the SMTP server.")
    port: int = Field(
        default=0, ge=0, le=65535, description="Its port; 0: 587 (starttls), 465 (tls), 25 (none)."
    )
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is encrypted."
    )
    username: str = Field(default="", description="Account; empty: no login.")
    password: SecretStr | None = Field(
        default=None, description="Its password, or a reference to it."
    )
    sender: str = Field(
        description="From whom: an address, or `Certrail <certrail@example.org>`.",
    )
    reply_to: str = Field(default="", description="Where answers go, if not to the sender.")
    helo: str = Field(default="", description="Name we call ourselves; empty: this machine's.")
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) of the server; empty: system."
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds each answer may take.")

    @field_validator("sender")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if "@" not in parseaddr(value)[1] or not value.isprintable():
            raise ValueError(f"{plain(value)!r} is no e-mail address")
        return value

    @contextmanager
    def connect(self) -> Iterator[Notifier]:
        """Name the server; each message has a connection of its own."""
        password = open_secret(self.password)
        if self.username and not password:
            raise InvalidRequest(f"{self.label} has a username and no password")
        if self.username and self.security == "none" and not _is_loopback(self.host):
            raise InvalidRequest(
                f"{self.label} would send its password over the network in the clear",
                remedy="Set `security` to starttls or tls.",
            )
        yield _Smtp(self, password)


class _Smtp(Notifier):
    takes_addresses = True

    def __init__(self, settings: SmtpMail, password: str) -> None:
        self._settings = settings
        self._password = password
        self._port = settings.port or _PORTS[settings.security]
        self._where = f"{settings.host}:{self._port}"

    def check(self) -> str:
        with self._session() as server:
            server.noop()
            secured = "" if self._settings.security == "none" else ", encrypted"
            login = f", logged in as {self._settings.username}" if self._settings.username else ""
            return f"{self._where} answers{secured}{login}"

    def send(self, message: Message) -> str:
        mail = compose(message, sender=self._settings.sender, reply_to=self._settings.reply_to)
        sender = parseaddr(self._settings.sender)[1]
        with self._session() as server:
            international = not (sender + message.recipient).isascii()
            if international and not server.has_extn("smtputf8"):
                raise Rejected(
                    f"{self._where} does not take the address {plain(message.recipient)}: "
                    "it has no SMTPUTF8 (RFC 6531)",
                    remedy="Use an address of ASCII characters, or another server.",
                    connector=self._settings.label,
                )
            content = mail.as_bytes(policy=SMTPUTF8 if international else SMTP)
            options = ["SMTPUTF8"] if international else []
            server.ehlo_or_helo_if_needed()
            self._must(server.mail(sender, options), "MAIL FROM")
            self._must(server.rcpt(message.recipient), f"RCPT TO {message.recipient}")
            answer = server.data(content)
            self._must(answer, "DATA")
        said = _said(answer[1])
        effect("mail.sent", connector=self._settings.label, id=message.id, answer=said)
        return f"{answer[0]} {said}"

    @contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        settings = self._settings
        with _errors(settings.label, self._where, self._password):
            server = self._open()
            # A server that drips one byte at a time never runs into a timeout.
            limit = timedelta(seconds=settings.timeout * 4)
            watch = threading.Timer(limit.total_seconds(), _cut, [server])
            watch.daemon = True
            watch.start()
            try:
                server.ehlo()
                if settings.security == "starttls":
                    if not server.has_extn("starttls"):
                        raise Rejected(
                            f"{self._where} offers no STARTTLS, so nothing was sent",
                            remedy="Set `security` to tls and its port if the server has that; "
                            "otherwise somebody between may have removed the offer.",
                            connector=settings.label,
                            code="no-starttls",
                        )
                    server.starttls(context=tls_context(settings.ca_bundle))
                    server.ehlo()
                if settings.username:
                    self._login(server)
                yield server
                _bye(server)
            finally:
                watch.cancel()
                server.close()

    def _login(self, server: smtplib.SMTP) -> None:
        if "PLAIN" not in server.esmtp_features.get("auth", "").upper().split():
            server.login(self._settings.username, self._password)
            return
        # The library's own login takes ASCII only; RFC 4616 says UTF-8.
        token = f"\0{self._settings.username}\0{self._password}".encode()
        code, said = server.docmd("AUTH", f"PLAIN {base64.b64encode(token).decode()}")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, said)

    def _open(self) -> smtplib.SMTP:
        settings = self._settings
        helo = settings.helo or None
        if settings.security == "tls":
            return smtplib.SMTP_SSL(
                settings.host,
                self._port,
                local_hostname=helo,
                timeout=settings.timeout,
                context=tls_context(settings.ca_bundle),
            )
        return smtplib.SMTP(
            settings.host, self._port, local_hostname=helo, timeout=settings.timeout
        )

    def _must(self, answer: tuple[int, bytes], what: str) -> None:
        code, said = answer
        if not 200 <= code < 300:
            raise _refused(code, said, f"{self._where}: {what}", self._settings.label)


def compose(message: Message, *, sender: str, reply_to: str = "") -> EmailMessage:
    """Return *message* as an e-mail with text and HTML.

    Raises:
        InvalidRequest: the recipient is no address.
    """
    name, address = parseaddr(sender)
    mail = EmailMessage()
    mail["From"] = Address(name, addr_spec=address)
    local, at, host = message.recipient.rpartition("@")
    if not (local and at and host) or not message.recipient.isprintable():
        raise InvalidRequest(
            f"{plain(message.recipient)!r} is no e-mail address",
            remedy="Correct it under `notifications` and apply the file.",
        )
    mail["To"] = Address(username=local, domain=host)
    if reply_to:
        mail["Reply-To"] = reply_to
    mail["Subject"] = plain(message.subject)
    mail["Date"] = formatdate(localtime=False)
    domain = address.rpartition("@")[2]
    mail["Message-ID"] = f"<{message.id}@{domain}>"
    if message.thread:
        # All about one request is one conversation.
        mail["References"] = mail["In-Reply-To"] = f"<{message.thread}@{domain}>"
    # RFC 3834: no absence note may answer.
    mail["Auto-Submitted"] = "auto-generated"
    if message.severity in (Severity.CRITICAL, Severity.ERROR):
        mail["Importance"] = "high"
    mail["X-Certrail-Events"] = ", ".join(str(one["id"]) for one in message.events[:20])
    mail.set_content(message.text, charset="utf-8", cte="quoted-printable")
    mail.add_alternative(message.html, subtype="html", charset="utf-8", cte="quoted-printable")
    for file in message.attachments:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        main, _, sub = kind.partition("/")
        mail.add_attachment(file.content, maintype=main, subtype=sub, filename=plain(file.name))
    return mail


@contextmanager
def _errors(label: str, where: str, secret: str) -> Iterator[None]:
    try:
        yield
    except ConnectorError:
        raise
    except smtplib.SMTPAuthenticationError as exc:
        raise AuthenticationFailed(
            f"{where}: the login was refused: {exc.smtp_code} {_said(exc.smtp_error, secret)}",
            connector=label,
            code=str(exc.smtp_code),
        ) from None
    except smtplib.SMTPNotSupportedError as exc:
        raise Rejected(
            f"{where}: {plain(exc)}",
            remedy="The server offers no login on this connection: set `security` to starttls "
            "or tls, or leave `username` empty.",
            connector=label,
        ) from None
    except smtplib.SMTPResponseException as exc:
        raise _refused(exc.smtp_code, exc.smtp_error, where, label, secret) from None
    except ssl.SSLCertVerificationError as exc:
        raise Unreachable(
            f"{where}: the server's certificate is not trusted ({plain(exc.verify_message)})",
            remedy="If it is the right server, set ca_bundle to the CA that issued its "
            "certificate and address it by a name the certificate carries.",
            connector=label,
            code="untrusted",
        ) from exc
    except ssl.SSLError as exc:
        raise Unreachable(
            f"{where}: TLS failed: {plain(exc.reason or exc)}",
            remedy="Check `security` and `port`: tls is for 465, starttls for 587.",
            connector=label,
        ) from exc
    except TimeoutError as exc:
        raise Unreachable(f"{where}: no answer in time", connector=label, code="timeout") from exc
    except smtplib.SMTPServerDisconnected as exc:
        raise Unreachable(f"{where}: the connection was cut", connector=label) from exc
    except (OSError, socket.gaierror) as exc:
        raise Unreachable(f"{where}: {plain(exc.strerror or exc)}", connector=label) from exc
    except (smtplib.SMTPException, UnicodeError, ValueError) as exc:
        raise UnexpectedReply(
            f"{where}: this is no SMTP server: {type(exc).__name__}", connector=label
        ) from None


def _refused(
    code: int, said: bytes | str, what: str, label: str, secret: str = ""
) -> ConnectorError:
    """Return the error for a reply that is no success (RFC 5321 section 4.2.1)."""
    told = f"{what}: {code} {_said(said, secret)}"
    if code in (530, 538, 554) and "auth" in told.lower():
        return AuthenticationFailed(told, connector=label, code=str(code))
    if code == 550 and "relay" in told.lower():
        return PermissionRefused(
            told,
            remedy="Let the server relay for this machine, or give it an account.",
            connector=label,
            code=str(code),
        )
    if 400 <= code < 500:
        return Throttled(told, connector=label, code=str(code))
    if 500 <= code < 600:
        return Rejected(
            told,
            remedy="The server says why. Correct the address or the sender; "
            "`certrail notify test` shows whether it works.",
            connector=label,
            code=str(code),
        )
    return UnexpectedReply(told, connector=label)


def _said(text: bytes | str, secret: str = "") -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    if secret:
        words = words.replace(secret, "<hidden>")
    return plain(" ".join(words.split()))[:_LONGEST]


def _bye(server: smtplib.SMTP) -> None:
    # The message is with the other side; how it says good-bye changes nothing.
    try:
        server.quit()
    except (smtplib.SMTPException, OSError):
        return


def _cut(server: smtplib.SMTP) -> None:
    if server.sock is not None:
        try:
            server.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
