"""What the fakes of appliances have in common: an API over TLS, and a virtual server over TLS.

A fake answers only what its vendor documents; everything else is a failure of the
test that names the call. Faults are put in from outside::

    device.fault("PATCH", "/client-ssl/", reply=(503, {}), times=1)
    device.fault("PATCH", "/client-ssl/", cut=True, after=True)   # done, but the reply is lost
    device.spoil = lambda request: Way.DELAYED      # what happens on the way (faulty_proxy)
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import socketserver
import ssl
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import serialization

from certrail.model import Bundle, Fingerprint
from tests.support.faulty_proxy import Fault as Way
from tests.support.nginx import TestCa

_LATE = 0.1
_UNANSWERED = (Way.CUT_BEFORE, Way.CUT_AFTER, Way.STALLED, Way.TRUNCATED)
SITE = "www.example.test"


@dataclass(frozen=True)
class Request:
    """One call of the API."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def called(self) -> str:
        """The path; of a call by name (AWS) with ``#`` and the name."""
        name = self.headers.get("x-amz-target", "").rpartition(".")[2]
        if not name and b"Action=" in self.body:
            name = parse_qs(self.body.decode())["Action"][0]
        return f"{self.path}#{name}" if name else self.path

    def json(self) -> Any:
        """Return the body; *AssertionError* where the vendor would not take it as JSON."""
        assert "json" in self.headers.get("content-type", ""), f"{self.path}: not sent as JSON"
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    body: object = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body as bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Fault:
    """A reply in place of the device's own, or of none at all."""

    method: str
    path: str
    reply: Reply | None
    after: bool
    times: int

    def hits(self, request: Request) -> bool:
        """Return whether this call is spoilt, and count it."""
        if not self.times or self.method != request.method:
            return False
        if not re.search(self.path, request.called):
            return False
        self.times -= 1
        return True


class Device(ABC):
    """An appliance: ``url`` is its API, ``port`` its virtual server."""

    def __init__(self, site: str = SITE) -> None:
        """*site* is the name in the certificate that is there at first."""
        self.ca = TestCa()
        self.old = self.ca.bundle(site)
        self.lock = threading.RLock()
        self.calls: list[str] = []
        self.wrong: list[str] = []
        """What was asked that the vendor does not document."""
        self.stuck = False
        """The virtual server goes on with the certificate it had, whatever it is told."""
        self._faults: list[Fault] = []
        self._contexts: dict[tuple[str, bytes], ssl.SSLContext] = {}
        self._stuck_with: tuple[str, bytes] | None = None
        self.url = ""
        self.port = 0
        self.spoil: Callable[[Request], Way] = lambda _: Way.NONE
        """What happens to a call on the way; one that stalls does until the client gives up."""

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """Answer one call; called with the lock held."""

    @abstractmethod
    def live(self) -> tuple[str, bytes]:
        """Return certificate chain and key (PEM) that the virtual server is configured with."""

    def snapshot(self) -> dict[str, bytes]:
        """Return everything stored; what certificates are installed on has this."""
        raise NotImplementedError

    @property
    def roots(self) -> str:
        """The CA that the API's certificate comes from."""
        return self.ca.root.public_bytes(serialization.Encoding.PEM).decode()

    def fault(
        self,
        method: str,
        path: str,
        *,
        reply: Reply | None = None,
        cut: bool = False,
        after: bool = False,
        times: int = 1,
    ) -> None:
        """Spoil the next *times* calls; *after* lets the device do what was asked first."""
        assert cut is (reply is None)
        self._faults.append(Fault(method, path, reply, after, times))

    def served(self, port: int = 0) -> Fingerprint:
        """Return the fingerprint that a client of the virtual server sees."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", port or self.port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=SITE) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return Fingerprint(hashlib.sha256(der).hexdigest())

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve the API and the virtual server."""
        management = context_of(
            *_pair(self.ca.bundle("localhost")),
        )
        device = self

        class Api(_ApiHandler):
            owner: Device = device

        class Virtual(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    self.request.settimeout(10)
                    with device.live_context().wrap_socket(self.request, server_side=True) as tls:
                        tls.recv(1)
                except OSError:
                    return

        with _listening(Api, management) as api, _listening(Virtual, None) as virtual:
            self.url = f"https://localhost:{api}"
            self.port = virtual
            yield self
        assert not self.wrong, self.wrong

    def live_context(self) -> ssl.SSLContext:
        """Return how the virtual server answers a handshake now."""
        with self.lock:
            pair = self.live()
            if not self.stuck:
                self._stuck_with = pair
            pair = self._stuck_with or pair
            if pair not in self._contexts:
                self._contexts[pair] = context_of(*pair)
            return self._contexts[pair]

    def read(self, request: Request) -> Request:
        """Return a call as the device understands it."""
        return request

    def handle(self, request: Request) -> Reply | None:
        """Answer with faults applied; None cuts the connection."""
        with self.lock:
            self.calls.append(f"{request.method} {request.called}")
            fault = next((one for one in self._faults if one.hits(request)), None)
            if fault and not fault.after:
                return fault.reply
            try:
                reply = self.answer(request)
            except (AssertionError, KeyError, ValueError, TypeError) as exc:
                self.wrong.append(f"{request.method} {request.path}: {exc!r}")
                reply = Reply(500, {"message": "the fake does not know this call"})
            return fault.reply if fault else reply


class _ApiHandler(BaseHTTPRequestHandler):
    owner: Device
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or each call waits for an ACK
    disable_nagle_algorithm = True

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        url = urlsplit(self.path)
        request = self.owner.read(
            Request(
                self.command,
                unquote(url.path),
                {name: values[0] for name, values in parse_qs(url.query).items()},
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
            )
        )
        spoilt = self.owner.spoil(request)
        reply = None
        if spoilt is not Way.CUT_BEFORE:
            reply = self.owner.handle(request)
        if spoilt is Way.DOUBLED:
            reply = self.owner.handle(request)
        if spoilt is Way.STALLED:
            with suppress(OSError):
                self.rfile.read(1)
        if spoilt is Way.DELAYED:
            time.sleep(_LATE)
        # Of nothing there is no half.
        is_half = spoilt is Way.TRUNCATED and reply is not None and len(reply.content) > 1
        if reply is None or (spoilt in _UNANSWERED and not is_half):
            self.close_connection = True
            return
        self._answer(Reply(502, b"") if spoilt is Way.REFUSED_AFTER else reply, is_half)

    def _answer(self, reply: Reply, is_half: bool) -> None:
        self.close_connection |= is_half
        self.send_response(reply.status)
        headers = {"Content-Type": "application/json", **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        half = len(reply.content) // 2
        self.wfile.write(reply.content[:half] if is_half else reply.content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def _listening(
    handler: type[socketserver.BaseRequestHandler], context: ssl.SSLContext | None
) -> Iterator[int]:
    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            try:
                if context is not None:
                    request.settimeout(10)
                    request = context.wrap_socket(request, server_side=True)
                super().finish_request(request, client_address)
            except OSError:
                pass  # the client gave up
            finally:
                request.close()

        def handle_error(self, request: Any, client_address: Any) -> None:
            raise

    with Listener(("127.0.0.1", 0), handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield int(listener.server_address[1])
        finally:
            listener.shutdown()
            thread.join()


def _pair(bundle: Bundle) -> tuple[str, bytes]:
    assert bundle.key is not None
    return bundle.chain.text, bundle.key.reveal()


def context_of(chain: str, key: bytes) -> ssl.SSLContext:
    """Return how a server with that certificate answers a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(chain.encode() + b"\n" + key)
        context.load_cert_chain(file.name)
    return context


def pairs(certificate: bytes, key: bytes) -> bool:
    """Return whether *key* belongs to the first certificate."""
    try:
        context_of(certificate.decode(), key)
    except ssl.SSLError:
        return False
    return True
