"""``certreq`` of Windows: ``-new`` of an INF file and ``-accept`` ("certreq", Windows commands).

It knows the keys of that page and refuses others. Texts are like the real ones, not theirs;
exit codes are those of ``winerror.h``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

INVALID_DATA, NOT_FOUND, FILE_EXISTS = 0x8007000D, 0x80092004, 0x80070050
UNTRUSTED_ROOT, NO_FILE, BAD_NAME = 0x800B0109, 0x80070002, 0x80092023

_KNOWN = frozenset(
    [
        "subject",
        "exportable",
        "exportableencrypted",
        "hashalgorithm",
        "keyalgorithm",
        "keycontainer",
        "keylength",
        "keyspec",
        "keyusage",
        "keyusageproperty",
        "machinekeyset",
        "notbefore",
        "notafter",
        "privatekeyarchive",
        "encryptionalgorithm",
        "encryptionlength",
        "providername",
        "providertype",
        "renewalcert",
        "requestername",
        "requesttype",
        "securitydescriptor",
        "alternatesignaturealgorithm",
        "silent",
        "smime",
        "useexistingkeyset",
        "keyprotection",
        "suppressdefaults",
        "friendlyname",
        "validityperiodunits",
        "validityperiod",
    ]
)
_CURVES: dict[str, tuple[str, type[ec.EllipticCurve]]] = {
    "ECDSA_P256": ("256", ec.SECP256R1),
    "ECDSA_P384": ("384", ec.SECP384R1),
}
_SOFTWARE_PROVIDER = "Microsoft Software Key Storage Provider"
_CLIENT_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.311.21.20")
_HEADER = "CERTIFICATE REQUEST"


class Refused(Exception):
    """``certreq`` ends with *code*."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Certificate Request Processor: {message} 0x{code:08x}")
        # As an exit code it is a signed number.
        self.code = code - (1 << 32)


@dataclass(frozen=True)
class Made:
    """What ``-new`` made: the file, and what goes into the store of requests."""

    request: bytes
    certificate: x509.Certificate
    key: bytes
    friendly_name: str
    exportable: bool
    for_machine: bool


def options(arguments: list[str], *known: str) -> tuple[set[str], list[str]]:
    """Split the arguments of a verb; *AssertionError* for an option that is not documented."""
    given = {one for one in arguments if one.startswith("-")}
    assert given <= set(known), given
    return given, [one for one in arguments if not one.startswith("-")]


def new(text: str) -> Made:
    """Make what the INF file *text* says.

    Raises:
        Refused: it says something unknown, or too little.
    """
    sections = _sections(text)
    assert sections.get("version") == [("signature", "$Windows NT$")]
    if unknown := set(sections) - {"version", "newrequest", "extensions"}:
        raise Refused(INVALID_DATA, f"The data is invalid. {sorted(unknown)}")
    pairs = sections.get("newrequest", [])
    settings = dict(pairs)
    assert len(settings) == len(pairs), "a key twice"
    if unknown := set(settings) - _KNOWN:
        raise Refused(INVALID_DATA, f"The data is invalid. {sorted(unknown)}")
    subject = re.fullmatch(r"CN=([^,=+\"<>#;]{1,64})", settings.get("subject", ""))
    if not subject:
        raise Refused(BAD_NAME, "The string contains an invalid X500 name attribute.")
    assert settings["requesttype"] == "PKCS10"
    assert settings["silent"] == "TRUE", "it may ask somebody who is not there"
    assert settings["hashalgorithm"] == "sha256"
    key = _key(settings)
    asked = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject[1])])
    )
    for extension in _extensions(sections.get("extensions", [])):
        asked = asked.add_extension(extension, critical=False)
    asked = asked.add_extension(_usage(int(settings["keyusage"], 16)), critical=True)
    if settings.get("suppressdefaults") != "TRUE":
        asked = asked.add_attribute(_CLIENT_INFO, b"web1\\deploy certreq.exe")
    # The real one writes "NEW" into the header.
    pem = asked.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    lines = pem.replace(_HEADER, f"NEW {_HEADER}").splitlines()
    return Made(
        "".join(f"{line}\r\n" for line in lines).encode(),
        _stand_in(subject[1], key),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        settings.get("friendlyname", ""),
        settings.get("exportable", "FALSE") == "TRUE",
        settings.get("machinekeyset", "FALSE") == "TRUE",
    )


def must_be_trusted(
    leaf: x509.Certificate, between: list[x509.Certificate], roots: list[x509.Certificate]
) -> None:
    """Check that a chain of *leaf* ends in one of *roots*.

    Raises:
        Refused: it does not.
    """
    present = leaf
    for _ in range(len(between) + 1):
        if any(_issued(one, present) for one in roots):
            return
        issuer = next((one for one in between if _issued(one, present)), None)
        if issuer is None:
            break
        present = issuer
    raise Refused(
        UNTRUSTED_ROOT,
        "A certificate chain processed, but terminated in a root certificate which is not "
        "trusted by the trust provider.",
    )


def public_key(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _sections(text: str) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    section: list[tuple[str, str]] | None = None
    for line in text.split("\r\n"):
        if not line:
            continue
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(heading[1].lower(), [])
            continue
        pair = re.fullmatch(r'([\w.]+) = (?:"([^"%]*)"|([^"%;,\s]+))', line)
        if section is None or not pair:
            raise Refused(INVALID_DATA, f"The data is invalid. {line}")
        section.append((pair[1].lower(), pair[2] if pair[2] is not None else pair[3]))
    return found


def _key(settings: dict[str, str]) -> Key:
    kind, length = settings["keyalgorithm"], settings["keylength"]
    if settings.get("providername") != _SOFTWARE_PROVIDER:
        raise Refused(INVALID_DATA, "The older providers know no such key.")
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=int(length))
    if kind not in _CURVES or _CURVES[kind][0] != length:
        raise Refused(INVALID_DATA, f"The data is invalid. {kind}")
    return ec.generate_private_key(_CURVES[kind][1]())


def _extensions(pairs: list[tuple[str, str]]) -> list[x509.SubjectAlternativeName]:
    if not pairs:
        return []
    if pairs[0] != ("2.5.29.17", "{text}") or {name for name, _ in pairs[1:]} - {"_continue_"}:
        raise Refused(INVALID_DATA, "The data is invalid. [Extensions]")
    names = []
    for part in "".join(value for _, value in pairs[1:]).removesuffix("&").split("&"):
        kind, equals, name = part.partition("=")
        if (kind, equals) != ("DNS", "=") or "=" in name:
            raise Refused(INVALID_DATA, f"The data is invalid. {part}")
        names.append(x509.DNSName(name))
    return [x509.SubjectAlternativeName(names)]


def _usage(bits: int) -> x509.KeyUsage:
    assert bits & ~0xA0 == 0
    return x509.KeyUsage(
        digital_signature=bool(bits & 0x80),
        key_encipherment=bool(bits & 0x20),
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _stand_in(name: str, key: Key) -> x509.Certificate:
    """Return the certificate that keeps a key in the store of requests until the real one comes."""
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )


def _issued(issuer: x509.Certificate, other: x509.Certificate) -> bool:
    try:
        other.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
