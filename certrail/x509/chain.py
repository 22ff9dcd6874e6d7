"""Put a certificate chain in order, and refuse to install what no client would accept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from certrail.errors import InvalidRequest
from certrail.log import plain
from certrail.model import UNREADABLE, Bundle, Chain, subject_names

_CLOCK_SKEW = timedelta(minutes=5)


def ordered(certificates: Iterable[x509.Certificate], leaf: x509.Certificate) -> Chain:
    """Return *leaf* and its issuers from *certificates*, each next to the one it issued.

    A self-signed root at the end is dropped, since clients have it or do not
    trust it; certificates that do not belong to the path are dropped as well.
    """
    path = [leaf]
    pool = [one for one in certificates if one != leaf]
    while not is_self_signed(path[-1]):
        issuer = next((one for one in pool if _issued(one, path[-1])), None)
        if issuer is None:
            break
        pool.remove(issuer)
        path.append(issuer)
    if len(path) > 1 and is_self_signed(path[-1]):
        path.pop()
    return Chain.of(path)


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Return whether *certificate* is signed with its own key; not if it cannot be read."""
    try:
        return certificate.subject == certificate.issuer and _issued(certificate, certificate)
    except UNREADABLE:
        return False


def must_be_installable(bundle: Bundle, *, now: datetime | None = None) -> None:
    """Check what is about to be installed: key and leaf, dates, order of the chain.

    Raises:
        InvalidRequest: it would not serve; says why. Nothing was uploaded.
    """
    if not bundle.chain.pems:
        raise InvalidRequest("the certificate chain is empty")
    bundle.must_match()
    moment = now or datetime.now(UTC)
    certificates = bundle.chain.certificates
    leaf = certificates[0]
    if leaf.not_valid_after_utc <= moment:
        raise _refusal(f"the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if leaf.not_valid_before_utc > moment + _CLOCK_SKEW:
        raise InvalidRequest(
            f"the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
            f"and it is {moment:%Y-%m-%d %H:%M} UTC by the clock of this worker",
            remedy="Nothing was uploaded. Set the clock of the worker's machine or of the CA right "
            "(`timedatectl`), or wait, then retry: no new order is made.",
        )
    if _is_authority(leaf) and not is_self_signed(leaf):
        raise _refusal("the first certificate of the chain is a CA certificate, not the leaf")
    for lower, upper in itertools.pairwise(certificates):
        if not _issued(upper, lower):
            raise _refusal(
                f"the chain is out of order: {describe(upper)} did not issue {describe(lower)}"
            )


def describe(certificate: x509.Certificate) -> str:
    """Return a short text for people: subject or first name."""
    names = subject_names(certificate)
    return plain(certificate.subject.rfc4514_string() or (names[0] if names else "no subject"))


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca


def _refusal(cause: str) -> InvalidRequest:
    return InvalidRequest(cause, remedy="Nothing was uploaded. Start a renewal or a reissue.")
