"""Findings on a certificate by itself, as tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from certrail.model import UNREADABLE, serial_text
from certrail.tls.addresses import Address
from certrail.tls.handshake import Presented
from certrail.tls.probe import ProbeTarget, judge
from certrail.tls.scan import examine
from certrail.tls.starttls import StartTls
from certrail.tls.trust import TrustAnchors
from certrail.tls.verify import verify_chain
from certrail.x509.findings import (
    CertificateReason,
    Severity,
    assess,
    describe,
    is_issued_by,
    is_self_signed,
)
from tests.support.tls_servers import DAY, NOW, Authority, rsa_key, self_signed, sha1_signed

ROOT = Authority.root()
SERVER, CLIENT, ANY = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)


def _codes(certificate: x509.Certificate, *, public: bool = False) -> set[CertificateReason]:
    return {CertificateReason(finding.code) for finding in assess(certificate, public=public)}


def test_ordinary_certificate_has_no_findings() -> None:
    """A finding that is always there is not read."""
    assert assess(ROOT.issue("www.example.com").leaf) == ()


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda: ROOT.issue("a.example.com", key=rsa_key(1024)), CertificateReason.WEAK_KEY),
        (
            lambda: ROOT.issue("a.example.com", key=ec.generate_private_key(ec.SECP192R1())),
            CertificateReason.WEAK_KEY,
        ),
        (lambda: self_signed("a.example.com"), CertificateReason.SELF_SIGNED),
        (lambda: ROOT.issue(subject="a.example.com"), CertificateReason.NO_NAMES),
        (
            lambda: ROOT.issue("a.example.com", subject="b.example.com"),
            CertificateReason.COMMON_NAME_NOT_LISTED,
        ),
        (lambda: ROOT.issue("a.example.com", usages=[CLIENT]), CertificateReason.WRONG_USAGE),
        (
            lambda: ROOT.issue("a.example.com", extra=[(x509.BasicConstraints(True, None), True)]),
            CertificateReason.CA_AS_LEAF,
        ),
    ],
)
def test_each_fault_has_its_code(made: object, code: CertificateReason) -> None:
    """The codes are what people filter and alert by."""
    assert callable(made)
    findings = assess(made().leaf)
    assert [finding.code for finding in findings] == [code]
    assert findings[0].message
    assert findings[0].remedy


def test_sha1_signatures_are_found_alone_and_in_a_chain() -> None:
    """Clients refuse them since 2017; devices still make them."""
    key = rsa_key(2048)
    leaf = sha1_signed(["a.example.com"], key, "Old CA")
    assert _codes(leaf) == {CertificateReason.WEAK_SIGNATURE}
    anchors = TrustAnchors([Authority.root("Old CA", key=key).certificate], "the test's root")
    findings = verify_chain(leaf, [], anchors, "a.example.com", NOW)
    assert [f.code for f in findings] == [CertificateReason.WEAK_SIGNATURE]


@pytest.mark.parametrize(
    "made",
    [
        lambda: ROOT.issue("a.example.com", usages=[]),
        lambda: ROOT.issue("a.example.com", usages=[ANY]),
        lambda: ROOT.issue("a.example.com", usages=[SERVER, CLIENT]),
        lambda: ROOT.issue("a.example.com", key=ed25519.Ed25519PrivateKey.generate()),
        lambda: ROOT.issue("a.example.com", subject="Web servers of the shop"),
        lambda: ROOT.issue("192.0.2.1"),
    ],
)
def test_unusual_but_sound_certificates_pass(made: object) -> None:
    """No usage at all means any usage; not every common name is a host name."""
    assert callable(made)
    assert assess(made().leaf) == ()


@pytest.mark.parametrize(
    ("issued", "days", "too_long"),
    [
        ("2017-01-01", 1200, False),
        ("2018-03-01", 825, False),
        ("2018-03-01", 826, True),
        ("2020-08-31", 825, False),
        ("2020-09-01", 398, False),
        ("2020-09-01", 399, True),
        ("2026-03-14", 398, False),
        ("2026-03-15", 200, False),
        ("2026-03-15", 201, True),
        ("2027-03-14", 200, False),
        ("2027-03-15", 100, False),
        ("2027-03-15", 101, True),
        ("2029-03-14", 100, False),
        ("2029-03-15", 47, False),
        ("2029-03-15", 48, True),
    ],
)
def test_validity_is_held_to_the_limit_of_its_day(issued: str, days: int, too_long: bool) -> None:
    """Ballot SC-081v3 shortens validity in steps; both ends of the period count."""
    start = datetime.fromisoformat(issued).replace(tzinfo=UTC)
    end = start + timedelta(days=days) - timedelta(seconds=1)
    leaf = ROOT.issue("a.example.com", not_before=start, not_after=end).leaf
    assert (CertificateReason.LONG_VALIDITY in _codes(leaf, public=True)) is too_long
    assert CertificateReason.LONG_VALIDITY not in _codes(leaf)


def test_public_rules_are_for_public_certificates_only() -> None:
    """Private CAs owe nothing to the CA/Browser Forum."""
    leaf = ROOT.issue("a.example.com", usages=[SERVER, CLIENT], not_after=NOW + 800 * DAY).leaf
    assert _codes(leaf) == set()
    public = {
        CertificateReason.CLIENT_AUTH,
        CertificateReason.LONG_VALIDITY,
        CertificateReason.NO_TRANSPARENCY,
    }
    assert _codes(leaf, public=True) == public
    assert all(f.severity is Severity.WARNING for f in assess(leaf, public=True))


def test_issuer_is_known_by_key_not_by_name() -> None:
    """A CA of the same name is another CA."""
    leaf = ROOT.issue("a.example.com").leaf
    assert is_issued_by(leaf, ROOT.certificate)
    assert not is_issued_by(leaf, Authority.root().certificate)
    assert is_self_signed(ROOT.certificate)
    assert not is_self_signed(leaf)


def test_names_of_others_cannot_forge_lines() -> None:
    """A certificate's text is the other side's."""
    leaf = ROOT.issue("a.example.com", subject="evil\x1b[2J\n2026 INFO all good").leaf
    assert describe(leaf).isprintable()
    assert len(describe(ROOT.issue("a.example.com", subject="x" * 64).leaf)) < 200


_DER = ROOT.issue("a.example.com", "192.0.2.1", usages=[SERVER, CLIENT]).leaf.public_bytes(
    Encoding.DER
)
_ANCHORS = TrustAnchors([ROOT.certificate], "the test's root")


@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(_DER) - 1), st.integers(0, 255)), min_size=1, max_size=3
    )
)
def test_damaged_certificates_are_findings_not_exceptions(changes: list[tuple[int, int]]) -> None:
    """Inventory scans meet certificates that were made by hand."""
    damaged = bytearray(_DER)
    for position, value in changes:
        damaged[position] = value
    _examine(bytes(damaged))


@pytest.mark.parametrize("value", [0x00, 0x0C, 0x13, 0x16, 0x30, 0xFF])
def test_every_byte_can_be_wrong(value: int) -> None:
    """Tags of other string types made ``cryptography`` itself stumble (KeyError)."""
    for position in range(len(_DER)):
        _examine(_DER[:position] + bytes((value,)) + _DER[position + 1 :])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_negative_serial_numbers_are_shown() -> None:
    """Old devices make them; the inventory shows the bytes as they are."""
    start = _DER.index(b"\xa0\x03\x02\x01\x02") + 7  # past version, tag and length
    odd = x509.load_der_x509_certificate(_DER[:start] + b"\x80" + _DER[start + 1 :])
    assert odd.serial_number < 0
    assert serial_text(odd).startswith("80:")


def _examine(der: bytes) -> None:
    """Put a damaged certificate through everything; it must never count as trusted."""
    try:
        certificate = x509.load_der_x509_certificate(der)
    except UNREADABLE:
        return
    seen = Presented(Address("192.0.2.1", 443), certificates=(certificate,))
    scanned = examine(seen, "a.example.com", StartTls.NONE, _ANCHORS, None, NOW)
    json.dumps(scanned.to_json())
    result = judge(ProbeTarget("a.example.com"), seen, _ANCHORS, NOW)
    json.dumps(result.to_json())
    assert result.detail.isprintable()
    assert not result.ok or der == _DER
