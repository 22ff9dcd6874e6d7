"""Revoking a certificate (RFC 8555 section 7.6)."""

from __future__ import annotations

from collections.abc import Callable

from certrail.acme import payload
from certrail.acme.problem import PREFIX
from certrail.errors import ConnectorError
from certrail.log import effect, logger
from certrail.model import Chain, RevocationReason

# RFC 5280 section 5.3.1
_REASONS = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
}


def revoke(
    post: Callable[[bytes], object], chain: Chain, reason: RevocationReason, label: str
) -> None:
    """Revoke the leaf; already revoked is success.

    A CA that takes no reasons (OpenBao) is asked again without one: that it
    is revoked matters more than why.

    Args:
        post: sends what is to be signed to the CA.
        chain: the certificate.
        reason: why.
        label: the connector's name.

    Raises:
        ConnectorError: the CA does not do it.
    """
    try:
        _revoke(post, chain, reason, label)
    except ConnectorError as exc:
        refused = exc.code == f"{PREFIX}badRevocationReason"
        if not refused or reason is RevocationReason.UNSPECIFIED:
            raise
        logger.warning("%s: revoked without the reason %s: %s", label, reason, exc)
        _revoke(post, chain, RevocationReason.UNSPECIFIED, label)


def _revoke(
    post: Callable[[bytes], object], chain: Chain, reason: RevocationReason, label: str
) -> None:
    try:
        post(payload.revoke(chain.leaf, _REASONS[reason]))
    except ConnectorError as exc:
        if exc.code != f"{PREFIX}alreadyRevoked":
            raise
        return
    effect("acme.revoke", ca=label, fingerprint=chain.fingerprint, reason=reason)
