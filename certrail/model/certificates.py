"""Certificates, their requests and keys, and how they are named to people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.log import plain
from certrail.model.requests import KeyAlgorithm
from certrail.private_key import PrivateKeyPem

UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,  # cryptography 50 on a general name of an unknown string type
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    Warning,
)
"""What ``cryptography`` raises while it reads a certificate that breaks the encoding rules."""

Fingerprint = NewType("Fingerprint", str)
"""SHA-256 of the leaf's DER, lower-case hex without colons."""


@dataclass(frozen=True, slots=True)
class SubjectSpec:
    """What a CSR asks for.

    Attributes:
        names: subject alternative names; the first is the common name where it fits.
        algorithm: of the key.
        organization fields and the like: RFC 4514 short names to values.
    """

    names: tuple[str, ...]
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Csr:
    """A PKCS #10 request in PEM."""

    pem: str

    @property
    def parsed(self) -> x509.CertificateSigningRequest:
        """The request as a ``cryptography`` object."""
        return x509.load_pem_x509_csr(self.pem.encode())

    def public_key_der(self) -> bytes:
        """Return the SubjectPublicKeyInfo, to compare keys by."""
        return _spki(self.parsed.public_key())


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate as issued: leaf first, then intermediates, no root. PEM texts."""

    pems: tuple[str, ...]

    @classmethod
    def from_pem(cls, text: str) -> Chain:
        """Split a PEM bundle; text between the certificates is dropped.

        Raises:
            UnexpectedReply: there is no certificate in it, or one cannot be read.
        """
        try:
            certificates = x509.load_pem_x509_certificates(text.encode())
        except UNREADABLE as exc:
            raise UnexpectedReply(f"not a PEM certificate chain: {exc}") from exc
        return cls.of(certificates)

    @classmethod
    def of(cls, certificates: list[x509.Certificate]) -> Chain:
        """Build a chain of parsed certificates, leaf first."""
        return cls(tuple(_pem(certificate) for certificate in certificates))

    def public_key_der(self) -> bytes:
        """Return the SubjectPublicKeyInfo of the leaf, to compare keys by."""
        return _spki(self.leaf.public_key())

    @property
    def leaf(self) -> x509.Certificate:
        """The end-entity certificate."""
        return x509.load_pem_x509_certificate(self.pems[0].encode())

    @property
    def certificates(self) -> list[x509.Certificate]:
        """All certificates, leaf first."""
        return [x509.load_pem_x509_certificate(pem.encode()) for pem in self.pems]

    @property
    def fingerprint(self) -> Fingerprint:
        """SHA-256 of the leaf."""
        return fingerprint(self.leaf)

    @property
    def text(self) -> str:
        """The whole chain as one PEM text, leaf first."""
        return "".join(self.pems)

    def must_answer(self, csr: Csr, names: tuple[str, ...] = ()) -> None:
        """Check that the leaf carries the CSR's key and, if given, exactly *names*.

        Raises:
            UnexpectedReply: it is a certificate for something else.
        """
        try:
            leaf = self.leaf
            key, served = _spki(leaf.public_key()), set(subject_names(leaf))
        except UNREADABLE as exc:
            raise UnexpectedReply(
                f"the CA returned a certificate that breaks the encoding rules: {plain(exc)[:200]}",
                remedy="Do not install it. Report it to the CA.",
            ) from exc
        if key != csr.public_key_der():
            raise UnexpectedReply(
                "the CA returned a certificate for another key",
                remedy="Do not install it. Retry; if it happens again, report it to the CA.",
            )
        if names and not set(names) <= served:
            missing = ", ".join(sorted(set(names) - served))
            raise UnexpectedReply(
                f"the certificate lacks names that were ordered: {missing}",
                remedy="Check what the CA's profile allows as subject alternative names.",
            )


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is installed: a chain and the key of its leaf.

    *key* is None where the target made the key itself and keeps it.
    """

    chain: Chain
    key: PrivateKeyPem | None

    def must_match(self) -> None:
        """Check key against leaf before anything is uploaded.

        Several servers accept a mismatched pair in their configuration test
        and break on reload, so this check is ours to make.

        Raises:
            InvalidRequest: the key belongs to another certificate.
        """
        if self.key is None:
            return
        key = serialization.load_pem_private_key(self.key.reveal(), password=None)
        if _spki(key.public_key()) != _spki(self.chain.leaf.public_key()):
            raise InvalidRequest(
                "private key and certificate do not belong together",
                remedy="Nothing was uploaded. Start a reissue, which makes a new key.",
            )


def fingerprint(certificate: x509.Certificate) -> Fingerprint:
    """Return the SHA-256 fingerprint of *certificate*, lower-case hex."""
    return Fingerprint(certificate.fingerprint(hashes.SHA256()).hex())


def serial_text(certificate: x509.Certificate) -> str:
    """Return the serial number as colon-separated hex, the way browsers show it."""
    number = certificate.serial_number
    raw = number.to_bytes((number.bit_length() + 8) // 8 or 1, "big", signed=True)
    if len(raw) > 1 and raw[0] == 0 and not raw[1] & 0x80:
        raw = raw[1:]
    return ":".join(f"{byte:02x}" for byte in raw)


def subject_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return DNS names and IP addresses of the subject alternative name extension."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    dns = extension.value.get_values_for_type(x509.DNSName)
    ips = extension.value.get_values_for_type(x509.IPAddress)
    return (*(name.lower() for name in dns), *(str(ip) for ip in ips))


def key_text(certificate: x509.Certificate) -> str:
    """Return the public key's kind for people: ``ECDSA P-256``, ``RSA 2048``."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        curves = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
        return f"ECDSA {curves.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")


def key_hash(certificate: x509.Certificate) -> str | None:
    """Return the SHA-256 of the public key (its SubjectPublicKeyInfo), None if it is unreadable."""
    try:
        return hashlib.sha256(_spki(certificate.public_key())).hexdigest()
    except UNREADABLE:
        return None


def _spki(key: Any) -> bytes:
    der: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
