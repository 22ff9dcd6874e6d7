"""An HTTP proxy before a real service that spoils chosen replies.

For what only happens on the way: the service did its work, and the answer
got lost, or the request never arrived whole. With a certificate it is such a
proxy before an HTTPS service.
"""

from __future__ import annotations

import http.client
import http.server
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Fault(Enum):
    """What happens to one request."""

    NONE = "passed on"
    REFUSED_AFTER = "done, then answered with 502"
    CUT_AFTER = "done, then the connection breaks"
    CUT_BEFORE = "never done, the connection breaks"
    TRUNCATED = "done, then half of the answer and the connection breaks"
    STALLED = "done, then a long silence and the connection breaks"
    DELAYED = "done, then answered late"
    DOUBLED = "sent twice, the second answer passed on"
    STALE_NONCE = "never done, refused with badNonce (RFC 8555 section 6.5)"


_PATIENCE = 60.0
_SILENCE = 1.5
_LATE = 0.5
_STALE = b'{"type": "urn:ietf:params:acme:error:badNonce", "detail": "stale", "status": 400}'


_TIMES = {Fault.CUT_BEFORE: 0, Fault.STALE_NONCE: 0, Fault.DOUBLED: 2}
_WAITS = {Fault.STALLED: _SILENCE, Fault.DELAYED: _LATE}
_ANSWERED = (Fault.NONE, Fault.TRUNCATED, Fault.DELAYED, Fault.DOUBLED)

_Answer = tuple[http.client.HTTPResponse, bytes]
Choose = Callable[[str, str], Fault]
Hook = Callable[[str, str], None]
Instead = Callable[[str, str], tuple[int, bytes] | tuple[int, bytes, str] | None]
"""Status and problem document to answer with, without asking the service; None to ask it."""


def is_at(place: str, method: str, path: str) -> bool:
    """Tell whether a call is one of *place*: a method and a part of a path, ``PATCH /api/``."""
    wanted, _, part = place.partition(" ")
    return wanted == method and part in path


@dataclass
class Proxy:
    """A running proxy: where it is, what it does, what it has seen.

    Attributes:
        alone: part of a path; the service gets such a call while it has no other, "" for none.
    """

    port: int
    choose: Choose = lambda method, path: Fault.NONE
    alone: str = ""
    before: Hook = lambda method, path: None
    instead: Instead = lambda method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)


class _Gate:
    """Keeps calls apart that the service does not bear beside others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._asking = 0

    @contextmanager
    def passing(self, *, alone: bool) -> Iterator[None]:
        """Wait for a call's turn, and be passing meanwhile."""
        with self._changed:
            # One that has to be alone holds up those behind it, or its turn would never come.
            self._asking += alone
            self._changed.wait_for(lambda: not self._inside if alone else not self._asking)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._asking -= alone
                self._changed.notify_all()


@contextmanager
def faulty_proxy(
    upstream: int, tls: tuple[Path, Path] | None = None, *, keep: bool = False
) -> Iterator[Proxy]:
    """Pass requests on to the port *upstream* of this machine, and spoil what ``choose`` says.

    Websockets are passed on as they are.

    Args:
        upstream: where the service listens.
        tls: certificate and key for both sides; what the service presents is not looked at.
        keep: leave connections open, as for thousands of calls, where nothing is spoilt.
    """

    gate = _Gate()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet, or each call waits for an ACK
        disable_nagle_algorithm = True
        service: http.client.HTTPConnection | None = None

        def finish(self) -> None:
            self._leave()
            super().finish()

        def _pass(self) -> None:
            try:
                if self.headers.get("Upgrade", "").lower() == "websocket":
                    self._carry()
                else:
                    self._call()
            except (OSError, http.client.HTTPException):
                # The service is away, or the client gave up.
                self.close_connection = True

        def _call(self) -> None:
            # AWS has one path for everything and says in a header what is asked.
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            what = f"{self.path}{operation}"
            proxy.requests.append((self.command, what))
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if (answer := proxy.instead(self.command, what)) is not None:
                self._refuse(*answer)
                return
            fault = proxy.choose(self.command, what)
            self.close_connection |= not keep or fault is not Fault.NONE
            for _ in range(_TIMES.get(fault, 1)):
                proxy.before(self.command, what)
                with gate.passing(alone=bool(proxy.alone) and proxy.alone in what):
                    reply, content = self._ask(self.command, self.path, body, dict(self.headers))
            time.sleep(_WAITS.get(fault, 0))
            if fault in (Fault.REFUSED_AFTER, Fault.STALE_NONCE):
                self.send_response(502 if fault is Fault.REFUSED_AFTER else 400)
                said = b"" if fault is Fault.REFUSED_AFTER else _STALE
                self.send_header("Connection", "close")
                self.send_header("Content-Type", "application/problem+json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)
            elif fault in _ANSWERED:
                self.send_response(reply.status)
                if self.close_connection:
                    # Said, because a client that keeps it would lose its next request.
                    self.send_header("Connection", "close")
                for name, value in reply.getheaders():
                    if name.lower() not in (
                        *("content-length", "transfer-encoding", "connection"),
                        *("date", "server"),
                    ):
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    half = len(content) // 2 if fault is Fault.TRUNCATED else len(content)
                    self.wfile.write(content[:half])

        def _ask(self, command: str, path: str, body: bytes, headers: dict[str, str]) -> _Answer:
            if self.service is not None and _has_ended(self.service.sock):
                self._leave()
            self.service = self.service or _connection(upstream, is_tls=tls is not None)
            try:
                self.service.request(command, path, body, headers)
                reply = self.service.getresponse()
                return reply, reply.read()
            finally:
                if not keep:
                    self._leave()

        def _leave(self) -> None:
            if self.service is not None:
                self.service.close()
                self.service = None

        def _carry(self) -> None:
            self.close_connection = True
            with socket.create_connection(("127.0.0.1", upstream), timeout=20) as service:
                service.settimeout(None)
                head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                service.sendall(f"{self.requestline}\r\n{head}\r\n".encode("latin-1"))
                there = threading.Thread(target=self._send_on, args=(service,), daemon=True)
                there.start()
                with suppress(OSError):
                    while piece := service.recv(65536):
                        self.connection.sendall(piece)
                _end(self.connection)
                there.join(5)

        def _send_on(self, service: socket.socket) -> None:
            with suppress(OSError):
                while piece := self.rfile.read1(65536):
                    service.sendall(piece)
            _end(service)

        def _refuse(self, status: int, content: bytes, later: str = "") -> None:
            # An ACME client needs a nonce with every answer (RFC 8555 section 6.5).
            nonce, _ = self._ask("HEAD", "/nonce-plz", b"", {})
            self.close_connection = True
            self.send_response(status)
            self.send_header("Connection", "close")
            self.send_header("Replay-Nonce", nonce.headers["Replay-Nonce"])
            if later:
                self.send_header("Retry-After", later)
            self.send_header("Content-Type", "application/problem+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _pass  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            # The handshake belongs to the connection's own thread.
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        proxy = Proxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def _connection(port: int, *, is_tls: bool) -> http.client.HTTPConnection:
    if not is_tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=_PATIENCE, context=context)


def _has_ended(idle: socket.socket | None) -> bool:
    """Return whether the service has closed a connection meanwhile."""
    return idle is not None and bool(select.select([idle], [], [], 0)[0])


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
