"""A real nginx under a temporary prefix, on ports from the kernel, with a CA for its certificates.

::

    with Nginx.started(tmp_path) as nginx:            # one TLS site, www.example.test
        nginx.served("www.example.test")              # fingerprint a client sees

    with Nginx.started(tmp_path, servers=MY_BLOCKS) as nginx: ...

``servers`` is the text of the server blocks; ``@port@``, ``@plain@`` and
``@dir@`` in it become a TLS port, a second port, and the directory of
nginx.conf. ``@dir@/old.pem`` and ``@dir@/old.key`` hold a certificate for
``www.example.test`` and ``*.example.test``.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certrail.model import Bundle, Chain, Csr, Fingerprint
from certrail.private_key import PrivateKeyPem
from tests.support.folder_server import FolderServer
from tests.support.handshake import tls_connection
from tests.support.process import accepts, binary, free_port, running

ONE_SITE = """
    server {
        listen 127.0.0.1:@port@ ssl;
        server_name www.example.test;
        ssl_certificate     @dir@/old.pem; # from last year
        ssl_certificate_key @dir@/old.key;
        location / { return 200 "www\\n"; }
        location /slow { limit_rate 400k; root @dir@/htdocs; }
    }
"""

_MAIN = """\
user root;
worker_processes 1;
pid @dir@/nginx.pid;
error_log @dir@/error.log notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path @dir@/tmp/body;
    proxy_temp_path @dir@/tmp/proxy;
    fastcgi_temp_path @dir@/tmp/fastcgi;
    uwsgi_temp_path @dir@/tmp/uwsgi;
    scgi_temp_path @dir@/tmp/scgi;
    server_names_hash_bucket_size 128;
    server_names_hash_max_size 4096;
{servers}
}}
"""


class TestCa:
    """A root and an intermediate that issue whatever a test asks for."""

    __test__ = False

    def __init__(self) -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = _sign("Test Root", self._root_key, "Test Root", self._root_key, ca=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.intermediate = _sign(
            "Test Intermediate", self._key, "Test Root", self._root_key, ca=True
        )

    def bundle(
        self,
        *names: str,
        rsa_key: bool = False,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Bundle:
        """Return a fresh certificate (leaf and intermediate) and its key."""
        key = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            if rsa_key
            else ec.generate_private_key(ec.SECP256R1())
        )
        leaf = _sign(
            names[0],
            key,
            "Test Intermediate",
            self._key,
            names=names,
            not_before=not_before,
            not_after=not_after,
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Bundle(Chain.of([leaf, self.intermediate]), PrivateKeyPem(pem))

    def signed(self, csr: Csr, *names: str) -> Chain:
        """Return a fresh certificate (leaf and intermediate) for the key of *csr*."""
        key = csr.parsed.public_key()
        leaf = _sign(names[0], key, "Test Intermediate", self._key, names=names)
        return Chain.of([leaf, self.intermediate])


def _sign(
    subject: str,
    key: Any,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    names: tuple[str, ...] = (),
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key() if hasattr(key, "public_key") else key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - timedelta(hours=1))
        .not_valid_after(not_after or now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        dns = [x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(dns), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@dataclass
class Nginx(FolderServer):
    """A running nginx. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    main = "nginx.conf"
    pid_file = "nginx.pid"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach this nginx."""
        return {"kind": "nginx", "config": str(self.config), "prefix": f"{self.directory}/"}

    def argv(self) -> list[str]:
        """Return how it is started."""
        argv = [binary("nginx", "nginx"), "-p", f"{self.directory}/", "-c", str(self.config)]
        return [*argv, "-e", str(self.directory / "error.log"), "-g", "daemon off;"]

    def accepts_configuration(self) -> bool:
        """Return what ``nginx -t`` says."""
        return self._nginx("-t") == 0

    def reload(self) -> None:
        """Reload it without waiting for anything."""
        assert self._nginx("-s", "reload") == 0

    def _nginx(self, *arguments: str) -> int:
        argv = [binary("nginx", "nginx"), "-p", f"{self.directory}/", "-c", str(self.config)]
        return subprocess.run([*argv, *arguments], capture_output=True, check=False).returncode

    @contextmanager
    def download(self, name: str) -> Iterator[Callable[[], bool]]:
        """Begin a download that takes a second or two; the value says whether it ends whole."""
        size = 600_000
        (self.directory / "htdocs" / "slow").write_bytes(b"x" * size)
        with tls_connection(self.port, name) as connection:
            request = f"GET /slow HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            first = connection.recv(1024)
            assert b" 200 " in first, first

            def ends_whole() -> bool:
                received = first
                while part := connection.recv(65536):
                    received += part
                return len(received.partition(b"\r\n\r\n")[2]) == size

            yield ends_whole

    @contextmanager
    def visitors(self, name: str, threads: int = 3, pause: float = 0) -> Iterator[Visits]:
        """Connect all the time from several threads while the body runs; *pause* is in seconds."""
        visits = Visits()
        stop = threading.Event()

        def visit() -> None:
            while not stop.is_set():
                try:
                    visits.seen.append(self.served(name))
                except OSError as exc:
                    visits.failures.append(repr(exc))
                stop.wait(pause)

        workers = [threading.Thread(target=visit) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield visits
        finally:
            stop.set()
            for worker in workers:
                worker.join()

    @classmethod
    @contextmanager
    def started(
        cls,
        directory: Path,
        *,
        servers: str = ONE_SITE,
        files: Mapping[str, str] | None = None,
        ca: TestCa | None = None,
        config: str = "",
    ) -> Iterator[Nginx]:
        """Start nginx with *servers* inside ``http``; *files* are written beside nginx.conf.

        *config* replaces the whole of nginx.conf; it needs the pid line.
        """
        ca = ca or TestCa()
        nginx = cls(
            directory,
            free_port(),
            free_port(),
            ca,
            ca.bundle("www.example.test", "*.example.test"),
        )
        for part in ("tmp", "htdocs"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        store(directory / "old", nginx.old)
        for name, text in (files or {}).items():
            nginx.write(name, text)
        nginx.write("nginx.conf", config or _MAIN.format(servers=servers))
        (directory / "error.log").touch()

        def ready() -> bool:
            # The pid file comes after the ports are bound: another server there is not ours.
            bound = (directory / "nginx.pid").exists()
            return bound and (accepts(nginx.port) or accepts(nginx.plain))

        with running(nginx.argv(), log=directory / "output.log", ready=ready):
            yield nginx


@dataclass
class Visits:
    """What visitors saw."""

    seen: list[Fingerprint] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def store(stem: Path, bundle: Bundle) -> None:
    """Write *bundle* as ``stem.pem`` and ``stem.key``."""
    stem.with_suffix(".pem").write_text(bundle.chain.text)
    assert bundle.key is not None
    stem.with_suffix(".key").write_bytes(bundle.key.reveal())
