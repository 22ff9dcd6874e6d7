"""Request bodies, in the message classes of the ``acme`` library."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from acme import messages
from cryptography import x509
from josepy.json_util import field

POST_AS_GET = b""
"""The empty body that makes a POST a fetch (RFC 8555 section 6.3)."""

READY_TO_VALIDATE = b"{}"
"""The answer to a challenge (RFC 8555 section 7.5.1)."""


class NewOrder(messages.NewOrder):
    """``acme``'s new order with the fields it lacks."""

    replaces: str = field("replaces", omitempty=True)
    """Identifier of the certificate replaced (RFC 9773 section 5)."""
    not_after: str = field("notAfter", omitempty=True)
    """Wanted end of the certificate, RFC 3339 (RFC 8555 section 7.4)."""


def new_order(
    names: tuple[str, ...],
    ips: frozenset[str],
    profile: str,
    replaces: str,
    not_after: datetime | None = None,
) -> bytes:
    """Return the body of a newOrder request for *names*, those in *ips* as IP addresses.

    *not_after* is in UTC, None to leave the end to the CA.
    """
    identifiers = [
        messages.Identifier(
            typ=messages.IDENTIFIER_IP if name in ips else messages.IDENTIFIER_FQDN, value=name
        )
        for name in names
    ]
    return as_payload(
        NewOrder(
            identifiers=identifiers,
            profile=profile or None,
            replaces=replaces or None,
            not_after=not_after.strftime("%Y-%m-%dT%H:%M:%SZ") if not_after else None,
        )
    )


def finalize(csr: x509.CertificateSigningRequest) -> bytes:
    """Return the body of a finalize request."""
    return as_payload(messages.CertificateRequest(csr=csr))


def revoke(certificate: x509.Certificate, reason: int) -> bytes:
    """Return the body of a revokeCert request; *reason* as in RFC 5280 section 5.3.1."""
    return as_payload(messages.Revocation(certificate=certificate, reason=reason))


def as_payload(message: Any) -> bytes:
    """Return a message as the bytes that are signed."""
    return json.dumps(message.to_json(), separators=(",", ":")).encode()
