"""A real Caddy with a Caddyfile, on ports from the kernel.

::

    with Caddyfile.started(tmp_path) as caddy:        # one site, www.example.test
        caddy.served()                                # fingerprint a client sees

``@port@``, ``@other@`` and ``@dir@`` in *sites* and *files* become two ports
and the folder of the Caddyfile; ``@dir@/old.pem`` has key and chain.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.model import Bundle, Fingerprint
from tests.support.caddy import program
from tests.support.databases import NAME, write_pem
from tests.support.handshake import LARGE, fingerprint_at, long_download
from tests.support.nginx import TestCa
from tests.support.process import accepts, free_port, running
from tests.support.shared import Shared

ONE = """\
www.example.test:@port@ {
	# from last year
	tls @dir@/old.pem @dir@/old.pem
	respond "hello"
	handle /slow {
		root * @dir@
		file_server
	}
}
"""
_GLOBAL = """\
{
	admin 127.0.0.1:@admin@
	auto_https off
	persist_config off
	skip_install_trust
	default_bind 127.0.0.1
}
"""


@dataclass
class Caddyfile:
    """A running Caddy. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    folder: Path
    port: int
    other: int
    admin: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """The Caddyfile."""
        return self.folder / "Caddyfile"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach it."""
        return {
            "kind": "caddy",
            "config": str(self.config),
            "binary": program(),
            "key_owner": "root",
        }

    def served(self, name: str = NAME, port: int = 0) -> Fingerprint:
        """Return the fingerprint that a client asking for *name* sees."""
        return fingerprint_at(port or self.port, name)

    @contextmanager
    def connection(self) -> Iterator[Callable[[], bool]]:
        """Begin a download that is too large to be sent at once; the value ends it."""
        (self.folder / "slow").write_bytes(b"x" * LARGE)
        with long_download(self.port, NAME, "/slow") as ends_whole:
            yield ends_whole

    def fill(self, sites: str, files: Mapping[str, str] | None = None) -> None:
        """Write the Caddyfile with *sites*, *files* beside, and a new certificate."""
        for path in self.folder.glob("*.caddy"):
            path.unlink()
        shutil.rmtree(self.folder / "certrail", ignore_errors=True)
        self.old = self.ca.bundle(NAME)
        write_pem(self.folder / "old.pem", self.old, "root")
        values = {"port": self.port, "other": self.other, "admin": self.admin, "dir": self.folder}
        for name, text in {**(files or {}), "Caddyfile": _GLOBAL + sites}.items():
            for holder, value in values.items():
                text = text.replace(f"@{holder}@", str(value))
            (self.folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))

    def reload(self) -> None:
        """Make it read the Caddyfile."""
        argv = [program(), "reload", "--force", "--adapter", "caddyfile"]
        subprocess.run([*argv, "--config", str(self.config)], check=True, capture_output=True)

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Caddyfile]:
        """Start it."""
        with tempfile.TemporaryDirectory(prefix="certrail-test-") as name:
            ca = TestCa()
            caddy = cls(Path(name), free_port(), free_port(), free_port(), ca, ca.bundle(NAME))
            caddy.fill(ONE)
            argv = [program(), "run", "--config", str(caddy.config), "--adapter", "caddyfile"]
            folders = {"HOME": name, "XDG_CONFIG_HOME": name, "XDG_DATA_HOME": name}

            def ready() -> bool:
                return accepts(caddy.port) and accepts(caddy.admin)

            with running(argv, log=caddy.folder / "caddy.log", ready=ready, env=folders):
                yield caddy


CADDY = Shared(Caddyfile.started)


def fresh_caddy(sites: str = ONE, *, files: Mapping[str, str] | None = None) -> Caddyfile:
    """Return the shared Caddy, serving *sites*, with a certificate that nobody has seen."""
    caddy = CADDY.get()
    caddy.fill(sites, files)
    caddy.reload()
    return caddy
