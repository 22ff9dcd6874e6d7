"""What CAs without ACME answer with, in one form: chain, names, reasons."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Sequence
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certrail.errors import Rejected, UnexpectedReply
from certrail.log import plain
from certrail.model import UNREADABLE, Chain, Csr, subject_names
from certrail.remote.http_errors import reason_of
from certrail.x509.chain import ordered

_LONGEST_CODE = 100
_LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280 appendix A.1


def chain_of(texts: Iterable[str], label: str, csr: Csr | None = None) -> Chain:
    """Return the certificates in the PEM *texts* as leaf and intermediates, without root.

    The leaf is the one with the key of *csr*; without a CSR, the first.

    Raises:
        UnexpectedReply: they are no certificates, or none has that key.
    """
    try:
        certificates = Chain.from_pem("\n".join(texts)).certificates
        keys = [each.public_key() for each in certificates]
    except (UnexpectedReply, *UNREADABLE) as exc:
        raise UnexpectedReply(f"{label}: {plain(exc)}", connector=label) from exc
    leaf = certificates[0]
    if csr is not None:
        wanted = csr.parsed.public_key()
        found = next(
            (one for one, key in zip(certificates, keys, strict=True) if key == wanted), None
        )
        if found is None:
            raise UnexpectedReply(
                f"{label}: the CA returned a certificate for another key",
                remedy="Do not install it. Retry; if it happens again, report it to the CA.",
                connector=label,
            )
        leaf = found
    return ordered(certificates, leaf)


def must_be_for(chain: Chain, names: Sequence[str], label: str, remedy: str) -> None:
    """Check that the leaf has exactly *names*.

    Raises:
        UnexpectedReply: it has others; *remedy* says what to change.
    """
    present = subject_names(chain.leaf)
    if set(present) != set(names):
        raise UnexpectedReply(
            f"{label}: the certificate is for {plain(', '.join(present)) or 'no name'} instead of "
            f"{', '.join(names)}",
            remedy=remedy,
            connector=label,
        )


def error_code(reply: httpx.Response) -> str:
    """Return the machine's word in an error body, "" if there is none.

    Read are ``{"errors": [{"code": …}]}`` and ``{"error": {"code": …}}``.
    """
    try:
        body = json.loads(reply.content)
    except (ValueError, RecursionError):
        return ""
    first = body.get("error") if isinstance(body, dict) else None
    listed = body.get("errors") if isinstance(body, dict) else None
    if isinstance(listed, list) and listed:
        first = listed[0]
    code = first.get("code") if isinstance(first, dict) else None
    return plain(code)[:_LONGEST_CODE] if isinstance(code, str | int) else ""


def refusal(
    reply: httpx.Response, what: str, label: str, *, remedy: str, secret: str = ""
) -> Rejected:
    """Return the error for a 4xx *reply* to *what*, with the service's own words and code."""
    code = error_code(reply)
    return Rejected(
        f"{label}: {what} answered {reply.status_code}: {reason_of(reply, [secret])}",
        remedy=remedy,
        connector=label,
        code=(code.replace(secret, "<hidden>") if secret else code) or str(reply.status_code),
    )


def key_digest(key: Any) -> str:
    """Return the SHA-256 of a public key, to recognize a certificate or CSR by."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def is_csr_for(pem: str, digest: str) -> bool:
    """Return whether *pem* is a CSR with the key of :func:`key_digest` *digest*."""
    try:
        return key_digest(x509.load_pem_x509_csr(pem.encode()).public_key()) == digest
    except UNREADABLE:
        return False


def dns_names(names: Iterable[str]) -> list[str]:
    """Return those of *names* that are no IP addresses, in their order."""
    return [name for name in names if not is_ip(name)]


def ip_addresses(names: Iterable[str]) -> list[str]:
    """Return those of *names* that are IP addresses, in their order."""
    return [name for name in names if is_ip(name)]


def common_name(names: Iterable[str]) -> str:
    """Return the first DNS name that fits into a common name, "" if there is none."""
    return next((name for name in dns_names(names) if len(name) <= _LONGEST_COMMON_NAME), "")


def is_ip(name: str) -> bool:
    """Return whether *name* is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
