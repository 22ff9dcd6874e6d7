"""STARTTLS against the real servers people run it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from certrail.model import fingerprint
from certrail.tls.findings import Reason
from certrail.tls.probe import ProbeTarget, probe
from certrail.tls.starttls import StartTls
from tests.support.databases import MariaDb
from tests.support.starttls_servers import dovecot, postfix, postgresql, slapd
from tests.support.tls_servers import Authority, pem

HOST = "mail.example.com"


@contextmanager
def _smtp(file: Path | None) -> Iterator[dict[StartTls, int]]:
    with postfix(file) as port:
        yield {StartTls.SMTP: port}


@contextmanager
def _mail(file: Path | None) -> Iterator[dict[StartTls, int]]:
    with dovecot(file) as (imap, pop3):
        yield {StartTls.IMAP: imap, StartTls.POP3: pop3}


@contextmanager
def _ldap(file: Path | None) -> Iterator[dict[StartTls, int]]:
    with slapd(file) as port:
        yield {StartTls.LDAP: port}


@contextmanager
def _postgres(file: Path | None) -> Iterator[dict[StartTls, int]]:
    with postgresql(file) as port:
        yield {StartTls.POSTGRES: port}


@contextmanager
def _mysql(file: Path | None) -> Iterator[dict[StartTls, int]]:
    tls = f"ssl-cert = {file}\nssl-key = {file}\n" if file else ""
    with MariaDb.started(tls, readable=[file] if file else []) as mariadb:
        yield {StartTls.MYSQL: mariadb.port}


Server = Callable[[Path | None], AbstractContextManager[dict[StartTls, int]]]


@pytest.mark.parametrize("server", [_smtp, _mail, _ldap, _postgres, _mysql])
def test_starttls_reaches_the_certificate_of_a_real_server(server: Server, tmp_path: Path) -> None:
    """Each protocol has a conversation of its own before TLS; only a real server proves it."""
    root = Authority.root()
    issued = root.intermediate().issue(HOST)
    with server(issued.write(tmp_path)) as ports:
        for protocol, port in ports.items():
            report = probe(
                ProbeTarget(
                    HOST,
                    port,
                    addresses=(f"127.0.0.1:{port}",),
                    starttls=protocol,
                    fingerprint=fingerprint(issued.leaf),
                    roots=pem(root.certificate),
                )
            )
            assert report.ok, report.detail
            assert report.results[0].presented.tls_version == "TLS 1.3"
            wrong = probe(
                ProbeTarget(
                    "other.example.com",
                    port,
                    addresses=(f"127.0.0.1:{port}",),
                    starttls=protocol,
                    roots=pem(root.certificate),
                )
            )
            assert [f.code for f in wrong.failures] == [Reason.NAME_MISMATCH]


@pytest.mark.parametrize("server", [_smtp, _mail, _ldap, _postgres, _mysql])
def test_server_without_tls_is_told_apart_from_a_dead_one(server: Server) -> None:
    """A server that could not load its key refuses STARTTLS and goes on in plain text."""
    with server(None) as ports:
        for protocol, port in ports.items():
            report = probe(ProbeTarget("127.0.0.1", port, starttls=protocol))
            assert [f.code for f in report.failures] == [Reason.STARTTLS_REFUSED], report.detail
