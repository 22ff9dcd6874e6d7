"""The way from a leaf to a trust anchor, followed far enough to say where it ends.

The verdict is not made here: this only explains one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from certrail.tls.findings import Reason, failure, warning
from certrail.tls.trust import TrustAnchors
from certrail.x509.findings import (
    Finding,
    describe,
    is_issued_by,
    is_self_signed,
    self_signed,
    shorten,
)

_LONGEST = 10
_MOST_CHECKS = 200
_MANY = 10


@dataclass(frozen=True, slots=True)
class Path:
    """Certificates from the leaf upward, each issued by the next.

    Attributes:
        certificates: leaf first; the anchor last, if one was reached.
        anchored: whether the last one is a trust anchor.
    """

    certificates: tuple[x509.Certificate, ...]
    anchored: bool

    @property
    def top(self) -> x509.Certificate:
        """Where it ends."""
        return self.certificates[-1]


def follow(
    leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], anchors: TrustAnchors
) -> Path:
    """Return a way to an anchor, else the longest way there is.

    The number of signatures checked is limited, since the certificates come
    from the other side. Raises what ``cryptography`` raises for unreadable ones.
    """
    checks = _MOST_CHECKS
    best = Path((leaf,), leaf in anchors)
    waiting = [best]
    while waiting and not best.anchored:
        path = waiting.pop()
        if path.anchored or len(path.certificates) > len(best.certificates):
            best = path
        if path.anchored or len(path.certificates) >= _LONGEST:
            continue
        known = anchors.named(path.top.issuer)
        for candidate in (*intermediates, *known):
            if candidate in path.certificates or candidate.subject != path.top.issuer:
                continue
            if checks == 0:
                break
            checks -= 1
            if is_issued_by(path.top, candidate):
                waiting.append(Path((*path.certificates, candidate), candidate in anchors))
    return best


def explain_end(
    path: Path,
    anchors: TrustAnchors,
    *,
    issued: Sequence[x509.Certificate] = (),
) -> Finding | None:
    """Say why *path* does not end at a trust anchor; None if it does.

    A missing intermediate and an unknown CA look the same to a verifier. They
    are told apart by the chain as *issued*, else by how far the path goes.
    """
    if path.anchored:
        return None
    top, issuer = path.top, shorten(path.top.issuer.rfc4514_string())
    if is_self_signed(top):
        if len(path.certificates) == 1:
            return self_signed(top)
        message = f"the chain ends at {describe(top)}, which is not among {anchors.label}"
        return failure(Reason.UNTRUSTED_ROOT, message)
    if any(is_issued_by(top, known) for known in issued if known != top):
        message = f"the intermediate {issuer} is missing: it was issued but is not sent"
        return failure(Reason.CHAIN_INCOMPLETE, message)
    if anchors.named(top.issuer):
        message = f"{describe(top)} names the trusted {issuer} but has no signature of it"
        return failure(Reason.CHAIN_INVALID, message)
    if len(path.certificates) == 1:
        where = _download_of_issuer(top)
        message = f"the issuer {issuer} is neither sent nor among {anchors.label}{where}"
        return failure(Reason.CHAIN_INCOMPLETE, message, remedy=_EITHER)
    message = f"the chain ends below {issuer}, which is not among {anchors.label}"
    return failure(Reason.UNTRUSTED_ROOT, message)


_EITHER = (
    "Configure the full chain: leaf, then every intermediate. If the CA has no intermediate, "
    "add its root to the profile's trust anchors."
)


def order_findings(presented: Sequence[x509.Certificate], path: Path) -> list[Finding]:
    """Return what is untidy about the chain as sent; clients put up with all of it."""
    findings = []
    rest = list(presented[1:])
    if len(presented) > _MANY:
        message = f"{len(presented)} certificates are sent"
        findings.append(warning(Reason.CHAIN_LONG, message))
    roots = [extra for extra in rest if is_self_signed(extra)]
    if roots:
        message = f"the root {describe(roots[0])} is sent too"
        findings.append(warning(Reason.ROOT_INCLUDED, message))
    used = [sent for sent in rest if sent in path.certificates]
    wanted = [known for known in path.certificates if known in rest]
    if list(dict.fromkeys(used)) != wanted:
        findings.append(
            warning(Reason.CHAIN_MISORDERED, "the certificates are not sent in order of issue")
        )
    extra = [sent for sent in rest if sent not in path.certificates and sent not in roots]
    if extra or len(used) != len(set(used)):
        what = describe(extra[0]) if extra else "a certificate twice"
        message = f"the chain as sent holds what it does not need: {what}"
        findings.append(warning(Reason.CHAIN_EXTRA, message))
    return findings


def _download_of_issuer(certificate: x509.Certificate) -> str:
    """Return where the certificate says its issuer is found (RFC 5280 section 4.2.2.1)."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except x509.ExtensionNotFound:
        return ""
    for description in access.value:
        if description.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
            return f" (to be had at {shorten(description.access_location.value)})"
    return ""
