"""A real Apache under a temporary folder, on ports from the kernel.

::

    with Apache.started(tmp_path) as apache:          # one TLS host, www.example.test
        apache.served("www.example.test")             # fingerprint a client sees

``hosts`` is the text of the virtual hosts; ``@port@``, ``@plain@`` and ``@dir@``
in it become a TLS port, a second port, and the folder of apache2.conf.
``@dir@/old.pem`` and ``@dir@/old.key`` hold a certificate for
``www.example.test`` and ``*.example.test``.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.folder_server import FolderServer
from tests.support.handshake import LARGE, long_download
from tests.support.nginx import TestCa, store
from tests.support.process import accepts, binary, free_port, running

ONE_HOST = """\
<VirtualHost *:@port@>
    ServerName www.example.test
    # from last year
    SSLEngine on
    SSLCertificateFile    "@dir@/old.pem"
    SSLCertificateKeyFile @dir@/old.key
</VirtualHost>
"""
_MAIN = """\
ServerRoot @dir@
ServerName localhost
DocumentRoot @dir@/htdocs
PidFile @dir@/apache2.pid
ErrorLog @dir@/error.log
Mutex posixsem
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule rewrite_module /usr/lib/apache2/modules/mod_rewrite.so
LoadModule socache_shmcb_module /usr/lib/apache2/modules/mod_socache_shmcb.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
StartServers 1
ThreadsPerChild 8
ThreadLimit 8
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
Listen 127.0.0.1:@port@
Listen 127.0.0.1:@plain@
"""


@dataclass
class Apache(FolderServer):
    """A running Apache. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    main = "apache2.conf"
    pid_file = "apache2.pid"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach this Apache."""
        return {"kind": "apache", "config": str(self.config), "binary": "apache2"}

    def accepts_configuration(self) -> bool:
        """Return what ``apache2 -t`` says."""
        argv = [binary("apache2", "apache2-bin"), "-t", "-f", str(self.config)]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    @contextmanager
    def download(self, name: str) -> Iterator[Callable[[], bool]]:
        """Begin a download that is too large to be sent at once; the value ends it."""
        (self.directory / "htdocs" / "slow").write_bytes(b"x" * LARGE)
        with long_download(self.port, name, "/slow") as ends_whole:
            yield ends_whole

    @classmethod
    @contextmanager
    def started(
        cls,
        directory: Path,
        *,
        hosts: str = ONE_HOST,
        files: Mapping[str, str] | None = None,
        ca: TestCa | None = None,
        arguments: tuple[str, ...] = (),
    ) -> Iterator[Apache]:
        """Start Apache with *hosts* behind its own settings; *files* are written beside."""
        ca = ca or TestCa()
        apache = cls(
            directory,
            free_port(),
            free_port(),
            ca,
            ca.bundle("www.example.test", "*.example.test"),
        )
        (directory / "htdocs").mkdir(parents=True, exist_ok=True)
        store(directory / "old", apache.old)
        for name, text in (files or {}).items():
            apache.write(name, text)
        apache.write("apache2.conf", _MAIN + hosts)
        argv = [binary("apache2", "apache2-bin"), "-f", str(apache.config), "-DFOREGROUND"]

        def ready() -> bool:
            bound = (directory / "apache2.pid").exists()
            return bound and accepts(apache.port) and accepts(apache.plain)

        log = directory / "output.log"
        with running([*argv, *arguments], log=log, ready=ready) as process:
            # As systemd does: one that ends must not stay as a zombie that seems to run.
            threading.Thread(target=process.wait, daemon=True).start()
            yield apache
