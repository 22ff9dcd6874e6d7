"""What is wrong with a certificate by itself: pure functions with reason codes.

Nothing here looks at the network, at trust or at the clock beyond the dates
in the certificate; :mod:`certrail.tls` adds what only a client can see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from certrail.log import plain
from certrail.model import UNREADABLE, key_text, subject_names

_E = TypeVar("_E", bound=x509.ExtensionType)

_SMALLEST_RSA = 2048
_SMALLEST_CURVE = 256
_WEAK_HASHES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID._RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.DSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
    x509.ObjectIdentifier("1.2.840.113549.1.1.2"): "MD2",
    x509.ObjectIdentifier("1.2.840.113549.1.1.3"): "MD4",
}

LONGEST_VALIDITY: tuple[tuple[datetime, timedelta], ...] = (
    (datetime(2029, 3, 15, tzinfo=UTC), timedelta(days=47)),
    (datetime(2027, 3, 15, tzinfo=UTC), timedelta(days=100)),
    (datetime(2026, 3, 15, tzinfo=UTC), timedelta(days=200)),
    (datetime(2020, 9, 1, tzinfo=UTC), timedelta(days=398)),
    (datetime(2018, 3, 1, tzinfo=UTC), timedelta(days=825)),
)
"""Issued on or after, longest validity: CA/Browser Forum TLS Baseline Requirements
section 6.3.2, the last four steps by ballot SC-081v3."""


class Severity(StrEnum):
    """Whether a regular client refuses (failure) or only people should care (warning)."""

    FAILURE = "failure"
    WARNING = "warning"


class CertificateReason(StrEnum):
    """Reason codes of findings on a certificate by itself."""

    WEAK_KEY = "weak-key"
    WEAK_SIGNATURE = "weak-signature"
    SELF_SIGNED = "self-signed"
    NO_NAMES = "no-names"
    COMMON_NAME_NOT_LISTED = "common-name-not-listed"
    LONG_VALIDITY = "long-validity"
    WRONG_USAGE = "wrong-usage"
    CLIENT_AUTH = "client-auth"
    CA_AS_LEAF = "ca-as-leaf"
    NO_TRANSPARENCY = "no-transparency"
    UNREADABLE = "unreadable-certificate"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact worth telling.

    Attributes:
        code: stable reason code, a member of one of the reason enumerations.
        message: the fact, for people; remote values in it are made plain.
        remedy: what a person can do; never empty.
        severity: failure or warning.
    """

    code: StrEnum
    message: str
    remedy: str
    severity: Severity = Severity.FAILURE

    def to_json(self) -> dict[str, str]:
        """Return plain data for reports and the store."""
        return {
            "code": str(self.code),
            "severity": str(self.severity),
            "message": self.message,
            "remedy": self.remedy,
        }


def assess(certificate: x509.Certificate, *, public: bool = False) -> tuple[Finding, ...]:
    """Return every finding on a server certificate by itself, in a fixed order.

    *public* adds the rules that hold for publicly trusted certificates only.
    """
    rules = (*_RULES, *_PUBLIC_RULES) if public else _RULES
    try:
        found = [rule(certificate) for rule in rules]
    except UNREADABLE as exc:
        return (unreadable(exc),)
    return tuple(finding for finding in found if finding is not None)


def unreadable(cause: BaseException) -> Finding:
    """Return the finding for a certificate that breaks the encoding rules."""
    return Finding(
        CertificateReason.UNREADABLE,
        f"the certificate breaks the encoding rules of RFC 5280: {shorten(cause)}",
        "Have it issued anew; many clients refuse it or read it differently.",
    )


def weak_key(certificate: x509.Certificate) -> Finding | None:
    """Find keys below 112 bits of strength: RSA under 2048 bits, curves under 256, any DSA."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        weak = key.key_size < _SMALLEST_RSA
    elif isinstance(key, ec.EllipticCurvePublicKey):
        weak = key.curve.key_size < _SMALLEST_CURVE
    elif isinstance(key, dsa.DSAPublicKey):
        weak = True
    else:
        weak = not isinstance(key, _STRONG_KEYS)
    if not weak:
        return None
    return Finding(
        CertificateReason.WEAK_KEY,
        f"{describe(certificate)} has a weak key ({key_text(certificate)})",
        "Reissue with ECDSA P-256 or RSA of at least 2048 bits.",
    )


def weak_signature(certificate: x509.Certificate) -> Finding | None:
    """Find signatures with MD2, MD4, MD5 or SHA-1; a self-signed one protects nothing anyway."""
    weak = _WEAK_HASHES.get(certificate.signature_algorithm_oid)
    if weak is None or is_self_signed(certificate):
        return None
    return Finding(
        CertificateReason.WEAK_SIGNATURE,
        f"{describe(certificate)} is signed with {weak}",
        "Reissue from a CA that signs with SHA-256 or better.",
    )


def self_signed(certificate: x509.Certificate) -> Finding | None:
    """Find a certificate that vouches only for itself."""
    if not is_self_signed(certificate):
        return None
    return Finding(
        CertificateReason.SELF_SIGNED,
        f"{describe(certificate)} is self-signed",
        "Have a certificate issued by a CA that the clients trust.",
    )


def no_names(certificate: x509.Certificate) -> Finding | None:
    """Find a server certificate without a DNS name or IP address as subject alternative name."""
    if subject_names(certificate):
        return None
    return Finding(
        CertificateReason.NO_NAMES,
        f"{describe(certificate)} has no subject alternative name, and clients look nowhere else",
        "Reissue with every host name as subject alternative name.",
    )


def common_name_not_listed(certificate: x509.Certificate) -> Finding | None:
    """Find a common name that looks like a host name but is not among the names."""
    names = subject_names(certificate)
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        text = str(attribute.value).lower()
        if names and "." in text and " " not in text and text not in names:
            return Finding(
                CertificateReason.COMMON_NAME_NOT_LISTED,
                f"the common name {plain(text)} is not among the subject alternative names",
                "Reissue with this name as subject alternative name too, if it is in use.",
                Severity.WARNING,
            )
    return None


def wrong_usage(certificate: x509.Certificate) -> Finding | None:
    """Find a certificate whose extended key usage leaves out servers (RFC 5280 4.2.1.12)."""
    usages = extension(certificate, x509.ExtendedKeyUsage)
    if usages is None or {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    } & set(usages):
        return None
    return Finding(
        CertificateReason.WRONG_USAGE,
        f"{describe(certificate)} is not meant for servers: its extended key usage lacks "
        "serverAuth",
        "Reissue with a CA profile for TLS servers.",
    )


def ca_as_leaf(certificate: x509.Certificate) -> Finding | None:
    """Find a CA certificate served as if it were a server's (RFC 5280 4.2.1.9)."""
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return None
    return Finding(
        CertificateReason.CA_AS_LEAF,
        f"{describe(certificate)} is a CA certificate, not one for a server",
        "Put the server's own certificate first in the chain file.",
        Severity.WARNING,
    )


def long_validity(certificate: x509.Certificate) -> Finding | None:
    """Find a public certificate valid longer than was allowed when it was issued."""
    issued = certificate.not_valid_before_utc
    # Both ends are inclusive (RFC 5280 section 4.1.2.5), hence the second.
    lasts = certificate.not_valid_after_utc - issued + timedelta(seconds=1)
    allowed = next((longest for since, longest in LONGEST_VALIDITY if issued >= since), None)
    if allowed is None or lasts <= allowed:
        return None
    return Finding(
        CertificateReason.LONG_VALIDITY,
        f"valid for {lasts / timedelta(days=1):.0f} days; public certificates issued on "
        f"{issued:%Y-%m-%d} may last {allowed.days}",
        "Reissue with a shorter validity; browsers refuse over-long public certificates.",
        Severity.WARNING,
    )


def client_auth(certificate: x509.Certificate) -> Finding | None:
    """Find clientAuth on a public server certificate; root programs end it by March 2027."""
    usages = extension(certificate, x509.ExtendedKeyUsage)
    if usages is None or ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        return None
    return Finding(
        CertificateReason.CLIENT_AUTH,
        "the public certificate also allows client authentication, which public CAs are ending",
        "If it is used as a client certificate, move that use to a private CA before renewal.",
        Severity.WARNING,
    )


def no_transparency(certificate: x509.Certificate) -> Finding | None:
    """Find a public certificate without embedded timestamps of CT logs (RFC 6962 section 3.3)."""
    timestamps = extension(certificate, x509.PrecertificateSignedCertificateTimestamps)
    if timestamps is not None:
        return None
    return Finding(
        CertificateReason.NO_TRANSPARENCY,
        "the public certificate carries no Certificate Transparency timestamps",
        "Check that the server delivers them in the handshake, or have it reissued.",
        Severity.WARNING,
    )


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Return whether it names itself as issuer and its signature verifies under its own key."""
    if certificate.issuer != certificate.subject:
        return False
    return is_issued_by(certificate, certificate)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether *issuer*'s name and key are those that signed *certificate*."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except UNREADABLE:
        # An algorithm too old to be verified: the names alone say from whom it claims to be.
        return (
            certificate.signature_algorithm_oid in _WEAK_HASHES
            and certificate.issuer == issuer.subject
        )
    return True


def extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    """Return the extension's value, None if the certificate has no such extension."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def describe(certificate: x509.Certificate) -> str:
    """Return how to name a certificate to people: a name it carries, else its subject."""
    try:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        text = str(common[0].value) if common else certificate.subject.rfc4514_string()
        text = text or next(iter(subject_names(certificate)), "")
    except UNREADABLE:
        text = ""
    return f"certificate {shorten(text)!r}" if text else "the certificate"


def shorten(text: object, limit: int = 160) -> str:
    """Return a remote value made plain and cut, fit for a message."""
    line = plain(str(text).strip())
    return line if len(line) <= limit else line[: limit - 1] + "…"


_STRONG_KEYS = (
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
)

_RULES: tuple[Callable[[x509.Certificate], Finding | None], ...] = (
    weak_key,
    weak_signature,
    self_signed,
    no_names,
    common_name_not_listed,
    wrong_usage,
    ca_as_leaf,
)
_PUBLIC_RULES: tuple[Callable[[x509.Certificate], Finding | None], ...] = (
    long_validity,
    client_auth,
    no_transparency,
)
