"""A relay before a real server that speaks no HTTP, and breaks at one chosen request.

::

    with tcp_relay(server.port) as between:
        between.spoil(b"commit ssl cert", after=b"Success!")        # done, the reply is lost
        between.spoil(b"commit ssl cert")                           # never done
        between.spoil(b"SET", after=b"\\r\\n", instead=b"-ERR no\\r\\n")  # done, and denied
    between.choose = lambda part: Fault.STALLED                     # asked at each request
        ... talk to between.port ...
"""

from __future__ import annotations

import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.faulty_proxy import Fault

_LATE = 0.1


@dataclass(frozen=True)
class _Spoilt:
    request: bytes
    after: bytes | None
    instead: bytes


@dataclass
class TcpRelay:
    """A running relay: where it listens on 127.0.0.1.

    Attributes:
        choose: says of each request whether it is ``DELAYED``, ``TRUNCATED`` or ``STALLED``.
    """

    port: int
    choose: Callable[[bytes], Fault] = lambda _: Fault.NONE
    _spoilt: list[_Spoilt] = field(default_factory=list)

    def spoil(self, request: bytes, *, after: bytes | None = None, instead: bytes = b"") -> None:
        """Break the connection at the next request that has these bytes.

        *after*: only once the server's reply has these (b"": once it has closed); None:
        before the server hears of it. *instead* is said in place of the reply.
        """
        self._spoilt.append(_Spoilt(request, after, instead))

    def take(self, part: bytes) -> _Spoilt | None:
        """Return how the request *part* is spoilt, once; None where it is not."""
        found = next((one for one in self._spoilt if one.request in part), None)
        if found is not None:
            self._spoilt.remove(found)
        return found


@contextmanager
def tcp_relay(upstream: int) -> Iterator[TcpRelay]:
    """Relay to the port *upstream* of this machine."""

    class Handler(socketserver.BaseRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            try:
                with socket.create_connection(("127.0.0.1", upstream), timeout=20) as server:
                    self._carry(server)
            except OSError:
                return  # one of the two gave up

        def _carry(self, server: socket.socket) -> None:
            while True:
                ready, _, _ = select.select([self.request, server], [], [], 30)
                if not ready:
                    return
                for end in ready:
                    part = end.recv(65536)
                    if end is server:
                        if not part:
                            return
                        self.request.sendall(part)
                    elif spoilt := between.take(part):
                        if spoilt.after is not None:
                            server.sendall(part)
                            _wait(server, spoilt.after)
                        self.request.sendall(spoilt.instead)
                        return
                    elif not part:
                        server.shutdown(socket.SHUT_WR)
                        self._rest(server)
                        return
                    else:
                        server.sendall(part)
                        if self._spoil(server, between.choose(part)):
                            return

        def _spoil(self, server: socket.socket, fault: Fault) -> bool:
            """Spoil the reply to what was just sent on; returns whether nothing more comes."""
            if fault is Fault.DELAYED:
                time.sleep(_LATE)
            if fault not in (Fault.TRUNCATED, Fault.STALLED):
                return False
            reply = server.recv(65536)
            if fault is Fault.TRUNCATED:
                self.request.sendall(reply[: len(reply) // 2])
            else:
                self.request.recv(1)  # until the client gives up
            return True

        def _rest(self, server: socket.socket) -> None:
            while part := server.recv(65536):
                self.request.sendall(part)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Listener(("127.0.0.1", 0), Handler) as listener:
        between = TcpRelay(listener.server_address[1])
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield between
        finally:
            listener.shutdown()
            thread.join()


def _wait(server: socket.socket, end: bytes) -> None:
    """Take the reply up to *end*, all of it for b"", so that the work is done."""
    said = b""
    while part := server.recv(65536):
        said += part
        if end and end in said:
            return
