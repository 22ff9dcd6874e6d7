"""A TCP link before a real service that breaks, whatever is spoken over it.

with link(server.port) as line:
    line.arm(Break.CUT, after=20)      # the 20th piece that comes back is the last one
    ... talk to line.port ...
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

_SILENCE = 1.5
_LATE = 0.3


class Break(Enum):
    """What happens to a connection at the piece that was chosen."""

    CUT = "the connection breaks before the piece arrives"
    TRUNCATED = "half of the piece arrives, then the connection breaks"
    STALLED = "a long silence, then the connection breaks"
    DELAYED = "the piece arrives late"
    ALL_CUT = "every connection breaks, as when the service is started anew"


@dataclass
class _Armed:
    fault: Break
    left: int


@dataclass
class Link:
    """A running link.

    Attributes:
        port: where it listens on 127.0.0.1.
        broken: how many faults have happened.
        when: asked at each piece; the first one for which it holds does not arrive.
        happened: which ones, all of them.
    """

    port: int
    broken: int = 0
    when: Callable[[], bool] | None = None
    happened: Counter[Break] = field(default_factory=Counter)
    _armed: list[_Armed] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: set[socket.socket] = field(default_factory=set)

    def arm(self, fault: Break, after: int) -> None:
        """Let *fault* happen at the piece number *after* that comes back from now on."""
        with self._lock:
            self._armed.append(_Armed(fault, after))

    def disarm(self) -> None:
        """Forget the faults that have not happened."""
        with self._lock:
            self.when = None
            self._armed.clear()

    def take(self) -> Break | None:
        """Count a piece; returns what is to happen to it."""
        with self._lock:
            if self.when is not None and self.when():
                self.when = None
                self.broken += 1
                return Break.CUT
            for one in self._armed:
                one.left -= 1
            due = next((one for one in self._armed if one.left <= 0), None)
            if due is None:
                return None
            self._armed.remove(due)
            self.broken += 1
            self.happened[due.fault] += 1
            return due.fault

    def cut(self) -> None:
        """Break every connection that is open."""
        with self._lock:
            open_now = list(self._open)
        for one in open_now:
            _end(one)

    def keep(self, *ends: socket.socket) -> None:
        """Note both ends of a connection."""
        with self._lock:
            self._open.update(ends)

    def drop(self, *ends: socket.socket) -> None:
        """Close both ends of a connection."""
        with self._lock:
            self._open.difference_update(ends)
        for one in ends:
            _end(one)
            one.close()


@contextmanager
def link(upstream: int) -> Iterator[Link]:
    """Pass TCP connections on to the port *upstream* of this machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        line = Link(listener.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_carry, args=(line, client, upstream), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield line
        finally:
            _end(listener)
            line.cut()
            thread.join(5)


def _carry(line: Link, client: socket.socket, upstream: int) -> None:
    try:
        server = socket.create_connection(("127.0.0.1", upstream), timeout=10)
    except OSError:
        client.close()
        return
    server.settimeout(None)
    line.keep(client, server)

    def forward() -> None:
        with suppress(OSError):
            while piece := client.recv(65536):
                server.sendall(piece)
        _end(server)

    there = threading.Thread(target=forward, daemon=True)
    there.start()
    with suppress(OSError):
        while piece := server.recv(65536):
            fault = line.take()
            if fault is Break.ALL_CUT:
                line.cut()
            if fault in (Break.DELAYED, Break.STALLED):
                time.sleep(_LATE if fault is Break.DELAYED else _SILENCE)
            if fault is Break.TRUNCATED:
                client.sendall(piece[: len(piece) // 2])
            if fault not in (None, Break.DELAYED):
                break
            client.sendall(piece)
    _end(client)
    _end(server)
    there.join(5)
    line.drop(client, server)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
