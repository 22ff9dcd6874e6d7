"""Throw-away CAs, certificates of every kind of fault, and small servers that present them.

``Authority`` makes chains; ``tls_server`` serves one with the standard
library's TLS; ``scripted_server`` gives each connection to a function, for
peers that misbehave. Each listens on a port of the kernel's choice.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
"""One moment for the whole run, so that dates in messages can be compared."""

DAY = timedelta(days=1)


def pem(*certificates: x509.Certificate) -> str:
    """Return the certificates as one PEM text."""
    encoded = (known.public_bytes(serialization.Encoding.PEM) for known in certificates)
    return b"".join(encoded).decode()


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def common_name(text: str) -> x509.Name:
    """Return a name of one common name; "" gives the empty name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


@dataclass(frozen=True)
class Issued:
    """A leaf, its key, and the intermediates up to but without the root."""

    leaf: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a correct server sends."""
        return (self.leaf, *self.intermediates)

    def key_pem(self) -> str:
        """Return the key as unencrypted PKCS #8."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def write(self, folder: Path, *, sent: Sequence[x509.Certificate] | None = None) -> Path:
        """Write chain and key into one file of mode 0600 and return its path."""
        path = folder / "server.pem"
        path.touch(mode=0o600)
        path.write_text(self.key_pem() + pem(*(self.chain if sent is None else sent)))
        return path


@dataclass
class Authority:
    """A CA: its certificate, its key and its own issuers below the root, nearest first."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)
    above: tuple[x509.Certificate, ...] = ()
    is_root: bool = True

    @classmethod
    def root(
        cls,
        name: str = "Test Root",
        *,
        not_before: datetime = NOW - 3650 * DAY,
        not_after: datetime = NOW + 3650 * DAY,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Authority:
        """Make a self-signed CA."""
        own = key or new_key()
        builder = _builder(common_name(name), common_name(name), own, not_before, not_after)
        builder = _ca_extensions(builder, own)
        return cls(builder.sign(own, hashes.SHA256()), own)

    def intermediate(
        self,
        name: str = "Test Intermediate",
        *,
        not_before: datetime = NOW - 1000 * DAY,
        not_after: datetime = NOW + 1000 * DAY,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Authority:
        """Make a CA below this one."""
        own = new_key()
        issuer = self.certificate.subject
        builder = _builder(common_name(name), issuer, own, not_before, not_after)
        builder = _ca_extensions(builder, own, self.key)
        for value, critical in extra:
            builder = builder.add_extension(value, critical)
        above = () if self.is_root else (self.certificate, *self.above)
        return Authority(builder.sign(self.key, hashes.SHA256()), own, above, is_root=False)

    def issue(
        self,
        *names: str,
        subject: str | None = None,
        not_before: datetime = NOW - DAY,
        not_after: datetime = NOW + 89 * DAY,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,),
        identifiers: bool = True,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Issued:
        """Issue a server certificate for *names* (DNS names and IP addresses)."""
        own = key or new_key()
        shown = (names[0] if names else "no names") if subject is None else subject
        issuer = self.certificate.subject
        builder = _builder(common_name(shown), issuer, own, not_before, not_after)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]),
                critical=False,
            )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if identifiers:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        for value, critical in extra:
            builder = builder.add_extension(value, critical)
        leaf = builder.sign(self.key, hashes.SHA256())
        above = () if self.is_root else (self.certificate, *self.above)
        return Issued(leaf, own, above)

    def ocsp_response(self, leaf: x509.Certificate) -> bytes:
        """Return a signed OCSP response that calls *leaf* good, valid for a day."""
        builder = ocsp.OCSPResponseBuilder().add_response(
            leaf,
            self.certificate,
            hashes.SHA1(),  # only identifies the issuer (RFC 6960 section 4.1.1)
            ocsp.OCSPCertStatus.GOOD,
            NOW,
            NOW + DAY,
            None,
            None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, self.certificate)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def self_signed(*names: str) -> Issued:
    """Return a certificate that is its own issuer."""
    own = new_key()
    name = common_name(names[0])
    builder = _builder(name, name, own, NOW - DAY, NOW + 89 * DAY).add_extension(
        x509.SubjectAlternativeName([_general_name(text) for text in names]), critical=False
    )
    return Issued(builder.sign(own, hashes.SHA256()), own)


def sha1_signed(names: Sequence[str], key: rsa.RSAPrivateKey, ca_name: str) -> x509.Certificate:
    """Return a certificate signed with SHA-1, which no library signs any more, by *key*."""
    ca = Authority(Authority.root(ca_name, key=key).certificate, key)
    der = ca.issue(*names).leaf.public_bytes(serialization.Encoding.DER)
    # The identifiers of SHA-256 and SHA-1 with RSA differ in their last byte only.
    prefix = bytes.fromhex("06092a864886f70d0101")
    der = der.replace(prefix + b"\x0b", prefix + b"\x05")
    unsigned = x509.load_der_x509_certificate(der)
    signature = key.sign(unsigned.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA1())
    return x509.load_der_x509_certificate(der[: -len(signature)] + signature)


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Return an RSA key; slow from 2048 bits on."""
    return rsa.generate_private_key(65537, bits)


@contextmanager
def tls_server(
    issued: Issued,
    *,
    sent: Sequence[x509.Certificate] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    prepare: Callable[[ssl.SSLContext], None] | None = None,
) -> Iterator[int]:
    """Serve *issued* and yield the port.

    *sent* replaces the chain that is presented (the leaf stays first);
    *prepare* changes the server's TLS settings.
    """
    context = server_context(issued, sent=sent)
    if prepare:
        prepare(context)

    def shake(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    with scripted_server(shake, host=host, port=port) as chosen:
        yield chosen


def server_context(
    issued: Issued, *, sent: Sequence[x509.Certificate] | None = None
) -> ssl.SSLContext:
    """Return server settings that present *issued*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with tempfile.TemporaryDirectory() as folder:
        context.load_cert_chain(issued.write(Path(folder), sent=sent))
    return context


@contextmanager
def scripted_server(
    talk: Callable[[socket.socket], None], *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[int]:
    """Give every connection to *talk* in a thread of its own; yield the port.

    What *talk* raises when the client goes away is expected and dropped.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=64) as listener:
        closing = threading.Event()
        open_connections: list[socket.socket] = []

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError, ValueError):
                talk(connection)

        def accept() -> None:
            while not closing.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                open_connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            closing.set()
            # Closing alone does not wake a thread that waits in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in open_connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificateIssuerPrivateKeyTypes,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _ca_extensions(
    builder: x509.CertificateBuilder,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: CertificateIssuerPrivateKeyTypes | None = None,
) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if issuer is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False
        )
    return builder


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
