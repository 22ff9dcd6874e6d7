"""Root and intermediate of a CA on disk: made once, kept in files, read for signing."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certrail.ca.folder import Folder
from certrail.errors import AuthenticationFailed, InvalidRequest, NotFound
from certrail.model import UNREADABLE
from certrail.names import Name

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# Clocks of clients and servers differ; a CA younger than its leaf is refused.
_BACKDATED = timedelta(days=1)
_FOLDER = "authority"


@dataclass(frozen=True, slots=True)
class Design:
    """What a new CA is made with; without effect on one that exists.

    Attributes:
        name: common name of the root; the intermediate's has " Intermediate" added.
        root_lifetime, intermediate_lifetime: how long they are valid.
        permitted: DNS suffixes and networks the intermediate is limited to, none for no limit.
    """

    name: str
    root_lifetime: timedelta
    intermediate_lifetime: timedelta
    permitted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """An intermediate that can sign, and the root above it.

    Attributes:
        certificate: of the intermediate.
        key: of the intermediate.
        root: its issuer; trust this one.
        fingerprint: of the intermediate, to tell generations apart.
    """

    certificate: x509.Certificate
    key: SigningKey = field(repr=False)
    root: x509.Certificate

    @property
    def pem(self) -> str:
        """The intermediate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def load(folder: Folder, design: Design, password: str) -> Authority:
    """Read the CA from *folder*, making it first where there is none.

    The keys lie in PKCS #8 files of mode 0600, encrypted where *password* is
    not "". ``root.key`` is not needed for signing and may be kept elsewhere.

    Raises:
        AuthenticationFailed: the password does not open the intermediate's key.
        InvalidRequest: the files belong to different CAs, or cannot be read.
    """
    if not folder.exists(_FOLDER):
        with folder.locked():
            if not folder.exists(_FOLDER):
                _make(folder, design, password)
    return _read(folder, password)


def exists(folder: Folder) -> bool:
    """Return whether the CA has been made."""
    return folder.exists(_FOLDER)


def _make(folder: Folder, design: Design, password: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    root_key = ec.generate_private_key(ec.SECP384R1())
    intermediate_key = ec.generate_private_key(ec.SECP256R1())
    root_name, intermediate_name = _subject(design.name), _subject(f"{design.name} Intermediate")
    until = now + design.root_lifetime
    root = _ca_certificate(root_name, root_key, root_name, root_key, now, until, None).sign(
        root_key, hashes.SHA384()
    )
    builder = _ca_certificate(
        intermediate_name,
        intermediate_key,
        root_name,
        root_key,
        now,
        min(now + design.intermediate_lifetime, until),
        0,
    )
    if design.permitted:
        builder = builder.add_extension(constraints(design.permitted), critical=True)
    intermediate = builder.sign(root_key, hashes.SHA384())
    with folder.new_folder(_FOLDER) as new:
        for name, key, certificate in (
            ("root", root_key, root),
            ("intermediate", intermediate_key, intermediate),
        ):
            new.write(f"{name}.key", _sealed(key, password), mode=0o600, durable=True)
            pem = certificate.public_bytes(serialization.Encoding.PEM)
            new.write(f"{name}.pem", pem, durable=True)


def _ca_certificate(
    subject: x509.Name,
    key: SigningKey,
    issuer: x509.Name,
    issuer_key: SigningKey,
    now: datetime,
    until: datetime,
    path_length: int | None,
) -> x509.CertificateBuilder:
    """RFC 5280 section 4.2.1: what a CA certificate has to carry."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def key_usage(**wanted: bool) -> x509.KeyUsage:
    """Return a key usage with only *wanted* set."""
    usages = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{usage: wanted.get(usage, False) for usage in usages})


def constraints(permitted: Sequence[str]) -> x509.NameConstraints:
    """Return name constraints (RFC 5280 section 4.2.1.10) for suffixes and networks.

    A kind that is not listed is not limited by the RFC, so a list of DNS
    suffixes alone excludes every address, and the other way round.
    """
    networks = [net for text in permitted if (net := network(text)) is not None]
    suffixes = [text for text in permitted if network(text) is None]
    allowed: list[x509.GeneralName] = [x509.DNSName(text.lstrip(".")) for text in suffixes]
    allowed += [x509.IPAddress(each) for each in networks]
    excluded: list[x509.GeneralName] = []
    if not networks:
        excluded += [x509.IPAddress(ipaddress.ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
    if not suffixes:
        excluded.append(x509.DNSName(""))
    return x509.NameConstraints(allowed, excluded or None)


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return *text* as a network, None if it is a DNS suffix."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def is_permitted(name: Name, permitted: Sequence[str]) -> bool:
    """Return whether *name* lies under one of *permitted*; under none means no limit."""
    if not permitted:
        return True
    if name.is_ip:
        address = ipaddress.ip_address(name.text)
        return any(address in net for text in permitted if (net := network(text)) is not None)
    return any(
        f".{name.base}".endswith(f".{text.lower().lstrip('.')}")
        for text in permitted
        if network(text) is None
    )


def limits(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the permitted subtrees in *certificate* as suffixes and networks; empty for none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        str(each.value)
        for each in found.permitted_subtrees or ()
        if isinstance(each, x509.DNSName | x509.IPAddress)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _sealed(key: SigningKey, password: str) -> bytes:
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _read(folder: Folder, password: str) -> Authority:
    root, certificate, key_pem = (
        _present(folder, f"{_FOLDER}/{name}")
        for name in ("root.pem", "intermediate.pem", "intermediate.key")
    )
    authority = Authority(
        certificate=_certificate(certificate, "intermediate.pem", folder.label),
        key=_key(key_pem, password, folder.label),
        root=_certificate(root, "root.pem", folder.label),
    )
    if authority.key.public_key() != authority.certificate.public_key():
        raise InvalidRequest(
            f"{folder.label}: intermediate.key is not the key of intermediate.pem",
            remedy=f"Put back the pair that belongs together in {folder.path / _FOLDER}.",
        )
    return authority


def _present(folder: Folder, name: str) -> bytes:
    content = folder.read(name)
    if content is None:
        raise NotFound(
            f"{folder.label}: {folder.path / name} is missing",
            remedy="Put the file back from a backup, or use another folder for a new CA.",
            connector=folder.label,
        )
    return content


def _certificate(pem: bytes, name: str, label: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except UNREADABLE as exc:
        raise InvalidRequest(
            f"{label}: {name} is not a certificate in PEM", remedy="Put it back from a backup."
        ) from exc


def _key(pem: bytes, password: str, label: str) -> SigningKey:
    is_encrypted = b"ENCRYPTED" in pem
    if is_encrypted and not password:
        raise AuthenticationFailed(
            f"{label}: the key of the intermediate is encrypted and there is no password",
            remedy="Set key_password of the connector.",
            connector=label,
        )
    try:
        key = serialization.load_pem_private_key(
            pem, password=password.encode() if is_encrypted else None
        )
    except ValueError:
        # Not chained: the cause may quote the file.
        if is_encrypted:
            raise AuthenticationFailed(
                f"{label}: the password does not open the key of the intermediate",
                remedy="Set key_password of the connector to the one the CA was made with.",
                connector=label,
            ) from None
        raise InvalidRequest(
            f"{label}: intermediate.key is not a private key in PEM",
            remedy="Put it back from a backup.",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidRequest(
            f"{label}: intermediate.key is a key of the kind {type(key).__name__}",
            remedy="Use an ECDSA or RSA key for the intermediate.",
        )
    return key
