"""Commands in a PowerShell session on a Windows machine.

PowerShell remoting (MS-PSRP) over WinRM (MS-WSMV), spoken by pypsrp. What runs are
pipelines of commands with named parameters, never script text: no value can become
code, and a script block log has nothing of ours. A password goes as a ``SecureString``,
which is encrypted for the session (MS-PSRP section 2.2.5.1.24) besides TLS and which
module logging and transcripts show as ``System.Security.SecureString``.
"""

from __future__ import annotations

import logging
import math
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from blocks.targets.iis.failures import GRACE, command_error, protocol_error
from certrail.errors import ConnectorError, InvalidRequest, UnexpectedReply, Unreachable
from certrail.log import logger, plain
from certrail.remote import http
from certrail.remote.http_errors import error_of

Row = Mapping[str, Any]

# How long Windows keeps a session that was left, and we wait for its end.
# Windows itself sends half a megabyte at the most (MaxEnvelopeSizekb).
_LARGEST = 8 * 2**20
_IDLE, _GOODBYE = timedelta(minutes=15), timedelta(seconds=5)

# At DEBUG it writes whole messages, and a stall as an error of its own.
logging.getLogger("pypsrp").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Secret:
    """A text that goes as a ``SecureString``."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class Command:
    """One command of a pipeline: a cmdlet with parameters, or a program with arguments."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


def cmdlet(name: str, **parameters: Any) -> Command:
    """Return a cmdlet that ends its pipeline at the first error."""
    return Command(name, {**parameters, "ErrorAction": "Stop"})


class Remoting:
    """A session that is opened by its first command."""

    def __init__(self, sdk: Any, pool: Any, label: str, limit: timedelta) -> None:
        self._sdk = sdk
        self._pool = pool
        self._limit = limit
        self._opened = False
        self.label = label

    def run(self, *commands: Command) -> list[Any]:
        """Run one pipeline; returns a :data:`Row` for each object, plain values as they are.

        Raises:
            NotFound, PermissionRefused, Rejected: what the command failed with; ``code`` is
                its FullyQualifiedErrorId.
            Unreachable: also when it does not end in time; it may have been done.
        """
        what = f"{self.label}: {commands[-1].name}"
        if not self._opened:
            self._guarded(f"{self.label}: opening a session", self._pool.open)
            self._opened = True
        found: list[Any] = self._guarded(what, lambda: self._invoke(what, commands))
        return found

    def close(self) -> None:
        """End the session: an account may have few of them at a time."""
        if not self._opened:
            return
        self._pool.connection.transport.read_timeout = _GOODBYE.total_seconds()
        try:
            self._guarded(f"{self.label}: closing the session", self._pool.close)
        except ConnectorError as exc:
            logger.warning("iis.close failed: %s", exc)

    def _invoke(self, what: str, commands: tuple[Command, ...]) -> list[Any]:
        shell = self._sdk.PowerShell(self._pool)
        for command in commands:
            shell.add_cmdlet(command.name)
            for text in command.arguments:
                shell.add_argument(text)
            for name, value in command.parameters.items():
                shell.add_parameter(name, self._sent(value))
        deadline = time.monotonic() + self._limit.total_seconds()
        shell.begin_invoke()
        while shell.state == self._sdk.PSInvocationState.RUNNING:
            if time.monotonic() > deadline:
                raise TimeoutError
            shell.poll_invoke()
        if shell.had_errors or shell.streams.error:
            raise command_error(what, self.label, shell.streams.error)
        rows = [_row(one) for one in shell.output]
        shell.close()
        return rows

    def _sent(self, value: Any) -> Any:
        if not isinstance(value, Secret):
            return value
        self._pool.exchange_keys()
        return self._pool.serialize(value.text, self._sdk.ObjectMeta("SS"))

    def _guarded(self, what: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except ConnectorError as exc:
            if exc.connector == "":
                exc.connector = self.label
            raise
        except Exception as exc:  # noqa: BLE001 - three libraries' own, and what parsers raise
            found = protocol_error(exc, what, self.label)
        # Outside the handler: theirs quotes messages, with what was sent.
        raise found


@contextmanager
def remoting(
    url: str,
    username: str,
    password: str,
    *,
    auth: str = "negotiate",
    ca_bundle: str = "",
    client_certificate: tuple[str, str] = ("", ""),
    configuration: str = "Microsoft.PowerShell",
    label: str = "",
    timeout: timedelta = timedelta(seconds=60),
    grace: timedelta = GRACE,
) -> Iterator[Remoting]:
    """Prepare a session; nothing is sent before its first command.

    Args:
        timeout: how long a command may take.
        grace: how much longer than that an answer may be on its way.

    Raises:
        InvalidRequest: pypsrp is not installed, or a setting cannot be right.
    """
    sdk = _library()
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname or "", parsed.port
    except ValueError:
        host, port = "", None
    if not host or parsed.scheme not in ("https", "http"):
        raise InvalidRequest(
            f"not the address of a WinRM service: {plain(url)}",
            remedy="Write it as https://host[:5986][/wsman].",
        )
    http.tls_context(ca_bundle)  # says what is wrong with the bundle
    seconds, more = timeout.total_seconds(), grace.total_seconds()
    with ExitStack() as stack:
        wsman = sdk.WSMan(
            host,
            port=port,
            path=parsed.path.strip("/") or "wsman",
            ssl=parsed.scheme == "https",
            username=username or None,
            password=password or None,
            auth=auth,
            # Not above TLS; without TLS the machine is this one.
            encryption="auto" if parsed.scheme == "https" else "never",
            cert_validation=_roots(ca_bundle, stack),
            certificate_pem=client_certificate[0] or None,
            certificate_key_pem=client_certificate[1] or None,
            operation_timeout=math.ceil(seconds) if more else seconds,
            connection_timeout=min(seconds + more, 30),
            read_timeout=seconds + more,
            reconnection_retries=0,
            reconnection_backoff=0,
        )
        stack.callback(wsman.close)
        # The library makes it when it sends first, too late to look at its replies.
        wsman.transport.session = session = wsman.transport._build_session()
        session.max_redirects = 0
        session.hooks["response"].append(_looker(label, timeout + grace))
        pool = sdk.RunspacePool(
            wsman,
            configuration_name=configuration,
            session_key_timeout_ms=int(seconds * 1000),
            idle_timeout=int(_IDLE.total_seconds()),
        )
        opened = Remoting(sdk, pool, label, timeout + grace)
        stack.callback(opened.close)
        yield opened


def _looker(label: str, longest: timedelta) -> Callable[..., None]:
    """Return what reads each reply before pypsrp does: its status, ``Retry-After``, and its body.

    pypsrp would read without end, in size and, as long as something comes, in time.
    """

    def look(reply: Any, **_: object) -> None:
        # A fault of WinRM's own is a 500 with an envelope; a 401 may be part of a login.
        is_soap = "soap+xml" in reply.headers.get("Content-Type", "")
        if reply.status_code in (200, 401) or (reply.status_code == 500 and is_soap):
            _read(reply, label, longest)
            return
        reply.close()
        seen = httpx.Response(
            reply.status_code,
            headers=dict(reply.headers),
            request=httpx.Request("POST", reply.url),
        )
        raise error_of(seen, f"{label}: WinRM", label)

    return look


def _read(reply: Any, label: str, longest: timedelta) -> None:
    body = bytearray()
    end = time.monotonic() + longest.total_seconds()
    while piece := reply.raw.read1(65536, decode_content=True):
        body += piece
        if len(body) > _LARGEST:
            reply.close()
            raise UnexpectedReply(
                f"{label}: the reply of WinRM is longer than {_LARGEST} bytes", connector=label
            )
        if time.monotonic() > end:
            reply.close()
            raise Unreachable(
                f"{label}: WinRM did not end its reply in time", connector=label, code="timeout"
            )
    reply._content = bytes(body)
    reply._content_consumed = True


def _library() -> Any:
    try:
        from blocks.targets.iis import _pypsrp
    except ImportError as exc:
        raise InvalidRequest(
            "PowerShell remoting needs the library pypsrp, which is not installed",
            remedy="Install it: pip install 'certrail[iis]'.",
        ) from exc
    return _pypsrp


@contextmanager
def pem_file(text: str) -> Iterator[str]:
    """Keep *text* in a file of our own, which the library reads each time that it connects."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(text)
        file.flush()
        yield file.name


def _roots(ca_bundle: str, stack: ExitStack) -> str | bool:
    if "-----BEGIN" in ca_bundle:
        return stack.enter_context(pem_file(ca_bundle))
    known = ssl.get_default_verify_paths()
    return ca_bundle or known.cafile or known.capath or True


def _row(value: Any) -> Any:
    """Return an object as a mapping of its properties."""
    if not hasattr(value, "extended_properties"):
        return value
    found = {**value.adapted_properties, **value.extended_properties}
    if not all(isinstance(name, str) for name in found):
        raise UnexpectedReply("an object whose properties have no names")
    return found
