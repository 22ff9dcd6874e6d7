"""Which client "Testing installation" behaves like, and what the strictest of them asks for.

Rules for certificates of publicly trusted CAs are those of the CA/Browser
Forum's "Baseline Requirements for the Issuance and Management of
Publicly-Trusted TLS Server Certificates", named by section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from publicsuffixlist import PublicSuffixList

from certrail.model import subject_names
from certrail.tls.findings import Reason, failure
from certrail.x509.findings import Finding, describe, extension, shorten

_LONGEST_SERIAL = 20


class Client(StrEnum):
    """How strictly a chain is judged.

    ``web-pki``: like browsers judge public certificates, the rules for their
    content included. ``rfc5280``: by RFC 5280 as ``cryptography`` applies it.
    ``openssl``: what OpenSSL accepts is accepted; what stricter clients would
    refuse is a warning. For private CAs whose certificates keep to few rules.
    """

    WEB_PKI = "web-pki"
    RFC5280 = "rfc5280"
    OPENSSL = "openssl"


# Refusals that RFC 5280 does not ask for: rules of the Baseline Requirements that the
# verifier always applies, and paths that it does not find or cannot judge.
_BEYOND_RFC5280 = (
    "basicConstraints.cA must not be asserted in an EE certificate",
    "EE subjectAltName MUST NOT be critical when subject is nonempty",
    "candidates exhausted: signature does not match",
    "unsupported name constraint",
)


def is_beyond_rfc5280(refusal: str) -> bool:
    """Return whether the verifier's *refusal* is for a reason that RFC 5280 does not give."""
    return any(words in refusal for words in _BEYOND_RFC5280)


def serial_findings(certificates: Iterable[x509.Certificate]) -> list[Finding]:
    """Find serial numbers that are none: not positive, or too long (RFC 5280 4.1.2.2)."""
    found = []
    for certificate in certificates:
        number = certificate.serial_number
        if number <= 0 or (number.bit_length() + 8) // 8 > _LONGEST_SERIAL:
            message = f"{describe(certificate)} has the serial number {shorten(number, 50)}"
            found.append(failure(Reason.STRICT_PROFILE, message))
    return found


def web_pki_findings(leaf: x509.Certificate, anchor: x509.Certificate | None) -> list[Finding]:
    """Return what the Baseline Requirements forbid about *leaf* and the root it leads to."""
    checks: list[Callable[[], str]] = [
        lambda: _common_name(leaf),
        lambda: _any_usage(leaf),
        lambda: _public_suffix(leaf),
    ]
    if anchor is not None:
        checks += [
            lambda: _root_usage(anchor),
            lambda: _root_authority(anchor),
            lambda: _odd_modulus(anchor),
        ]
    return [failure(Reason.STRICT_PROFILE, message) for check in checks if (message := check())]


def _common_name(leaf: x509.Certificate) -> str:
    # 7.1.4.3: a common name is a character-for-character copy of one of the names.
    names = subject_names(leaf)
    listed = extension(leaf, x509.SubjectAlternativeName)
    hosts = listed.get_values_for_type(x509.DNSName) if listed else []
    for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        text = str(attribute.value)
        if not hosts and text.rpartition(".")[2].isalpha():
            continue  # a host name on a certificate for addresses only misleads nobody
        if text not in (*names, *hosts):
            return f"the common name {shorten(attribute.value)} is none of the names, to the letter"
    return ""


def _any_usage(leaf: x509.Certificate) -> str:
    # 7.1.2.7.10
    usages = extension(leaf, x509.ExtendedKeyUsage)
    if usages is not None and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages:
        return f"{describe(leaf)} allows any extended key usage"
    return ""


def _public_suffix(leaf: x509.Certificate) -> str:
    # 3.2.2.6: a wildcard stands for names of one owner, never for those of a registry.
    for name in subject_names(leaf):
        if name.startswith("*.") and _suffixes().publicsuffix(name[2:]) == name[2:]:
            return f"{shorten(name)} stands for every name below a public suffix"
    return ""


def _root_usage(anchor: x509.Certificate) -> str:
    # 7.1.2.1.2
    if extension(anchor, x509.ExtendedKeyUsage) is not None:
        return f"the root {describe(anchor)} has an extended key usage"
    return ""


def _root_authority(anchor: x509.Certificate) -> str:
    # 7.1.2.1.3
    authority = extension(anchor, x509.AuthorityKeyIdentifier)
    if authority is None:
        return ""
    if authority.authority_cert_issuer or authority.authority_cert_serial_number is not None:
        return f"the root {describe(anchor)} names its issuer in its authority key identifier"
    own = extension(anchor, x509.SubjectKeyIdentifier)
    same_names = anchor.issuer == anchor.subject
    if same_names and own is not None and authority.key_identifier != own.digest:
        return f"the root {describe(anchor)} has an authority key identifier of another key"
    return ""


def _odd_modulus(anchor: x509.Certificate) -> str:
    # 6.1.5
    key = anchor.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size % 8:
        return f"the root {describe(anchor)} has an RSA key of {key.key_size} bits"
    return ""


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
