"""Whom a client trusts: parsed once for each content, shared between threads."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.x509.verification import Store

from certrail.errors import InvalidRequest
from certrail.model import UNREADABLE
from certrail.x509.findings import shorten

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class TrustAnchors:
    """A set of trusted CA certificates, ready for verification.

    Attributes:
        certificates: the anchors, duplicates removed.
        label: what it is, for people: ``the profile's roots``, a file's path.
    """

    def __init__(self, certificates: Iterable[x509.Certificate], label: str) -> None:
        self.certificates = tuple(dict.fromkeys(certificates))
        self.label = label

    def __contains__(self, certificate: object) -> bool:
        return certificate in self._set

    @cached_property
    def store(self) -> Store | None:
        """The anchors as ``cryptography`` wants them; None when there are none."""
        return Store(list(self.certificates)) if self.certificates else None

    def named(self, subject: x509.Name) -> tuple[x509.Certificate, ...]:
        """Return the anchors with this subject."""
        return tuple(self._by_subject.get(subject.public_bytes(), ()))

    @cached_property
    def _set(self) -> frozenset[x509.Certificate]:
        return frozenset(self.certificates)

    @cached_property
    def _by_subject(self) -> dict[bytes, list[x509.Certificate]]:
        found: dict[bytes, list[x509.Certificate]] = {}
        for certificate in self.certificates:
            try:
                found.setdefault(certificate.subject.public_bytes(), []).append(certificate)
            except UNREADABLE:
                continue  # an anchor whose name cannot be read can issue nothing either
        return found


def load(roots: str | None) -> TrustAnchors:
    """Return the anchors in the PEM text *roots*; None means what this machine trusts.

    The system's bundle is found by SSL_CERT_FILE, OpenSSL's default, then the
    usual places of distributions; certifi where there is none of them.

    Raises:
        InvalidRequest: *roots* holds no readable certificate.
    """
    if roots is not None:
        return _parsed(roots)
    path = _system_bundle()
    status = path.stat()
    return _of_file(str(path), status.st_mtime_ns, status.st_size)


def _system_bundle() -> Path:
    candidates = (
        os.environ.get("SSL_CERT_FILE"),
        ssl.get_default_verify_paths().cafile,
        *_SYSTEM_BUNDLES,
    )
    for candidate in candidates:
        if candidate and os.path.isfile(candidate):
            return Path(candidate)
    return Path(certifi.where())


@lru_cache(maxsize=64)
def _parsed(roots: str) -> TrustAnchors:
    try:
        certificates = x509.load_pem_x509_certificates(roots.encode())
    except UNREADABLE as exc:
        raise InvalidRequest(
            f"the trust anchors cannot be read: {shorten(exc)}",
            remedy="Give the roots of the profile as PEM certificates.",
        ) from exc
    return TrustAnchors(certificates, "the profile's trust anchors")


@lru_cache(maxsize=4)
def _of_file(path: str, _changed: int, _size: int) -> TrustAnchors:
    """Read a bundle leniently: one odd root must not cost all the others."""
    certificates: list[x509.Certificate] = []
    marker = "-----END CERTIFICATE-----"
    for part in Path(path).read_text(encoding="utf-8", errors="replace").split(marker)[:-1]:
        start = part.find("-----BEGIN CERTIFICATE-----")
        if start < 0:
            continue
        try:
            pem = (part[start:] + marker).encode()
            certificates.append(x509.load_pem_x509_certificate(pem))
        except UNREADABLE:
            continue
    return TrustAnchors(certificates, f"the system's trust anchors ({path})")
