"""Clients that look at a certificate all the time and write down what they see.

A :class:`Visitor` connects to a TLS site, a :class:`Reader` reads a file that is delivered.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from certrail.errors import CertrailError
from certrail.x509.export import Format, Part, load

_PAUSE = 0.1


class Watch(ABC):
    """Looks again and again while the block runs.

    Attributes:
        seen: fingerprints in the order in which they were first seen.
        looks: those that found a valid pair.
        refused: what went wrong, one line for each look.
    """

    def __init__(self, pause: float) -> None:
        self.seen: list[str] = []
        self.looks = 0
        self.refused: list[str] = []
        self._pause = pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(15)

    @abstractmethod
    def _look(self) -> str:
        """Return the fingerprint of what is there, *OSError* or *CertrailError* if it is unfit."""

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                found = self._look()
            except (OSError, CertrailError) as exc:
                self.refused.append(str(exc))
            else:
                self.looks += 1
                if found not in self.seen:
                    self.seen.append(found)
            self._ended.wait(self._pause)


class Visitor(Watch):
    """Connects, verifying chain, name and dates like any client."""

    def __init__(self, port: int, name: str, roots: Path, *, pause: float = _PAUSE) -> None:
        """*roots* are trusted; *pause* is the time between two connections, in seconds."""
        super().__init__(pause)
        self._port, self._name = port, name
        self._context = ssl.create_default_context(cafile=str(roots))
        # Throw-away CAs leave out what newer versions of Python ask for besides.
        self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT

    def _look(self) -> str:
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=10) as raw,
            self._context.wrap_socket(raw, server_hostname=self._name) as connection,
        ):
            der = connection.getpeercert(binary_form=True) or b""
        return hashlib.sha256(der).hexdigest()


class Reader(Watch):
    """Reads a PKCS #12 file, which has to hold a certificate and the key that belongs to it."""

    def __init__(self, file: Path, password: str, *, pause: float = _PAUSE) -> None:
        """*pause* is the time between two readings, in seconds."""
        super().__init__(pause)
        self._file, self._password = file, password
        self._known: dict[bytes, str] = {}

    def _look(self) -> str:
        content = self._file.read_bytes()
        # Opening one is made to be slow, so each content is opened once.
        if content not in self._known:
            bundle = load({Part.STORE: content}, Format.PKCS12, password=self._password)
            self._known[content] = bundle.chain.fingerprint
        return self._known[content]
