"""The frame of an imitated REST service: real HTTP over a real socket, routes by pattern.

A service derives from :class:`RestService` and marks its methods::

    @route("GET", r"/order/(\\d+)")
    def order(self, call: Call, number: str) -> Answer: ...
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_Handler = Callable[..., "Answer"]


@dataclass(frozen=True)
class Answer:
    """A reply: status, body (JSON, or text as it is) and further headers."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request as the service sees it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Refusal(Exception):
    """Ends a call with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def route(method: str, pattern: str) -> Callable[[_Handler], _Handler]:
    """Mark a method as the one that answers *method* on paths that match *pattern* whole."""

    def mark(function: _Handler) -> _Handler:
        function.route = (method, re.compile(pattern))  # type: ignore[attr-defined]
        return function

    return mark


class RestService:
    """Routes calls to marked methods, one at a time."""

    port: int

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.RLock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def enter(self, call: Call) -> None:
        """Raise :class:`Refusal` for a call that is not let in."""

    def absent(self, call: Call) -> Answer:
        """Answer a path that there is not."""
        return Answer(404, {"errors": [{"code": "not_found", "message": "no such path"}]})

    def answer(self, call: Call) -> Answer:
        """Find and run the method for *call*."""
        with self._lock:
            self.calls.append((call.method, call.path))
            try:
                self.enter(call)
                for name in dir(type(self)):
                    method, pattern = getattr(getattr(type(self), name), "route", ("", None))
                    found = pattern.fullmatch(call.path) if pattern else None
                    if method == call.method and found:
                        answer: Answer = getattr(self, name)(call, *found.groups())
                        return answer
                return self.absent(call)
            except Refusal as refusal:
                return refusal.answer


@contextmanager
def serving(service: RestService) -> Iterator[None]:
    """Serve on a port of the kernel's choice, which is set on the service."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet, or each call waits for an ACK
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                body = raw
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            answer = service.answer(Call(self.command, parts.path, query, headers, body))
            if isinstance(answer.body, str):
                content, kind = answer.body.encode(), "text/plain"
            else:
                content = b"" if answer.body is None else json.dumps(answer.body).encode()
                kind = "application/json"
            self.send_response_only(answer.status)
            for name, value in {"Content-Type": kind, **answer.headers}.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            return  # clients under test break connections

    with Server(("127.0.0.1", 0), Handler) as server:
        service.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
