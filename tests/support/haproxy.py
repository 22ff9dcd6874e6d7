"""A real HAProxy under a temporary folder, on ports from the kernel.

::

    with Haproxy.started(tmp_path) as haproxy:        # one bind line, www.example.test
        haproxy.served("www.example.test")            # fingerprint a client sees

``frontends`` is the text of the sections; ``@port@``, ``@other@`` and ``@dir@``
in it become a TLS port, a second one, and the folder of haproxy.cfg.
``@dir@/old.pem`` holds a certificate for ``www.example.test``.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.model import Bundle, Fingerprint
from tests.support.nginx import TestCa
from tests.support.process import accepts, binary, free_port, running

ONE_SITE = """\
frontend www
    bind 127.0.0.1:@port@ ssl crt @dir@/old.pem alpn http/1.1  # from last year
    http-request return status 200 content-type text/plain file @dir@/body
"""
_GLOBAL = """\
global
    maxconn 200
    crt-base @dir@
    stats timeout 5s
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
"""
_BODY = 12_000


@dataclass
class Haproxy:
    """A running HAProxy. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    __test__ = False

    directory: Path
    port: int
    other: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """haproxy.cfg."""
        return self.directory / "haproxy.cfg"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach this HAProxy."""
        return {
            "kind": "haproxy",
            "config": str(self.config),
            "pid_file": str(self.directory / "haproxy.pid"),
            "reload_timeout": 10,
        }

    @property
    def master(self) -> int:
        """Process id of the master."""
        return int((self.directory / "haproxy.pid").read_text().split()[0])

    def write(self, name: str, text: str) -> Path:
        """Write a file beside the configuration, place holders replaced."""
        values = {"@port@": self.port, "@other@": self.other, "@dir@": self.directory}
        for key, value in values.items():
            text = text.replace(key, str(value))
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def store(self, name: str, bundle: Bundle) -> Path:
        """Write chain and key as one file."""
        assert bundle.key is not None
        return self.write(name, bundle.chain.text + bundle.key.reveal().decode())

    def accepts_configuration(self) -> bool:
        """Return what ``haproxy -c`` says."""
        argv = [binary("haproxy", "haproxy"), "-c", "-f", str(self.config)]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def connect(self, name: str, *, port: int = 0) -> ssl.SSLSocket:
        """Return a TLS connection, certificate not verified."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = socket.create_connection(("127.0.0.1", port or self.port), timeout=10)
        try:
            return context.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    def served(self, name: str, *, port: int = 0) -> Fingerprint:
        """Return the fingerprint that a client asking for *name* sees."""
        with self.connect(name, port=port) as connection:
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return Fingerprint(hashlib.sha256(der).hexdigest())

    @contextmanager
    def download(self, name: str) -> Iterator[Callable[[], bool]]:
        """Open a connection that is in the middle of a request; the value ends it."""
        with self.connect(name) as connection:
            request = f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            connection.sendall(request[:20].encode())

            def ends_whole() -> bool:
                connection.sendall(request[20:].encode())
                received = b""
                while part := connection.recv(65536):
                    received += part
                return len(received.partition(b"\r\n\r\n")[2]) == _BODY

            yield ends_whole

    @classmethod
    @contextmanager
    def started(
        cls, directory: Path, *, frontends: str = ONE_SITE, pems: Mapping[str, Bundle] | None = None
    ) -> Iterator[Haproxy]:
        """Start HAProxy in master-worker mode; *pems* are stored beside the configuration."""
        ca = TestCa()
        haproxy = cls(directory, free_port(), free_port(), ca, ca.bundle("www.example.test"))
        (directory / "body").write_bytes(b"x" * _BODY)
        for name, bundle in {"old.pem": haproxy.old, **(pems or {})}.items():
            haproxy.store(name, bundle)
        haproxy.write("haproxy.cfg", _GLOBAL + frontends)
        argv = [binary("haproxy", "haproxy"), "-W", "-db", "-f", str(haproxy.config)]
        argv += ["-p", str(directory / "haproxy.pid")]

        def ready() -> bool:
            return accepts(haproxy.port) and (directory / "haproxy.pid").exists()

        with running(argv, log=directory / "output.log", ready=ready):
            yield haproxy
