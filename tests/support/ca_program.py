"""A CA as a program of somebody's own: what ``ca-command`` starts in the tests.

Run as ``python ca_program.py FOLDER``. It wants the secret in ``FOLDER/secret``,
issues at the second question (``collect``) unless ``FAST=1``, keeps one file an
order, refuses what is not below ``example.test``, and writes each call down.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

FOLDER = Path(sys.argv[1] if __name__ == "__main__" else ".")
PEM = serialization.Encoding.PEM


def make_ca(folder: Path) -> None:
    """Write key and certificate of the CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Program CA")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=100))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "ca.key").write_bytes(key.private_bytes(PEM, *form))
    (folder / "ca.pem").write_bytes(certificate.public_bytes(PEM))


def sign(csr_pem: bytes, names: list[str]) -> str:
    """Return leaf and root in PEM; the root is what a careless program would add."""
    csr = x509.load_pem_x509_csr(csr_pem)
    key = serialization.load_pem_private_key((FOLDER / "ca.key").read_bytes(), None)
    ca = x509.load_pem_x509_certificate((FOLDER / "ca.pem").read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return leaf.public_bytes(PEM).decode() + ca.public_bytes(PEM).decode()


def issue(csr: bytes) -> dict[str, object]:
    """Take an order, or find it again by its reference."""
    names = os.environ["CERTRAIL_NAMES"].split(",")
    if any(not f".{name}".endswith(".example.test") for name in names):
        return {"refused": f"not ours: {', '.join(names)}", "code": "foreign-name"}
    number = hashlib.sha256(os.environ["CERTRAIL_REFERENCE"].encode()).hexdigest()[:16]
    order = FOLDER / "orders" / number
    if not order.exists():
        order.parent.mkdir(exist_ok=True)
        order.write_text(json.dumps({"names": names, "chain": sign(csr, names)}))
    if os.environ.get("FAST"):
        return {"chain": json.loads(order.read_text())["chain"], "order": number}
    return {"pending": 0.02, "order": number}


def collect() -> dict[str, object]:
    """Return the chain at the second question."""
    order = FOLDER / "orders" / os.environ["CERTRAIL_ORDER"]
    asked = order.with_suffix(".asked")
    if not asked.exists():
        asked.touch()
        return {"pending": 0.02}
    return {"chain": json.loads(order.read_text())["chain"]}


def revoke(chain: bytes) -> dict[str, object]:
    """Note the serial number."""
    leaf = x509.load_pem_x509_certificates(chain)[0]
    with (FOLDER / "revoked").open("a") as file:
        file.write(f"{leaf.serial_number:x} {os.environ['CERTRAIL_REASON']}\n")
    return {"ok": "revoked"}


def main() -> int:
    """Do what CERTRAIL_ACTION says."""
    action, sent = os.environ["CERTRAIL_ACTION"], sys.stdin.buffer.read()
    with (FOLDER / "calls").open("a") as file:
        file.write(json.dumps({"argv": sys.argv[2:], "environ": dict(os.environ)}) + "\n")
    if os.environ.get("CERTRAIL_SECRET") != (FOLDER / "secret").read_text():
        print(f"wrong secret {os.environ.get('CERTRAIL_SECRET')}", file=sys.stderr)
        return 77
    match action:
        case "check":
            answer: dict[str, object] = {"ok": "the program works"}
        case "issue":
            answer = issue(sent)
        case "collect":
            answer = collect()
        case _:
            answer = revoke(sent)
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
