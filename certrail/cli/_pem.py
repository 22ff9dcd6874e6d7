"""Trusted certificates from files: read once, here, since a worker may be on another machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certrail.errors import InvalidRequest
from certrail.log import plain
from certrail.model import UNREADABLE

_LARGEST = 4 * 1024 * 1024


def trust_from_file(path: Path) -> str:
    """Return the certificates of a PEM file as text.

    Raises:
        InvalidRequest: it cannot be read or holds no certificate.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InvalidRequest(f"{path} is larger than {_LARGEST // 1024 // 1024} MiB")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc
    return trust_from_text(text, str(path))


def trust_from_text(text: str, name: str = "the text") -> str:
    """Return the certificates in *text* alone, without remarks between them.

    Raises:
        InvalidRequest: there is none, or one cannot be read.
    """
    if "PRIVATE KEY" in text:
        raise InvalidRequest(f"{name} holds a private key; only certificates belong there")
    try:
        certificates = x509.load_pem_x509_certificates(text.encode())
    except UNREADABLE as exc:
        raise InvalidRequest(f"{name} holds no certificate in PEM: {plain(exc)}") from exc
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def expired_trust(text: str, now: datetime | None = None) -> str:
    """Return which certificate of *text* is expired, "" if none is."""
    moment = now or datetime.now(UTC)
    for certificate in x509.load_pem_x509_certificates(text.encode()):
        if certificate.not_valid_after_utc <= moment:
            subject = plain(certificate.subject.rfc4514_string())
            return (
                f"the certificate {subject} in it expired on "
                f"{certificate.not_valid_after_utc:%Y-%m-%d}; a test that trusts it would "
                "always fail"
            )
    return ""
