"""Real Postfix and Dovecot with a certificate of a test's own CA.

::

    with Postfix.started() as postfix:
        postfix.served()                  # fingerprint a client sees after STARTTLS
"""

from __future__ import annotations

import hashlib
import imaplib
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.model import Bundle, Fingerprint
from tests.support.nginx import TestCa
from tests.support.process import binary
from tests.support.starttls_servers import dovecot_in, home, postfix_in

NAME = "www.example.test"


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _digest(sock: ssl.SSLSocket) -> Fingerprint:
    der = sock.getpeercert(binary_form=True)
    assert der is not None
    return Fingerprint(hashlib.sha256(der).hexdigest())


def smtp_certificate(port: int) -> Fingerprint:
    """Return what a mail client sees after STARTTLS."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.starttls(context=_unverified())
        assert isinstance(client.sock, ssl.SSLSocket)
        return _digest(client.sock)


def imap_certificate(port: int) -> Fingerprint:
    """Return what a mail reader sees after STARTTLS."""
    client = imaplib.IMAP4("127.0.0.1", port, timeout=20)
    try:
        client.starttls(_unverified())
        assert isinstance(client.sock, ssl.SSLSocket)
        return _digest(client.sock)
    finally:
        client.shutdown()


@contextmanager
def smtp_session(port: int) -> Iterator[Callable[[], bool]]:
    """Open a session over TLS; the value says whether it takes a command and ends well."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.starttls(context=_unverified())
        client.ehlo()
        yield lambda: (client.noop()[0], client.quit()[0]) == (250, 221)
        # A second QUIT, at the end of the with statement, would find the connection closed.
        client.close()


@contextmanager
def imap_session(port: int) -> Iterator[Callable[[], bool]]:
    """Open a session over TLS; the value says whether it takes a command and ends well."""
    client = imaplib.IMAP4("127.0.0.1", port, timeout=60)
    try:
        client.starttls(_unverified())
        yield lambda: client.noop()[0] == "OK"
    finally:
        client.shutdown()


@dataclass
class Postfix:
    """A running Postfix. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    __test__ = False

    folder: Path
    port: int
    ca: TestCa
    old: Bundle

    @property
    def main(self) -> Path:
        """main.cf."""
        return self.folder / "postfix" / "main.cf"

    @property
    def master(self) -> Path:
        """master.cf."""
        return self.folder / "postfix" / "master.cf"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach this Postfix."""
        return {"kind": "postfix", "config": str(self.main.parent)}

    def served(self, port: int = 0) -> Fingerprint:
        """Return what a client sees."""
        return smtp_certificate(port or self.port)

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        """Open a session that stays; the value says whether it still answers."""
        return smtp_session(self.port)

    def accepts_configuration(self) -> bool:
        """Return what ``postfix check`` says."""
        argv = [binary("postfix", "postfix"), "-c", str(self.main.parent), "check"]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    @classmethod
    @contextmanager
    def started(
        cls,
        tls: Sequence[str] = ("smtpd_tls_chain_files = @dir@/old.pem",),
        *,
        more: Sequence[str] = (),
        ca: TestCa | None = None,
    ) -> Iterator[Postfix]:
        """Start it; ``@dir@/old.pem`` in *tls* and *more* has key and chain."""
        ca = ca or TestCa()
        old = ca.bundle(NAME)
        assert old.key is not None
        with home() as folder:
            pem = folder / "old.pem"
            pem.touch(mode=0o600)
            pem.write_bytes(old.key.reveal() + old.chain.text.encode())
            lines = ["smtpd_tls_security_level = may", *tls]
            settings = [line.replace("@dir@", str(folder)) for line in lines]
            services = [line.replace("@dir@", str(folder)) for line in more]
            with postfix_in(folder, settings, name=NAME, more=services) as port:
                yield cls(folder, port, ca, old)


@dataclass
class Dovecot:
    """A running Dovecot. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    __test__ = False

    folder: Path
    port: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """dovecot.conf."""
        return self.folder / "dovecot.conf"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach this Dovecot."""
        return {"kind": "dovecot", "config": str(self.config)}

    def served(self) -> Fingerprint:
        """Return what a client sees."""
        return imap_certificate(self.port)

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        """Open a session that stays; the value says whether it still answers."""
        return imap_session(self.port)

    def accepts_configuration(self) -> bool:
        """Return what ``doveconf -n`` says."""
        argv = [binary("doveconf", "dovecot-core"), "-c", str(self.config), "-n"]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    @classmethod
    @contextmanager
    def started(
        cls,
        tls: str = "ssl = yes\nssl_cert = <@dir@/old.pem\nssl_key = <@dir@/old.pem  # both\n",
        *,
        files: dict[str, str] | None = None,
    ) -> Iterator[Dovecot]:
        """Start it; ``@dir@/old.pem`` has key and chain, *files* are written beside."""
        ca = TestCa()
        old = ca.bundle(NAME)
        assert old.key is not None
        with home() as folder:
            pem = folder / "old.pem"
            pem.touch(mode=0o600)
            pem.write_bytes(old.key.reveal() + old.chain.text.encode())
            for name, text in (files or {}).items():
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(
                    text.replace("@dir@", str(folder)).encode("utf-8", "surrogateescape")
                )
            with dovecot_in(folder, tls.replace("@dir@", str(folder))) as (port, _):
                yield cls(folder, port, ca, old)
