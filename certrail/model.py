"""Frozen values that cross interfaces.

What a method returns so that a later call can refer to it (:class:`Order`,
:class:`Staged`) is plain data that goes through JSON, because the later call
may happen in another process after a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NewType, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.log import plain
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

OrderKey = NewType("OrderKey", str)
"""Our own reference to an order; unique for each request."""

Fingerprint = NewType("Fingerprint", str)
"""SHA-256 of the leaf's DER, lower-case hex without colons."""


class Workflow(StrEnum):
    """Which documented list of steps a request follows."""

    WEB_SERVER = "web-server"
    APPLIANCE = "appliance"
    DELIVERY = "delivery"


class Action(StrEnum):
    """What a request is for."""

    ENROLL = "enroll"
    RENEW = "renew"
    REISSUE = "reissue"
    REDEPLOY = "redeploy"
    ROLLBACK = "rollback"

    @property
    def obtains(self) -> bool:
        """Whether a certificate is asked for; otherwise one that is there is installed."""
        return self not in (Action.REDEPLOY, Action.ROLLBACK)


STARTED = tuple(action for action in Action if action is not Action.ROLLBACK)
"""Actions that are asked for by name; going back is asked of a request."""


class KeyAlgorithm(StrEnum):
    """Keys that Certrail makes."""

    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class ChallengeKind(StrEnum):
    """How control of a name is proven (RFC 8555 section 8)."""

    DNS_01 = "dns-01"
    HTTP_01 = "http-01"


class OrderStatus(StrEnum):
    """State of an order, in the words of RFC 8555 section 7.1.6."""

    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    """State of an authorization, in the words of RFC 8555 section 7.1.6."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    REVOKED = "revoked"


class RevocationReason(StrEnum):
    """Why a certificate is revoked (RFC 5280 section 5.3.1); the value is the RFC's name."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"


@dataclass(frozen=True, slots=True)
class Account:
    """An account at a CA.

    Attributes:
        url: the account's URL or id at the CA.
        created: whether this call made it (False: found and verified).
        contact: what the CA has as contact, ``mailto:`` included.
    """

    url: str
    created: bool
    contact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """What is asked of a CA.

    Attributes:
        key: our reference.
        names: subject alternative names, canonical text, in the wanted order.
        profile: the CA's name for a certificate profile, "" for its default.
        replaces: ARI identifier of the certificate replaced (RFC 9773
            section 4.1), "" for none.
    """

    key: OrderKey
    names: tuple[str, ...]
    profile: str = ""
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """An order at a CA.

    Attributes:
        key: our reference.
        remote_id: the order's URL (ACME) or id; enough to ask for it again.
        status: as last seen.
        expires: when the CA forgets it, RFC 3339 text or "".
        replaces: the ARI identifier that the CA accepted, "" for none.
        data: whatever else the connector needs to go on; JSON values only, no secret.
    """

    key: OrderKey
    remote_id: str
    status: OrderStatus
    expires: str = ""
    replaces: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_json` reads back."""
        return {**asdict(self), "status": str(self.status), "data": dict(self.data)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**data, "status": OrderStatus(data["status"])})


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way, offered by the CA, to prove control of one name.

    Attributes:
        kind: dns-01 or http-01.
        url: the challenge at the CA.
        authorization: URL of the authorization it belongs to.
        name: the DNS name or IP address to prove, without ``*.``.
        token: the CA's token (file name of http-01).
        key_authorization: token and account key thumbprint (RFC 8555
            section 8.1); body of the http-01 file. Public, not a secret.
        txt_value: the TXT value of dns-01 (RFC 8555 section 8.4), "" for http-01.
        txt_name: where a CA without ACME looks for the value, "" for ACME's place.
    """

    kind: ChallengeKind
    url: str
    authorization: str
    name: str
    token: str
    key_authorization: str
    txt_value: str = ""
    txt_name: str = ""

    @property
    def record_name(self) -> str:
        """Where dns-01 looks, before any CNAME delegation."""
        return self.txt_name or f"_acme-challenge.{self.name}"


@dataclass(frozen=True, slots=True)
class Authorization:
    """The CA's record of control over one name.

    Attributes:
        name: as ordered, ``*.`` included.
        status: as last seen.
        url: the authorization at the CA.
        expires: end of its validity, None if the CA does not say.
        challenges: what is offered; only of use while pending.
        problem: the CA's words when a challenge failed, "" otherwise. A
            non-empty problem with status pending means failed too: some CAs
            never move the authorization on.
        problem_code: the CA's error type for it (``urn:ietf:params:acme:error:…``).
    """

    name: str
    status: AuthorizationStatus
    url: str
    expires: datetime | None = None
    challenges: tuple[Challenge, ...] = ()
    problem: str = ""
    problem_code: str = ""
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When a CA wants a certificate renewed (RFC 9773 section 4.2).

    Attributes:
        start, end: the suggested window, aware UTC.
        explanation_url: a page for people, "" if none.
        retry_after: how long to wait before asking again.
    """

    start: datetime
    end: datetime
    explanation_url: str
    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class TxtRecord:
    """One TXT value at one name; *fqdn* without a trailing dot."""

    fqdn: str
    value: str


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


@dataclass(frozen=True, slots=True)
class Site:
    """A place on a target that can take a certificate.

    Attributes:
        id: stable on that target (server name and listen address, object id, path).
        names: host names served there.
        listens: ``address:port`` texts; empty where it has none (a vault).
        tls: whether it serves TLS now.
        fingerprint: of the certificate configured now, None if there is none or it cannot be read.
        settings: what the kind of target needs to find it again; JSON values only.
        starttls: protocol in which clients ask for TLS there, "" where it begins at once.
    """

    id: str
    names: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    tls: bool = False
    fingerprint: Fingerprint | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    starttls: str = ""


@dataclass(frozen=True, slots=True)
class Staged:
    """A certificate uploaded beside the live one.

    Attributes:
        site: where it is meant for.
        fingerprint: of the staged leaf.
        replaces: fingerprint that was live at staging, None for nothing.
        summary: what activation will do, for people ("2 files, 1 directive replaced").
        data: what ``activate``, ``restore`` and ``discard`` need; JSON values only, no key.
    """

    site: str
    fingerprint: Fingerprint
    replaces: Fingerprint | None
    summary: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_json` reads back."""
        return {**asdict(self), "data": dict(self.data)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(**data)


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
