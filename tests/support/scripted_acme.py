"""A little HTTP server that says to an ACME client whatever a test wants it to hear.

It checks no signature and keeps no state: real servers (Pebble, Caddy, OpenBao,
acme2certifier) show that the client is understood, this one shows what the client
does with answers that no proper server gives on demand.
"""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

PROBLEM = "urn:ietf:params:acme:error:"
_NONCES = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
        body: an object becomes JSON; text and bytes go out as they are.
        status: HTTP status.
        headers: beside Replay-Nonce, which is added unless ``nonce`` is False.
        nonce: whether a fresh nonce goes along.
        cut: promise this many bytes more than are sent, then close.
        drip: send one byte at a time with this many seconds between.
    """

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    nonce: bool = True
    cut: int = 0
    drip: float = 0

    @classmethod
    def problem(cls, code: str, status: int = 400, **more: Any) -> Answer:
        """Return a problem document of the ACME type *code*."""
        headers = {"Content-Type": "application/problem+json", **more.pop("headers", {})}
        detail = more.pop("detail", f"this is {code}")
        return cls({"type": PROBLEM + code, "detail": detail, **more}, status, headers)

    def content(self) -> bytes:
        """Return the body as bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(frozen=True)
class Request:
    """What was asked; *payload* is what was signed, None where nothing was."""

    method: str
    path: str
    header: Mapping[str, Any]
    payload: bytes | None

    @property
    def json(self) -> Any:
        """The payload read as JSON."""
        return json.loads(self.payload or b"null")


Script = Answer | list[Answer] | Callable[[Request], Answer]


class ScriptedAcme:
    """A running server; see :func:`scripted_acme`.

    Attributes:
        url: its origin, without a trailing slash.
        requests: everything asked so far.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._guard = threading.Lock()
        self._script: dict[str, Script] = {
            "/dir": Answer(self.directory()),
            "/nonce": Answer(),
            "/account": Answer({"status": "valid"}, 201, {"Location": f"{url}/account/1"}),
        }

    def directory(self, **changes: Any) -> dict[str, Any]:
        """Return a directory object; a changed field set to None is left out."""
        fields = {
            "newNonce": f"{self.url}/nonce",
            "newAccount": f"{self.url}/account",
            "newOrder": f"{self.url}/order",
            "revokeCert": f"{self.url}/revoke",
            "renewalInfo": f"{self.url}/ari",
            **changes,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def order(self, **changes: Any) -> dict[str, Any]:
        """Return an order object with one authorization."""
        return {
            "status": "pending",
            "identifiers": [{"type": "dns", "value": "a.test"}],
            "authorizations": [f"{self.url}/authz/1"],
            "finalize": f"{self.url}/order/1/finalize",
            **changes,
        }

    def new_order(self, **changes: Any) -> Answer:
        """Return the answer to a good newOrder request."""
        return Answer(self.order(**changes), 201, {"Location": f"{self.url}/order/1"})

    def authorization(self, **changes: Any) -> dict[str, Any]:
        """Return a pending authorization for ``a.test`` with a dns-01 challenge."""
        return {
            "status": "pending",
            "identifier": {"type": "dns", "value": "a.test"},
            "challenges": [self.challenge()],
            **changes,
        }

    def challenge(self, **changes: Any) -> dict[str, Any]:
        """Return a pending dns-01 challenge."""
        fields = {"type": "dns-01", "status": "pending", "token": "t" * 43}
        return {**fields, "url": f"{self.url}/challenge/1", **changes}

    def on(self, path: str, script: Script) -> None:
        """Answer requests for *path* so; a list is used up, its last answer stays."""
        self._script[path] = script

    def asked(self, path: str) -> list[Request]:
        """Return the requests made for *path*."""
        return [request for request in self.requests if request.path == path]

    def answer(self, request: Request) -> Answer:
        """Return what the script says."""
        with self._guard:
            self.requests.append(request)
            script = self._script.get(request.path, Answer.problem("malformed", 404))
            if isinstance(script, list):
                return script.pop(0) if len(script) > 1 else script[0]
        return script(request) if callable(script) else script


@contextmanager
def scripted_acme(certificate: trustme.LeafCert | None = None) -> Iterator[ScriptedAcme]:
    """Run the server on a free port of 127.0.0.1; its directory is at ``/dir``.

    With *certificate* it speaks TLS and presents that.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every reply takes 40 ms

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            header, payload = _signed(self.rfile.read(length)) if length else ({}, None)
            answer = script.answer(Request(self.command, self.path, header, payload))
            content = answer.content()
            self.send_response_only(answer.status)
            self.send_header("Date", answer.headers.get("Date") or self.date_time_string())
            if answer.nonce:
                nonce = base64.urlsafe_b64encode(f"{next(_NONCES):012}".encode()).decode()
                self.send_header("Replay-Nonce", nonce)
            for name, value in answer.headers.items():
                if name != "Date":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) + answer.cut))
            self.end_headers()
            if self.command != "HEAD":
                self._write(content, answer.drip)
            self.close_connection = self.close_connection or bool(answer.cut)

        def _write(self, content: bytes, drip: float) -> None:
            for start in range(0, len(content), step := 1 if drip else len(content) or 1):
                self.wfile.write(content[start : start + step])
                time.sleep(drip)

        do_GET = do_HEAD = do_POST = do_CONNECT = _handle  # noqa: N815 - names that the base class calls

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    script = ScriptedAcme(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up on too long a reply does what it should."""


def _signed(body: bytes) -> tuple[Mapping[str, Any], bytes]:
    message = json.loads(body)
    return json.loads(_decode(message["protected"])), _decode(message["payload"])


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
