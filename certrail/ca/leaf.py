"""Leaf certificates of a CA on disk (RFC 5280, profile of a TLS server)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certrail.ca.authority import Authority, key_usage
from certrail.errors import Rejected
from certrail.model import Csr
from certrail.names import Name

_BACKDATED = timedelta(minutes=5)
_LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280 appendix A.1
_SMALLEST_RSA = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def sign(
    authority: Authority,
    csr: Csr,
    names: Sequence[Name],
    lifetime: timedelta,
    *,
    client_auth: bool = False,
    crl_url: str = "",
) -> x509.Certificate:
    """Issue a certificate for the key in *csr* and exactly *names*.

    Of the CSR only the key is used; its signature proves that the asker has
    it. The certificate never outlives the intermediate.

    Raises:
        Rejected: CSR or key will not do (code ``badCSR``, ``badPublicKey``), or the
            intermediate is at its end (``caExpired``).
    """
    key = key_of(csr)
    now = datetime.now(UTC).replace(microsecond=0)
    until = min(now + lifetime, authority.certificate.not_valid_after_utc)
    if until <= now:
        raise Rejected(
            "the intermediate of the CA has expired",
            remedy="Make a new CA in another folder and let clients trust its root.",
            code="caExpired",
        )
    common_name = next(
        (n.text for n in names if not n.is_ip and len(n.text) <= _LONGEST_COMMON_NAME), ""
    )
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    usages += [ExtendedKeyUsageOID.CLIENT_AUTH] if client_auth else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - _BACKDATED, authority.certificate.not_valid_before_utc))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            key_usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPublicKey)),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        # Critical where the subject is empty (RFC 5280 section 4.2.1.6).
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]),
            critical=not subject,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def key_of(csr: Csr) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Return the public key of *csr*, which has to be signed with it.

    Raises:
        Rejected: it cannot be read (``badCSR``), or the CA takes no such key (``badPublicKey``).
    """
    try:
        parsed = csr.parsed
        if not parsed.is_signature_valid:
            raise Rejected("the CSR is not signed by the key it carries", code="badCSR")
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as exc:
        raise Rejected(f"the CSR cannot be read: {exc}", code="badCSR") from exc
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _SMALLEST_RSA:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise Rejected(
        "the CA takes RSA keys of at least 2048 bits and ECDSA keys on P-256, P-384 or P-521",
        remedy="Choose another key algorithm in the profile, then start a reissue.",
        code="badPublicKey",
    )


def _general_name(name: Name) -> x509.GeneralName:
    if name.is_ip:
        return x509.IPAddress(ipaddress.ip_address(name.text))
    return x509.DNSName(name.text)
