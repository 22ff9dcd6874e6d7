"""A certificate that stands for one that is not there yet, for dry runs."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certrail.keys.generate import generate
from certrail.model import Bundle, Chain, KeyAlgorithm

_COMMON_NAME_LIMIT = 64


def specimen(names: Sequence[str], algorithm: KeyAlgorithm) -> Bundle:
    """Return a self-signed certificate for *names* that is valid for an hour, with its key.

    It has the names and the kind of key of the real one, which is all that
    decides what installing changes; nobody ever serves it.
    """
    private = generate(algorithm)
    key = serialization.load_pem_private_key(private.reveal(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_COMMON_NAME_LIMIT])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Bundle(Chain.of([certificate]), private)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
