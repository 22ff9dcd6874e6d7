"""HAProxy's stats socket: one command for each connection, answers in words."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta

from blocks._target import (
    must_not_leak,
)
from certrail.errors import (
    InvalidRequest,
    PermissionRefused,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import plain
from certrail.tls.channel import Deadline

_LONGEST_REPLY = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RuntimeApi:
    """The stats socket: one connection for each command.

    Attributes:
        address: a path, or host and port.
        label: for people.
        timeout: for a whole command.
    """

    address: str | tuple[str, int]
    label: str
    timeout: timedelta = timedelta(seconds=10)

    @classmethod
    def at(
        cls, text: str, *, label: str, timeout: timedelta, allow_cleartext: bool = False
    ) -> RuntimeApi:
        """Read an address as people write it.

        Raises:
            InvalidRequest: it is neither a path nor host:port, or the key would
                travel in clear text.
        """
        if text.startswith("/"):
            return cls(text, label, timeout)
        host, colon, port = text.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise InvalidRequest(
                f"not the address of a stats socket: {plain(text)}",
                remedy="Write an absolute path, or host:port.",
            )
        must_not_leak(host, allow_cleartext, "HAProxy's stats socket")
        return cls((host.strip("[]"), int(port)), label, timeout)

    def run(self, command: str, payload: str = "") -> str:
        """Run one command and return what HAProxy says.

        Raises:
            Unreachable: no connection, or no whole answer in time.
            PermissionRefused: the socket's level does not allow it, or we may not open it.
        """
        what = f"{self.label}: {command}"
        text = f"{command} <<\n{payload.strip()}\n\n" if payload else f"{command}\n"
        deadline = Deadline(self.timeout.total_seconds())
        try:
            with self._connect(deadline) as connection:
                connection.sendall(text.encode())
                reply = bytearray()
                while True:
                    connection.settimeout(deadline.left)
                    part = connection.recv(65536)
                    if not part:
                        break
                    reply += part
                    if len(reply) > _LONGEST_REPLY:
                        raise UnexpectedReply(f"{what}: the answer does not end")
        except PermissionError as exc:
            raise PermissionRefused(
                f"{what}: this account may not open {plain(self.address)}",
                remedy="Give the worker's account access: `stats socket … mode 660 group …`.",
                connector=self.label,
            ) from exc
        except TimeoutError as exc:
            raise Unreachable(f"{what}: no answer in time", connector=self.label) from exc
        except OSError as exc:
            raise Unreachable(
                f"{what}: {plain(exc.strerror or exc)}",
                remedy="Check that HAProxy runs and has `stats socket` at this address.",
                connector=self.label,
            ) from exc
        said = reply.decode(errors="replace")
        if not said:
            raise Unreachable(f"{what}: closed without an answer", connector=self.label)
        if not said.endswith("\n"):
            raise Unreachable(f"{what}: the answer was cut", connector=self.label)
        if "Permission denied" in said:
            raise PermissionRefused(
                f"{what}: the socket's level does not allow it",
                remedy="Add `level admin` to the `stats socket` line.",
                connector=self.label,
            )
        return said.strip()

    def _connect(self, deadline: Deadline) -> socket.socket:
        if isinstance(self.address, tuple):
            return socket.create_connection(self.address, timeout=deadline.left)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(deadline.left)
        try:
            connection.connect(self.address)
        except BaseException:
            connection.close()
            raise
        return connection
