"""A real Exim with a certificate of a test's own CA.

::

    with Exim.started() as exim:
        exim.served()                     # fingerprint a client sees after STARTTLS

Debian's package cannot be installed beside Postfix: ``tests/servers.sh`` unpacks it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.model import Bundle, Fingerprint
from tests.support.databases import NAME, write_pem
from tests.support.mail import smtp_certificate, smtp_session
from tests.support.nginx import TestCa
from tests.support.process import accepts, free_port, running
from tests.support.starttls_servers import home

UNPACKED = Path(f"/var/tmp/certrail-test-exim-{os.getuid()}")
ONE = "tls_certificate = @dir@/old.pem\n"
_MAIN = """\
primary_hostname = www.example.test
exim_path = @exim@
daemon_smtp_ports = @port@
local_interfaces = <; 127.0.0.1
spool_directory = @dir@/spool
log_file_path = @dir@/log-%s
pid_file_path = @dir@/pid
keep_environment =
"""
_REST = """\
begin acl
begin routers
"""


@dataclass
class Exim:
    """A running Exim. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    folder: Path
    port: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / "exim.conf"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach it."""
        return {"kind": "exim", "config": str(self.config), "binary": program()}

    def served(self) -> Fingerprint:
        """Return what a client sees."""
        return smtp_certificate(self.port)

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        """Open a session that stays; the value says whether it still answers."""
        return smtp_session(self.port)

    def write(self, tls: str, files: Mapping[str, str]) -> None:
        """Write the configuration with the lines *tls*, and *files* beside."""
        values = {"port": self.port, "dir": self.folder, "exim": program()}
        for name, text in {**files, "exim.conf": _MAIN + tls + _REST}.items():
            for holder, value in values.items():
                text = text.replace(f"@{holder}@", str(value))
            (self.folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))

    @classmethod
    @contextmanager
    def started(cls, tls: str = ONE, *, files: Mapping[str, str] | None = None) -> Iterator[Exim]:
        """Start it; ``@dir@/old.pem`` in *tls* and *files* has key and chain."""
        ca = TestCa()
        with home() as folder:
            exim = cls(folder, free_port(), ca, ca.bundle(NAME))
            write_pem(folder / "old.pem", exim.old, "Debian-exim")
            (folder / "spool").mkdir()
            shutil.chown(folder / "spool", "Debian-exim")
            shutil.chown(folder, "Debian-exim")
            exim.write(tls, files or {})
            argv = [program(), "-C", str(exim.config), "-bdf"]

            def ready() -> bool:
                return (folder / "pid").exists() and accepts(exim.port)

            with running(argv, log=folder / "output.log", ready=ready):
                yield exim


def program() -> str:
    """Return the path of the unpacked program."""
    path = UNPACKED / "usr" / "sbin" / "exim4"
    assert path.exists(), "exim4 is missing: tests/servers.sh unpacks it"
    return str(path)
