"""A client that connects to a TLS site all the time and writes down what it sees."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Self

_PAUSE = 0.1


class Visitor:
    """Connects again and again, verifying chain, name and dates like any client.

    Attributes:
        seen: fingerprints in the order in which they were first seen.
        connections: handshakes that went well.
        refused: what went wrong, one line for each handshake.
    """

    def __init__(self, port: int, name: str, roots: Path) -> None:
        self.seen: list[str] = []
        self.connections = 0
        self.refused: list[str] = []
        self._port, self._name = port, name
        self._context = ssl.create_default_context(cafile=str(roots))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(15)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._visit()
            self._ended.wait(_PAUSE)

    def _visit(self) -> None:
        try:
            with (
                socket.create_connection(("127.0.0.1", self._port), timeout=10) as raw,
                self._context.wrap_socket(raw, server_hostname=self._name) as connection,
            ):
                der = connection.getpeercert(binary_form=True) or b""
        except OSError as exc:
            self.refused.append(str(exc))
            return
        self.connections += 1
        fingerprint = hashlib.sha256(der).hexdigest()
        if fingerprint not in self.seen:
            self.seen.append(fingerprint)
