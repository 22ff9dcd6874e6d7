"""Java's own key store format, JKS: one private key with its chain.

No maintained Python library writes it, and a worker need not have Java. The
layout follows the comment in OpenJDK's ``sun.security.provider.JavaKeyStore``
(version 2 of the format) and the description of ``KeyProtector`` there:

======================  ==================================================
magic, version, count   0xFEEDFEED, 2, number of entries; 4 bytes each
entry                   tag (1: private key), alias, time in ms, length and
                        DER of an EncryptedPrivateKeyInfo, number of certificates
certificate             ``X.509``, length, DER
end                     SHA-1 of password, ``Mighty Aphrodite`` and all before
======================  ==================================================

All numbers are big-endian. The key is protected by nothing better than a
SHA-1 key stream, so the file is as sensitive as a key in the clear. Prefer
PKCS #12, which Java has read since version 8 and writes by default since 9.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certrail.errors import AuthenticationFailed, UnexpectedReply

_MAGIC = 0xFEEDFEED
_VERSION = 2
_PRIVATE_KEY, _CERTIFICATE = 1, 2
_WHITENER = b"Mighty Aphrodite"
_DIGEST = 20
# SEQUENCE { OID 1.3.6.1.4.1.42.2.17.1.1 (JavaSoft key protector), NULL }
_ALGORITHM = bytes.fromhex("300e060a2b060104012a021101010500")


def write(
    key: bytes,
    certificates: Sequence[x509.Certificate],
    *,
    alias: str,
    password: str,
    created: datetime,
) -> bytes:
    """Return a key store with one entry.

    Args:
        key: PKCS #8, DER, in the clear.
        certificates: leaf first.
        alias: Java compares aliases in lower case, so it is stored so.
        password: of the store and of the key: most servers know only one.
        created: shown by ``keytool -list``.
    """
    secret = _password(password)
    body = struct.pack(">III", _MAGIC, _VERSION, 1) + struct.pack(">I", _PRIVATE_KEY)
    body += _text(alias.lower()) + struct.pack(">q", int(created.timestamp() * 1000))
    body += _sized(_protect(key, secret)) + struct.pack(">I", len(certificates))
    for certificate in certificates:
        body += _text("X.509") + _sized(certificate.public_bytes(Encoding.DER))
    return body + _seal(body, secret)


def read(content: bytes, password: str) -> tuple[bytes, list[x509.Certificate]]:
    """Return the key (PKCS #8, DER) and the chain of the first private key.

    Raises:
        AuthenticationFailed: the password is another one, or the file was altered.
        UnexpectedReply: not a key store with a private key.
    """
    secret = _password(password)
    body, seal = content[:-_DIGEST], content[-_DIGEST:]
    if len(content) < _DIGEST + 12 or struct.unpack(">I", content[:4])[0] != _MAGIC:
        raise UnexpectedReply("not a JKS key store")
    if not hmac.compare_digest(_seal(body, secret), seal):
        raise AuthenticationFailed(
            "the key store was made with another password, or was altered",
            remedy="Give the password it has, or remove the file: it is then made anew.",
        )
    try:
        return _first_key(_Reader(body), secret)
    except (struct.error, ValueError, IndexError) as exc:
        raise UnexpectedReply(f"a damaged JKS key store: {exc}") from exc


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, length: int) -> bytes:
        found = self._content[self._at : self._at + length]
        if len(found) != length:
            raise ValueError("it ends too early")
        self._at += length
        return found

    def number(self, form: str = ">I") -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> bytes:
        return self.take(self.number(">H"))

    def sized(self) -> bytes:
        return self.take(self.number())

    def certificate(self) -> x509.Certificate:
        self.text()
        return x509.load_der_x509_certificate(self.sized())


def _first_key(reader: _Reader, secret: bytes) -> tuple[bytes, list[x509.Certificate]]:
    reader.number()
    if (version := reader.number()) != _VERSION:
        raise ValueError(f"version {version} is not known")
    for _ in range(reader.number()):
        tag = reader.number()
        reader.text()
        reader.number(">q")
        if tag == _PRIVATE_KEY:
            protected = reader.sized()
            return _unprotect(protected, secret), [
                reader.certificate() for _ in range(reader.number())
            ]
        if tag != _CERTIFICATE:
            raise ValueError(f"entries of kind {tag} are not known")
        reader.certificate()
    raise UnexpectedReply("the key store holds no private key")


def _protect(key: bytes, secret: bytes) -> bytes:
    salt = os.urandom(_DIGEST)
    hidden = salt + _stream(key, secret, salt) + _sha1(secret + key)
    return _der(0x30, _ALGORITHM + _der(0x04, hidden))


def _unprotect(info: bytes, secret: bytes) -> bytes:
    inner = _open_der(info, 0x30)
    if not inner.startswith(_ALGORITHM):
        raise ValueError("the key is protected in another way")
    hidden = _open_der(inner[len(_ALGORITHM) :], 0x04)
    key = _stream(hidden[_DIGEST:-_DIGEST], secret, hidden[:_DIGEST])
    if not hmac.compare_digest(_sha1(secret + key), hidden[-_DIGEST:]):
        raise AuthenticationFailed("the key in the key store has a password of its own")
    return key


def _stream(content: bytes, secret: bytes, salt: bytes) -> bytes:
    """Combine *content* with a chain of digests; the same again undoes it."""
    mask = b""
    while len(mask) < len(content):
        salt = _sha1(secret + salt)
        mask += salt
    return bytes(a ^ b for a, b in zip(content, mask, strict=False))


def _seal(body: bytes, secret: bytes) -> bytes:
    return _sha1(secret + _WHITENER + body)


def _sha1(content: bytes) -> bytes:
    return hashlib.sha1(content).digest()  # noqa: S324 - the format knows nothing else


def _password(password: str) -> bytes:
    return password.encode("utf-16-be")


def _text(text: str) -> bytes:
    # Java's DataOutput writes a UTF-8 that differs only for NUL and beyond the BMP.
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def _sized(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def _open_der(content: bytes, tag: int) -> bytes:
    if content[0] != tag:
        raise ValueError("the key is not an EncryptedPrivateKeyInfo")
    start, length = 2, content[1]
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(content[2:start], "big")
    return content[start : start + length]
