"""Replies of real and imitated services, spoiled after they came over their socket.

One reply of an operation is replaced; those before and after are as the service
sent them, so that the spoiled one meets a connector in any state.
"""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import botocore.httpsession
import httpx
import pytest
import requests.adapters
from botocore.awsrequest import AWSResponse

# No 429 and 503: that a service may say so is looked at elsewhere, and is waited for.
_STATUSES = (200, 201, 202, 204, 301, 302, 400, 401, 403, 404, 409, 410, 418, 500)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**63, 1e308, "", " ", "x" * 5000, [], {}, [[]], [None], {"a": {}}),
    *("\x1b[31mred\x1b[0m", "a\nb\r\nc", "\x00", "‮", "NaN", "../../etc/passwd", "2026-99-99"),
    *("2026-01-01T00:00:00Z", "-1", "1e999", "9" * 400, "http://127.0.0.1:1/", "\ud800", "*"),
    *("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",),
)
_PIECES = (
    *(b"\0", b"\n", b"\r\n\r\n", b'"', b"{", b"}", b"[", b"<", b"&", b">", b"\xff\xfe", b"\x1b["),
    *(b"9" * 400, b"null", b"-1", b"[" * 3000, b"<a>" * 500, b"<!DOCTYPE a [<!ENTITY a '&a;'>]>"),
)
# What PowerShell sends within WS-Management; a fragment's ids and flags come before its length.
_STREAM = re.compile(rb"<rsp:Stream[^>]*>([A-Za-z0-9+/=]+)<")
_BEFORE_LENGTH = 17


@dataclass
class Spoiler:
    """Spoils the reply number *which* (from 0) that reaches the thread it was made in.

    Attributes:
        seen: replies so far.
        hit: whether it was among them.
    """

    which: int
    chance: random.Random
    seen: int = 0
    hit: bool = False
    _thread: int = field(default_factory=threading.get_ident)

    def is_due(self) -> bool:
        """Count a reply; say whether it is the one."""
        if threading.get_ident() != self._thread:
            return False
        self.seen += 1
        self.hit |= self.seen == self.which + 1
        return self.seen == self.which + 1

    def body(self, data: bytes) -> bytes:
        """Return *data* with something wrong in it."""
        kind = self.chance.randrange(10)
        if kind < 6:
            with suppress(ValueError, RecursionError):
                return self._json(json.loads(data))
            if data.lstrip().startswith(b"<"):
                return self._xml(data)
        if kind == 9:
            return self.chance.choice((b"", b"<html>hello</html>", b"null", b"[]", b"{}", b'"x"'))
        return self.bytes(data)

    def status(self, given: int) -> int:
        """Return another status, sometimes."""
        return self.chance.choice(_STATUSES) if self.chance.random() < 0.2 else given

    def headers(self, given: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return headers, one of them lost or spoiled, sometimes."""
        found = list(given)
        if found and self.chance.random() < 0.2:
            name, _ = found.pop(self.chance.randrange(len(found)))
            if self.chance.random() < 0.5:
                found.append((name, self.chance.choice(("", "x", "-1", "ä\x7f", "9" * 300))))
        return found

    def _json(self, tree: Any) -> bytes:
        places = list(_places(tree, []))
        path = self.chance.choice(places)
        value = self.chance.choice(_VALUES)
        if not path:
            return json.dumps(value).encode()
        above = tree
        for part in path[:-1]:
            above = above[part]
        if self.chance.random() < 0.3:
            del above[path[-1]]
        else:
            above[path[-1]] = value
        return json.dumps(tree).encode()

    def _xml(self, data: bytes) -> bytes:
        streams = list(_STREAM.finditer(data))
        if streams and self.chance.random() < 0.6:
            one = self.chance.choice(streams)
            inner = base64.b64encode(self._fragment(base64.b64decode(one[1])))
            return data[: one.start(1)] + inner + data[one.end(1) :]
        texts = list(re.finditer(rb">([^<]*)<", data))
        if not texts or self.chance.random() < 0.3:
            return self.bytes(data)
        one = self.chance.choice(texts)
        value = str(self.chance.choice(_VALUES)).encode("utf-8", "surrogatepass")
        return data[: one.start(1)] + value + data[one.end(1) :]

    def _fragment(self, data: bytes) -> bytes:
        """Return a fragment of PowerShell remoting ([MS-PSRP] 2.2.4) whose length still fits."""
        head, message = data[:_BEFORE_LENGTH], data[_BEFORE_LENGTH + 4 :]
        start = message.find(b"<")
        if start < 0 or self.chance.random() < 0.2:
            message = self.bytes(message)
        else:
            message = message[:start] + self._xml(message[start:])
        return head + len(message).to_bytes(4, "big") + message

    def bytes(self, data: bytes) -> bytes:
        """Return *data* with pieces cut out, and others put in."""
        for _ in range(self.chance.randint(1, 3)):
            start = self.chance.randint(0, len(data))
            end = min(len(data), start + self.chance.choice((0, 1, 8, 60)))
            data = data[:start] + self.chance.choice((*_PIECES, b"")) + data[end:]
        return data


def _places(tree: Any, path: list[Any]) -> Iterator[list[Any]]:
    yield path
    if isinstance(tree, (dict, list)):
        parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in parts:
            yield from _places(value, [*path, key])


@contextmanager
def spoiled_http(spoiler: Spoiler) -> Iterator[None]:
    """Spoil what HTTP clients of this process get: httpx, requests, and the SDK of AWS."""
    plain_send = httpx.HTTPTransport.handle_request
    requests_send = requests.adapters.HTTPAdapter.send
    aws_send = botocore.httpsession.URLLib3Session.send

    def handle_request(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        reply = plain_send(self, request)
        if not spoiler.is_due():
            return reply
        content = reply.read()
        reply.close()
        kept = [
            (name, value)
            for name, value in reply.headers.items()
            if name not in ("content-length", "content-encoding", "transfer-encoding")
        ]
        return httpx.Response(
            spoiler.status(reply.status_code),
            headers=[(n.encode(), v.encode("latin-1")) for n, v in spoiler.headers(kept)],
            content=spoiler.body(content),
        )

    def send(self: botocore.httpsession.URLLib3Session, request: Any) -> AWSResponse:
        reply = aws_send(self, request)
        if spoiler.is_due() and not request.stream_output:
            changed = spoiler.body(reply.content)
            reply.status_code = spoiler.status(reply.status_code)
            reply._content = changed
        return reply

    def adapter_send(
        self: requests.adapters.HTTPAdapter, *given: Any, **named: Any
    ) -> requests.Response:
        reply = requests_send(self, *given, **named)
        if spoiler.is_due():
            reply._content = spoiler.body(reply.content)
            reply.status_code = spoiler.status(reply.status_code)
            kept = spoiler.headers(list(reply.headers.items()))
            reply.headers.clear()
            reply.headers.update(kept)
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.adapters.HTTPAdapter, "send", adapter_send)
        patch.setattr(httpx.HTTPTransport, "handle_request", handle_request)
        patch.setattr(botocore.httpsession.URLLib3Session, "send", send)
        yield


@contextmanager
def spoiling_relay(
    connect: Callable[[], socket.socket], due: Callable[[], Spoiler | None]
) -> Iterator[int]:
    """Pass connections on to a server of another protocol; returns the port.

    A piece that is spoiled is the last one of its connection.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_carry, args=(client, connect, due), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _carry(
    client: socket.socket,
    connect: Callable[[], socket.socket],
    due: Callable[[], Spoiler | None],
) -> None:
    with suppress(OSError), client, connect() as server:

        def forward() -> None:
            with suppress(OSError):
                while piece := client.recv(65536):
                    server.sendall(piece)
                server.shutdown(socket.SHUT_WR)

        there = threading.Thread(target=forward, daemon=True)
        there.start()
        while piece := server.recv(1 << 20):
            spoiler = due()
            if spoiler is not None:
                client.sendall(spoiler.body(piece))
                break
            client.sendall(piece)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        there.join(5)
