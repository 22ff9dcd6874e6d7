"""A TCP server that says exactly what a test wants, for replies no real server gives.

For how something behaves when the other side stalls, cuts, babbles or
throttles; everything else is tested against real servers::

    with scripted(http_reply(429, {"Retry-After": "7"})) as server:
        ... server.port ... server.requests
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

Script = bytes | Callable[[bytes], bytes]


@dataclass
class Scripted:
    """A running scripted server: where it is and what it was sent, one item a connection."""

    port: int
    requests: list[bytes] = field(default_factory=list)


def http_reply(
    status: int, headers: Mapping[str, str] | None = None, body: bytes | str = b""
) -> bytes:
    """Return a whole HTTP/1.1 reply; a Content-Length is added unless *headers* has one."""
    content = body.encode() if isinstance(body, str) else body
    lines = {"Content-Length": str(len(content)), "Connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + content


@contextmanager
def scripted(
    reply: Script = b"",
    *,
    stall: bool = False,
    drip: float | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Scripted]:
    """Answer each connection's first bytes with *reply*, then close it.

    Args:
        reply: the bytes, or a function of what was received.
        stall: keep the connection open after the reply and say nothing more.
        drip: seconds between single bytes of the reply.
        tls: serve TLS with this context.
    """
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            try:
                self._answer()
            except OSError:
                return  # the client gave up, as many of these tests want

        def _answer(self) -> None:
            if tls:
                self.request = tls.wrap_socket(self.request, server_side=True)
            self.request.settimeout(10)
            received = self.request.recv(65536)
            server.requests.append(received)
            answer = reply(received) if callable(reply) else reply
            if drip is None:
                self.request.sendall(answer)
            else:
                for value in answer:
                    if over.wait(drip):
                        return
                    self.request.sendall(bytes([value]))
            if stall:
                over.wait()

        def finish(self) -> None:
            self.request.close()

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            raise

    with Listener(("127.0.0.1", 0), Handler) as listener:
        server = Scripted(listener.server_address[1])
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            over.set()
            listener.shutdown()
            thread.join()
