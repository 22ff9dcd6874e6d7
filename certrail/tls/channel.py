"""A TCP connection with one deadline for everything that happens on it."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Self

from certrail.tls.addresses import Address
from certrail.tls.findings import Reason, Stopped, failure
from certrail.x509.findings import shorten


class Deadline:
    """A moment after which nothing more is waited for; *seconds* from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since it was set."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds that remain.

        Raises:
            TimeoutError: none.
        """
        left = self.seconds - self.spent
        if left <= 0:
            raise TimeoutError
        return left


class Channel:
    """A connected socket; reads and writes share the deadline and a byte limit.

    Use as a context manager. Reading raises ``TimeoutError`` past the
    deadline, ``OSError`` when the connection breaks and ``ValueError`` when
    the other side sends more than *limit* bytes in all.
    """

    def __init__(self, address: Address, deadline: Deadline, *, limit: int = 512 * 1024) -> None:
        self.address = address
        self.deadline = deadline
        self._left = limit
        self._buffer = b""
        self._socket = _connect(address, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    @property
    def buffered(self) -> bytes:
        """What was received and not yet read."""
        return self._buffer

    def send(self, data: bytes) -> None:
        """Send all of *data*."""
        self._socket.settimeout(self.deadline.left)
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        self._socket.settimeout(self.deadline.left)
        data = self._socket.recv(16 * 1024)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("more data than any server needs to send here")
        return data

    def read_line(self, *, limit: int = 2048) -> bytes:
        """Return one line without its line end; ``ValueError`` past *limit* bytes."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > limit:
                raise ValueError(f"a line of more than {limit} bytes")
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\n")
        if len(line) > limit:
            raise ValueError(f"a line of more than {limit} bytes")
        return line.rstrip(b"\r")

    def read_exactly(self, count: int) -> bytes:
        """Return *count* bytes."""
        while len(self._buffer) < count:
            self._fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _fill(self) -> None:
        kept, self._buffer = self._buffer, b""
        data = self.receive()
        self._buffer = kept + data
        if not data:
            raise ConnectionResetError("closed the connection")


def _connect(address: Address, deadline: Deadline) -> socket.socket:
    try:
        connected = socket.create_connection((address.host, address.port), deadline.left)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError as exc:
        message = f"{address} did not answer within {deadline.seconds:g} s"
        raise Stopped(failure(Reason.UNREACHABLE, message)) from exc
    except (OSError, UnicodeError) as exc:
        cause = shorten(getattr(exc, "strerror", None) or exc)
        message = f"{address} cannot be reached: {cause}"
        raise Stopped(failure(Reason.UNREACHABLE, message)) from exc
    return connected
