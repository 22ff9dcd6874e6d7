"""Root and intermediate in memory, for imitated services that issue certificates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

PEM = serialization.Encoding.PEM


class SigningCa:
    """Signs for any name.

    Attributes:
        root, intermediate: its certificates.
    """

    def __init__(self, name: str) -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._key = ec.generate_private_key(ec.SECP256R1())
        top, below = _name(f"{name} Root"), _name(f"{name} Intermediate")
        self.root = _certificate(top, self._root_key.public_key(), top, self._root_key, None, 900)
        self.intermediate = _certificate(
            below, self._key.public_key(), top, self._root_key, None, 800
        )

    def sign(self, csr_pem: str, names: Sequence[str], days: int = 30) -> x509.Certificate:
        """Return a leaf for the CSR's key and *names*; what the CSR says of names is ignored."""
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        subject = _name(names[0]) if len(names[0]) <= 64 else x509.Name([])
        issuer = self.intermediate.subject
        return _certificate(subject, csr.public_key(), issuer, self._key, names, days)

    @property
    def key_pem(self) -> str:
        """The intermediate's key, for a server that signs with it."""
        none = serialization.NoEncryption()
        return self._key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, none).decode()

    def bundle(self, leaf: x509.Certificate, *, root: bool = False) -> str:
        """Return leaf, intermediate and, if wanted, root in PEM."""
        parts = [leaf, self.intermediate, *([self.root] if root else [])]
        return "".join(each.public_bytes(PEM).decode() for each in parts)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    key: object,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    names: Sequence[str] | None,
    days: int,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=10))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)  # type: ignore[arg-type]
        .add_extension(_authority(signer), critical=False)
        .add_extension(_usage(ca=names is None), critical=True)
    )
    if names is not None:
        listed = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(listed, critical=False).add_extension(
            server, critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _authority(signer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    """Return the extension that names the key of the issuer, as every public CA adds it."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def _usage(*, ca: bool) -> x509.KeyUsage:
    """Return what the key of a CA, or of a server, is for."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
