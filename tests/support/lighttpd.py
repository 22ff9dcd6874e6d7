"""A real lighttpd under a temporary folder, on ports from the kernel.

::

    with Lighttpd.started(tmp_path) as lighttpd:      # one certificate, www.example.test
        lighttpd.served()                             # fingerprint a client sees

``@port@``, ``@plain@`` and ``@dir@`` in *tls* and *files* become two ports and
the folder of lighttpd.conf; ``@dir@/old.pem`` has key and chain.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.model import Fingerprint
from tests.support.folder_server import FolderServer
from tests.support.handshake import LARGE, long_download
from tests.support.nginx import TestCa
from tests.support.process import accepts, binary, free_port, running

NAME = "www.example.test"
ONE = 'ssl.engine = "enable"\nssl.pemfile = "@dir@/old.pem"  # from last year\n'
_MAIN = """\
server.modules = ( "mod_openssl" )
server.document-root = "@dir@"
server.errorlog = "@dir@/error.log"
server.pid-file = "@dir@/lighttpd.pid"
server.bind = "127.0.0.1"
server.port = @port@
server.feature-flags += ( "server.graceful-restart-bg" => "enable" )
server.systemd-socket-activation = "enable"
"""


@dataclass
class Lighttpd(FolderServer):
    """A running lighttpd. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    main = "lighttpd.conf"
    pid_file = "lighttpd.pid"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach it."""
        return {"kind": "lighttpd", "config": str(self.config), "reload": "signal"}

    def served(self, name: str = NAME, *, port: int = 0, rsa_only: bool = False) -> Fingerprint:
        """Return the fingerprint that a client asking for *name* sees."""
        return super().served(name, port=port, rsa_only=rsa_only)

    @contextmanager
    def connection(self) -> Iterator[Callable[[], bool]]:
        """Begin a long download; the value ends it and says whether all came."""
        (self.directory / "slow").write_bytes(b"x" * LARGE)
        with long_download(self.port, NAME, "/slow") as ends_whole:
            yield ends_whole

    def accepts_configuration(self) -> bool:
        """Return what ``lighttpd -tt`` says."""
        argv = [binary("lighttpd", "lighttpd"), "-tt", "-f", str(self.config)]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    @classmethod
    @contextmanager
    def started(
        cls, folder: Path, tls: str = ONE, *, files: Mapping[str, str] | None = None
    ) -> Iterator[Lighttpd]:
        """Start it with the lines *tls* behind its own; *files* are written beside."""
        ca = TestCa()
        lighttpd = cls(folder, free_port(), free_port(), ca, ca.bundle(NAME))
        assert lighttpd.old.key is not None
        pem = folder / "old.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(lighttpd.old.key.reveal() + lighttpd.old.chain.text.encode())
        for name, text in {**(files or {}), "lighttpd.conf": _MAIN + tls}.items():
            lighttpd.write(name, text)
        argv = [binary("lighttpd", "lighttpd"), "-D", "-f", str(lighttpd.config)]

        def ready() -> bool:
            return (folder / "lighttpd.pid").exists() and accepts(lighttpd.port)

        with running(argv, log=folder / "output.log", ready=ready) as process:
            # As systemd does: one that ends must not stay as a zombie that seems to run.
            threading.Thread(target=process.wait, daemon=True).start()
            yield lighttpd
