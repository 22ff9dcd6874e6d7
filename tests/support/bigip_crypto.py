"""Keys and requests that a BIG-IP makes itself (``sys crypto``), on its fake.

What a request takes and shows: ``create sys crypto csr`` as listed in issue 1490 of
F5Networks/f5-common-python, F5's module ``bigip_ssl_csr``, and the output of ``tmsh list sys
crypto csr`` in F5 DevCentral's ACME client for BIG-IP (read November 2026).
"""

from __future__ import annotations

import ipaddress
import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

_CURVES = {"prime256v1": ec.SECP256R1(), "secp384r1": ec.SECP384R1()}
_NAME = r"[A-Za-z0-9_.-]+"


def made_key(body: dict[str, str]) -> tuple[str, bytes]:
    """Return name and content of the key that ``POST /mgmt/tm/sys/crypto/key`` makes."""
    assert set(body) <= {"name", "partition", "securityType", "keyType", "keySize", "curveName"}
    assert re.fullmatch(_NAME, body["name"])
    assert (body["partition"], body["securityType"]) == ("Common", "normal")
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if body["keyType"] == "ec-private":
        assert "keySize" not in body
        key = ec.generate_private_key(_CURVES[body["curveName"]])
    else:
        assert body["keyType"] == "rsa-private"
        assert "curveName" not in body
        assert body["keySize"] in ("2048", "4096")
        key = rsa.generate_private_key(public_exponent=65537, key_size=int(body["keySize"]))
    none = serialization.NoEncryption()
    old = serialization.PrivateFormat.TraditionalOpenSSL
    return f"/Common/{body['name']}", key.private_bytes(Encoding.PEM, old, none)


def made_request(body: dict[str, str], keys: dict[str, bytes]) -> tuple[str, bytes] | None:
    """Return name and content of the request that is made, None if there is no such key."""
    assert set(body) == {"name", "partition", "key", "commonName", "subjectAlternativeName"}
    assert re.fullmatch(_NAME, body["name"])
    assert body["partition"] == "Common"
    assert 1 <= len(body["commonName"]) <= 64
    content = keys.get(f"/Common/{body['key']}")
    if content is None:
        return None
    names: list[x509.GeneralName] = []
    for one in body["subjectAlternativeName"].split(","):
        kind, _, text = one.partition(":")
        ip = kind == "IP"
        assert ip or kind == "DNS"
        names.append(x509.IPAddress(ipaddress.ip_address(text)) if ip else x509.DNSName(text))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, body["commonName"])])
    key = serialization.load_pem_private_key(content, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    signed = (
        x509.CertificateSigningRequestBuilder(subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return body["name"], signed.public_bytes(Encoding.PEM)


def listed(command: str, requests: dict[str, bytes]) -> str:
    """Return what the device's shell answers to ``tmsh list sys crypto csr NAME``."""
    found = re.fullmatch(rf"-c 'tmsh list sys crypto csr ({_NAME})'", command)
    assert found, command
    name = found[1]
    return (
        f"{requests[name].decode()}sys crypto csr {name} {{\n    challenge-password\n"
        "    public-key-type ECDSA\n}\n"
    )
