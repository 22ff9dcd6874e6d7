"""Renewal information: identifiers and windows (RFC 9773)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certrail.acme.ari import LONGEST, SHORTEST, UNSAID, certificate_id, read_renewal_info
from certrail.errors import UnexpectedReply

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
NOW = datetime(2026, 11, 23, tzinfo=UTC)
WINDOW = {"start": "2026-12-01T00:00:00Z", "end": "2026-12-03T00:00:00Z"}


def certificate(serial: int, authority: bytes | None) -> x509.Certificate:
    """Return a certificate with that serial number and authority key identifier."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if authority is not None:
        extension = x509.AuthorityKeyIdentifier(authority, None, None)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256())


def test_the_identifier_is_that_of_the_rfc() -> None:
    """RFC 9773 section 4.1 works out this one; the serial's first bit needs a zero octet."""
    authority = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")

    found = certificate_id(certificate(0x87654321, authority))

    assert found == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


@given(st.integers(min_value=1, max_value=2**159 - 1))
def test_the_serial_is_written_as_der_does(serial: int) -> None:
    """A server looks the serial up by these octets; one missing zero and it finds nothing."""
    _, _, text = certificate_id(certificate(serial, b"\x01" * 20)).partition(".")
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    assert "=" not in text
    assert int.from_bytes(octets, "big", signed=True) == serial
    assert len(octets) == 1 or octets[0] != 0 or octets[1] & 0x80


@pytest.mark.parametrize("authority", [None, b""])
def test_no_identifier_without_the_authoritys_key_identifier(authority: bytes | None) -> None:
    """There is nothing to say then; a made-up identifier would make the CA refuse the order."""
    assert certificate_id(certificate(5, authority)) == ""


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        pytest.param(None, UNSAID, id="unsaid"),
        pytest.param(timedelta(0), SHORTEST, id="at once"),
        pytest.param(timedelta(hours=3), timedelta(hours=3), id="sane"),
        pytest.param(timedelta(days=30), LONGEST, id="a month"),
    ],
)
def test_the_next_question_is_asked_within_sane_limits(
    asked: timedelta | None, taken: timedelta
) -> None:
    """A CA that moves a window for a mass revocation must be heard within a day."""
    info = read_renewal_info({"suggestedWindow": WINDOW}, asked)

    assert info.retry_after == taken
    assert (info.start, info.end) == (
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2026, 12, 3, tzinfo=UTC),
    )


def test_the_explanation_is_kept() -> None:
    """It tells people why the CA wants the certificate replaced."""
    data = {"suggestedWindow": WINDOW, "explanationURL": "https://ca.test/incident"}

    assert read_renewal_info(data, None).explanation_url == "https://ca.test/incident"


@pytest.mark.parametrize(
    "window",
    [
        pytest.param(None, id="none"),
        pytest.param("soon", id="text"),
        pytest.param({}, id="empty"),
        pytest.param({"start": WINDOW["start"]}, id="no end"),
        pytest.param({"start": WINDOW["end"], "end": WINDOW["start"]}, id="backwards"),
        pytest.param({"start": WINDOW["start"], "end": WINDOW["start"]}, id="of no length"),
        pytest.param({"start": "2026-12-01T00:00:00", "end": WINDOW["end"]}, id="without zone"),
        pytest.param({"start": 5, "end": 6}, id="numbers"),
        pytest.param({"start": "tomorrow", "end": "later"}, id="words"),
        pytest.param({"start": "0001-01-01T00:00:00+14:00", "end": WINDOW["end"]}, id="year 1"),
    ],
)
def test_a_window_that_is_none_is_refused(window: Any) -> None:
    """RFC 9773 section 4.2: such an answer counts as no answer, never as "renew now"."""
    with pytest.raises(UnexpectedReply):
        read_renewal_info({"suggestedWindow": window}, None)
