"""What is served out there now."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from certrail.errors import InvalidRequest
from certrail.model import Chain, fingerprint
from certrail.tls.findings import Reason
from certrail.tls.scan import scan
from certrail.tls.starttls import StartTls
from certrail.x509.findings import CertificateReason
from tests.support.process import free_port
from tests.support.tls_servers import (
    Authority,
    Issued,
    pem,
    rsa_key,
    scripted_server,
    tls_server,
)

ROOT = Authority.root()
QUICK = timedelta(seconds=5)


@pytest.fixture
def served() -> Iterator[tuple[Issued, int]]:
    """One certificate on 127.0.0.2 only."""
    issued = ROOT.intermediate().issue("www.example.com", "192.0.2.1")
    with tls_server(issued, host="127.0.0.2") as port:
        yield issued, port


def test_network_is_scanned_in_order_and_silence_is_told_quietly(
    served: tuple[Issued, int],
) -> None:
    """Most addresses of a network serve nothing; that is no error."""
    issued, port = served
    found = list(scan([f"127.0.0.0/29:{port}"], roots=pem(ROOT.certificate), timeout=QUICK))
    assert [item.address for item in found] == [f"127.0.0.{n}:{port}" for n in range(1, 7)]
    assert [item.reachable for item in found] == [False, True, False, False, False, False]
    facts = found[1].facts
    assert facts is not None
    assert facts.fingerprint == fingerprint(issued.leaf)
    assert facts.names == ("www.example.com", "192.0.2.1")
    assert facts.key == "ECDSA P-256"
    assert facts.issuer == "CN=Test Intermediate"
    assert facts.chain == Chain.of(list(issued.chain))
    assert found[1].findings == ()
    assert not found[1].public


def test_name_is_not_held_against_an_address(served: tuple[Issued, int]) -> None:
    """A scan by address does not know by which name clients come."""
    _, port = served
    (item,) = scan([f"127.0.0.2:{port}"], timeout=QUICK)
    codes = {finding.code for finding in item.findings}
    assert Reason.NAME_MISMATCH not in codes
    assert Reason.UNTRUSTED_ROOT in codes


def test_findings_of_certificate_and_chain_come_together() -> None:
    """The inventory shows what should be replaced first."""
    with tls_server(ROOT.issue("a.example.com", key=rsa_key(1024))) as port:
        (item,) = scan([f"127.0.0.1:{port}"], roots=pem(ROOT.certificate), timeout=QUICK)
    assert [finding.code for finding in item.findings] == [CertificateReason.WEAK_KEY]


def test_trusted_by_this_machine_means_public_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Limits of public CAs hold for chains that lead to the machine's own anchors."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(pem(ROOT.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with tls_server(ROOT.issue("localhost")) as port:
        (item,) = scan([f"127.0.0.1:{port}"], timeout=QUICK)
    assert item.public
    assert [f.code for f in item.findings] == [CertificateReason.NO_TRANSPARENCY]


def test_starttls_can_be_set_for_all() -> None:
    """Ports in use are often not the well-known ones."""

    def talk(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(b"N")

    with scripted_server(talk) as port:
        (item,) = scan([f"127.0.0.1:{port}"], starttls=StartTls.POSTGRES, timeout=QUICK)
    assert [f.code for f in item.findings] == [Reason.STARTTLS_REFUSED]
    assert item.reachable


def test_bad_targets_are_refused_before_anything_is_asked() -> None:
    """A mistake at the end of a list must not show after an hour."""
    with pytest.raises(InvalidRequest):
        scan([f"127.0.0.1:{free_port()}", "10.0.0.0/8:443"])


def test_many_are_asked_at_once_and_stopping_early_is_clean() -> None:
    """The caller may stop after the first match."""
    with tls_server(ROOT.issue("a.example.com")) as port:
        found = scan([f"127.0.0.0/24:{port}"], concurrency=8, timeout=QUICK)
        first = next(found)
        assert first.reachable
        assert json.loads(json.dumps(first.to_json()))["certificate"]["names"] == ["a.example.com"]
        assert isinstance(found, Iterator)
        list(zip(range(3), found, strict=False))
