"""A certificate and its key in the forms that servers and services read.

========================  ====================================================
``pem``                   ``cert``, ``chain``, ``fullchain`` and ``key`` apart
``pem-bundle``            one PEM text: chain, leaf first, then the key
``der``                   ``cert`` and ``key`` (PKCS #8) in DER, no intermediates
``pkcs12``                one file (RFC 7292), AES-256-CBC with PBKDF2 and SHA-256
``pkcs12-legacy``         one file, 3DES and SHA-1, for readers that know no better
``jks``                   Java's own key store
========================  ====================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from certrail.errors import AuthenticationFailed, InvalidRequest, UnexpectedReply
from certrail.model import UNREADABLE, Bundle, Chain
from certrail.private_key import PrivateKeyPem
from certrail.x509 import jks

_SHORTEST_PASSWORD = 6
_LONGEST_ALIAS = 100
_ROUNDS = 20_000


class Format(StrEnum):
    """How a certificate with its key is written."""

    PEM = "pem"
    PEM_BUNDLE = "pem-bundle"
    DER = "der"
    PKCS12 = "pkcs12"
    PKCS12_LEGACY = "pkcs12-legacy"
    JKS = "jks"

    @property
    def has_password(self) -> bool:
        """Whether it is a container with a password."""
        return self in (Format.PKCS12, Format.PKCS12_LEGACY, Format.JKS)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What it consists of."""
        return _PARTS[self]


class Part(StrEnum):
    """One text or file of a form."""

    CERT = "cert"
    """The leaf alone."""
    CHAIN = "chain"
    """The intermediates alone; empty if there are none."""
    FULLCHAIN = "fullchain"
    """Leaf and intermediates."""
    KEY = "key"
    BUNDLE = "bundle"
    """Leaf, intermediates and key in one PEM text."""
    STORE = "store"
    """A PKCS #12 or JKS container."""

    @property
    def is_secret(self) -> bool:
        """Whether a private key is in it."""
        return self in (Part.KEY, Part.BUNDLE, Part.STORE)


_PARTS = {
    Format.PEM: (Part.KEY, Part.CERT, Part.CHAIN, Part.FULLCHAIN),
    Format.PEM_BUNDLE: (Part.BUNDLE,),
    Format.DER: (Part.KEY, Part.CERT),
    Format.PKCS12: (Part.STORE,),
    Format.PKCS12_LEGACY: (Part.STORE,),
    Format.JKS: (Part.STORE,),
}


def export(
    bundle: Bundle, form: Format, *, password: str = "", alias: str = ""
) -> dict[Part, bytes]:
    """Return *bundle* as *form*.

    Args:
        password: of a container; it is used for the store and for the key in it.
        alias: the entry's name in a container, default ``certificate``.

    Raises:
        InvalidRequest: a container without a (long enough) password, an alias that
            cannot be written, or no key where the form needs one.
    """
    pems = bundle.chain.pems
    if form.has_password:
        return {Part.STORE: _store(bundle, form, password, _alias(alias))}
    if form is Format.PEM_BUNDLE:
        return {Part.BUNDLE: bundle.chain.text.encode() + _key(bundle).reveal().strip() + b"\n"}
    if form is Format.DER:
        key = {} if bundle.key is None else {Part.KEY: _der(bundle.key)}
        return {**key, Part.CERT: bundle.chain.leaf.public_bytes(Encoding.DER)}
    key = {} if bundle.key is None else {Part.KEY: bundle.key.reveal()}
    return {
        **key,
        Part.CERT: pems[0].encode(),
        Part.CHAIN: "".join(pems[1:]).encode(),
        Part.FULLCHAIN: bundle.chain.text.encode(),
    }


def load(contents: Mapping[Part, bytes], form: Format, *, password: str = "") -> Bundle:
    """Read what :func:`export` wrote, or what somebody else put in its place.

    Raises:
        UnexpectedReply: it cannot be read, is not whole, or its parts do not belong together.
        AuthenticationFailed: a container has another password.
    """
    missing = [part for part in form.parts if part not in contents and part is not Part.KEY]
    if missing:
        raise UnexpectedReply(f"not whole: {', '.join(missing)} is missing")
    try:
        bundle = _load(contents, form, password)
        bundle.must_match()
    except InvalidRequest as exc:
        raise UnexpectedReply(str(exc), remedy="It is replaced by the next delivery.") from exc
    except UNREADABLE:
        # Not chained: what cannot be read may be a key, and parsers quote.
        raise UnexpectedReply(f"not readable as {form}") from None
    return bundle


def _load(contents: Mapping[Part, bytes], form: Format, password: str) -> Bundle:
    if form is Format.JKS:
        der, certificates = jks.read(contents[Part.STORE], password)
        return Bundle(
            Chain.of(certificates), _pem_of(serialization.load_der_private_key(der, None))
        )
    if form.has_password:
        return _load_pkcs12(contents[Part.STORE], password)
    if form is Format.PEM_BUNDLE:
        text = contents[Part.BUNDLE]
        return Bundle(
            Chain.from_pem(text.decode()), _pem_of(serialization.load_pem_private_key(text, None))
        )
    key = contents.get(Part.KEY)
    if form is Format.DER:
        leaf = x509.load_der_x509_certificate(contents[Part.CERT])
        pem = _pem_of(serialization.load_der_private_key(key, None)) if key else None
        return Bundle(Chain.of([leaf]), pem)
    chain = Chain.from_pem(contents[Part.FULLCHAIN].decode())
    leaf_pem, rest = "".join(chain.pems[:1]), "".join(chain.pems[1:])
    apart = Chain.from_pem(contents[Part.CERT].decode()).text
    if (apart, contents[Part.CHAIN].decode()) != (leaf_pem, rest):
        raise InvalidRequest("cert, chain and fullchain are not of one certificate")
    pem = _pem_of(serialization.load_pem_private_key(key, None)) if key else None
    return Bundle(chain, pem)


def _load_pkcs12(content: bytes, password: str) -> Bundle:
    try:
        found = pkcs12.load_pkcs12(content, password.encode())
    except ValueError as exc:
        if "password" not in str(exc).lower():
            raise
        raise AuthenticationFailed(
            "the PKCS #12 container has another password",
            remedy="Give the password it has, or remove the file: it is then made anew.",
        ) from exc
    if found.cert is None or found.key is None:
        raise InvalidRequest("the PKCS #12 container lacks certificate or key")
    certificates = [found.cert.certificate, *(one.certificate for one in found.additional_certs)]
    return Bundle(Chain.of(certificates), _pem_of(found.key))


def _store(bundle: Bundle, form: Format, password: str, alias: str) -> bytes:
    if len(password) < _SHORTEST_PASSWORD:
        # keytool and with it most Java servers refuse shorter ones.
        raise InvalidRequest(
            f"{form} needs a password of at least {_SHORTEST_PASSWORD} characters",
            remedy="Set `password` to a reference (env:NAME or file:/path) to a longer one.",
        )
    leaf, *others = bundle.chain.certificates
    pem = _key(bundle)
    if form is Format.JKS:
        return jks.write(
            _der(pem), [leaf, *others], alias=alias, password=password, created=datetime.now(UTC)
        )
    key = serialization.load_pem_private_key(pem.reveal(), None)
    return pkcs12.serialize_key_and_certificates(
        alias.encode(),
        key,  # type: ignore[arg-type]  # keys that cannot sign never get a certificate
        leaf,
        others,
        _encryption(form, password.encode()),
    )


def _encryption(form: Format, password: bytes) -> KeySerializationEncryption:
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_ROUNDS)
    if form is Format.PKCS12_LEGACY:
        return (
            builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
            .hmac_hash(hashes.SHA1())  # noqa: S303 - what those readers know
            .build(password)
        )
    return (
        builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password)
    )


def _alias(alias: str) -> str:
    wanted = alias or "certificate"
    is_plain = wanted.isprintable() and all(ord(char) <= 0xFFFF for char in wanted)
    if not is_plain or len(wanted) > _LONGEST_ALIAS or wanted != wanted.strip():
        raise InvalidRequest(
            "the alias has characters that a key store cannot hold",
            remedy=f"Use up to {_LONGEST_ALIAS} plain characters as `alias`.",
        )
    return wanted


def _key(bundle: Bundle) -> PrivateKeyPem:
    if bundle.key is None:
        raise InvalidRequest(
            "this form holds the private key, and the certificate came without one",
            remedy="Let Certrail make the key, or deliver as pem or der.",
        )
    return bundle.key


def _der(pem: PrivateKeyPem) -> bytes:
    key = serialization.load_pem_private_key(pem.reveal(), None)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _pem_of(key: PrivateKeyTypes) -> PrivateKeyPem:
    return PrivateKeyPem(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
