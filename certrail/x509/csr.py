"""Certificate signing requests (PKCS #10, RFC 2986)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certrail.errors import InvalidRequest
from certrail.model import UNREADABLE, Csr, KeyAlgorithm, SubjectSpec
from certrail.names import Name, parse_names
from certrail.private_key import PrivateKeyPem

_LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280 appendix A.1
_ATTRIBUTES = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
_BY_LOWER_CASE = {short.lower(): oid for short, oid in _ATTRIBUTES.items()}


@dataclass(frozen=True, slots=True)
class CsrContent:
    """What a CSR asks for, read back.

    Attributes:
        common_name: of the subject, "" if it has none.
        subject: the subject as RFC 4514 text.
        names: DNS names and IP addresses of the subject alternative names.
        signature_valid: whether the CSR is signed by the key it carries.
        algorithm: of its key, None if it is none of those that Certrail makes.
    """

    common_name: str
    subject: str
    names: tuple[str, ...]
    signature_valid: bool
    algorithm: KeyAlgorithm | None


def build_csr(subject: SubjectSpec, key_pem: PrivateKeyPem) -> Csr:
    """Make and sign a CSR.

    The common name is the first DNS name of at most 64 octets, unless
    ``subject.attributes`` sets ``CN``; IP addresses become common names only
    that way. Without a common name the subject alternative names are critical
    where the subject is empty (RFC 5280 section 4.2.1.6).

    Raises:
        InvalidRequest: a name, an attribute or the key cannot be used.
    """
    names = parse_names(subject.names)
    key = _signing_key(key_pem)
    name = x509.Name(_attributes(subject, names))
    alternative = x509.SubjectAlternativeName([_general_name(each) for each in names])
    built = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(alternative, critical=not list(name))
        .sign(key, _digest(key))
    )
    return Csr(built.public_bytes(serialization.Encoding.PEM).decode())


def read_csr(csr: Csr) -> CsrContent:
    """Return what *csr* asks for.

    Raises:
        InvalidRequest: it cannot be read.
    """
    try:
        parsed = csr.parsed
        common = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return CsrContent(
            common_name=str(common[0].value) if common else "",
            subject=parsed.subject.rfc4514_string(),
            names=_alternative_names(parsed),
            signature_valid=parsed.is_signature_valid,
            algorithm=algorithm_of(parsed.public_key()),
        )
    except UNREADABLE as exc:
        raise InvalidRequest(
            f"not a certificate signing request: {exc}", remedy="Give a PKCS #10 request in PEM."
        ) from exc


def algorithm_of(key: object) -> KeyAlgorithm | None:
    """Return the algorithm of a public key, None if it is none of those that Certrail makes."""
    if isinstance(key, rsa.RSAPublicKey):
        text = f"rsa-{key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        text = f"ecdsa-p{key.curve.key_size}"
    else:
        return None
    return KeyAlgorithm(text) if text in set(KeyAlgorithm) else None


def _alternative_names(parsed: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    dns = extension.value.get_values_for_type(x509.DNSName)
    ips = extension.value.get_values_for_type(x509.IPAddress)
    return (*dns, *(str(ip) for ip in ips))


def _attributes(subject: SubjectSpec, names: tuple[Name, ...]) -> list[x509.NameAttribute[str]]:
    given = {short.lower(): value for short, value in subject.attributes.items() if value}
    for short in given:
        if short not in _BY_LOWER_CASE:
            raise InvalidRequest(
                f"unknown subject attribute {short!r}",
                remedy=f"Use one of: {', '.join(_ATTRIBUTES)}.",
            )
    if "cn" not in given:
        fitting = (n.text for n in names if not n.is_ip and len(n.text) <= _LONGEST_COMMON_NAME)
        given["cn"] = next(fitting, "")
    made = []
    # In the order of the table: from country down to common name, as CAs print it.
    for short, oid in _BY_LOWER_CASE.items():
        if value := given.get(short):
            try:
                made.append(x509.NameAttribute(oid, value))
            except (ValueError, TypeError) as exc:
                raise InvalidRequest(
                    f"the subject attribute {short.upper()} cannot be {value!r}: {exc}"
                ) from exc
    return made


def _general_name(name: Name) -> x509.GeneralName:
    if name.is_ip:
        return x509.IPAddress(ipaddress.ip_address(name.text))
    return x509.DNSName(name.text)


def _signing_key(key_pem: PrivateKeyPem) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(key_pem.reveal(), password=None)
    except (ValueError, TypeError):
        # The cause could quote the key.
        raise InvalidRequest(
            "the private key cannot be read", remedy="Start a reissue, which makes a new key."
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidRequest(
            f"keys of the kind {type(key).__name__} are not supported",
            remedy="Use an ECDSA or RSA key.",
        )
    return key


def _digest(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    # A digest as strong as the curve (RFC 5480 section 4); 256 bits do for RSA.
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256:
        return hashes.SHA384() if key.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256()
