"""Renewal information (RFC 9773)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from certrail.errors import UnexpectedReply
from certrail.log import plain
from certrail.model import RenewalInfo

SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(days=1)
UNSAID = timedelta(hours=6)
"""Limits of, and stand-in for, the CA's Retry-After (RFC 9773 sections 4.3.2 and 4.3.3)."""


def certificate_id(certificate: x509.Certificate) -> str:
    """Return the certificate's identifier (RFC 9773 section 4.1), "" if it can have none.

    That is the authority's key identifier and the serial number, the latter as
    DER writes it: with a leading zero octet where the first bit is set.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    authority = extension.value.key_identifier
    if not authority:
        return ""
    serial = certificate.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)
    return f"{_base64url(authority)}.{_base64url(octets)}"


def read_renewal_info(data: Mapping[str, Any], retry_after: timedelta | None) -> RenewalInfo:
    """Return the window in a renewalInfo object.

    Raises:
        UnexpectedReply: there is no window, or it ends before it starts; RFC 9773
            section 4.2 says to treat that as no answer.
    """
    window = data.get("suggestedWindow")
    start, end = (
        (_moment(window.get("start")), _moment(window.get("end")))
        if isinstance(window, Mapping)
        else (None, None)
    )
    if start is None or end is None or end <= start:
        raise UnexpectedReply(
            f"the CA suggests a renewal window that is none: {plain(window)[:200]}",
            remedy="Renewal goes by the certificate's lifetime until the CA corrects it.",
        )
    url = data.get("explanationURL")
    return RenewalInfo(
        start=start,
        end=end,
        explanation_url=plain(url) if isinstance(url, str) else "",
        retry_after=min(max(retry_after if retry_after is not None else UNSAID, SHORTEST), LONGEST),
    )


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        # The years 1 and 9999 have no room for every zone.
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
