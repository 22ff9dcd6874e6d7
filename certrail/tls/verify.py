"""Would a regular TLS client accept this chain? Pure: no network, no clock.

The verdict is that of ``cryptography.x509.verification``. It holds CAs to
more rules than most clients do; for a private CA that breaks them, the client
"openssl" can be chosen (:mod:`certrail.tls.client`): where the verifier refuses
for a reason that has no other explanation, OpenSSL is asked for a second
opinion, and a chain that OpenSSL accepts gets a warning instead of a failure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, VerificationError
from OpenSSL import crypto

from certrail.model import UNREADABLE, subject_names
from certrail.names import matches
from certrail.tls.addresses import is_ip
from certrail.tls.client import Client, is_beyond_rfc5280, serial_findings, web_pki_findings
from certrail.tls.constraints import respected
from certrail.tls.findings import Reason, failure, warning
from certrail.tls.path import Path, explain_end, follow, order_findings
from certrail.tls.trust import TrustAnchors
from certrail.x509.findings import (
    Finding,
    Severity,
    describe,
    extension,
    shorten,
    unreadable,
    weak_key,
    weak_signature,
    wrong_usage,
)


def verify_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: TrustAnchors,
    peer_name: str | None,
    time: datetime,
    *,
    issued: Sequence[x509.Certificate] = (),
    client: Client = Client.RFC5280,
    max_depth: int | None = None,
) -> list[Finding]:
    """Return what a client that wants *peer_name* finds wrong at *time*, failures first.

    Args:
        intermediates: the rest of the chain as presented, in the order sent.
        peer_name: DNS name or IP address; None leaves the name unchecked.
        issued: certificates of the chain as the CA issued it, if known.
        client: how strictly it judges.
        max_depth: how many intermediates it puts up with; None for its own limit.
    """
    try:
        judged = _Judged(leaf, tuple(intermediates), roots, client, max_depth)
        findings = _verify(judged, peer_name, time, issued)
    except UNREADABLE as exc:
        findings = [unreadable(exc)]
    return sorted(findings, key=lambda finding: finding.severity is not Severity.FAILURE)


def covers(leaf: x509.Certificate, name: str) -> bool:
    """Return whether *leaf* is for *name*: only its subject alternative names count (RFC 9525)."""
    listed = extension(leaf, x509.SubjectAlternativeName)
    if listed is None:
        return False
    if is_ip(name):
        return ipaddress.ip_address(name) in listed.get_values_for_type(x509.IPAddress)
    return any(matches(pattern, name) for pattern in listed.get_values_for_type(x509.DNSName))


@dataclass(frozen=True, slots=True)
class _Judged:
    """A chain, who judges it and whom that client trusts."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    roots: TrustAnchors
    client: Client
    max_depth: int | None


def _verify(
    judged: _Judged,
    peer_name: str | None,
    time: datetime,
    issued: Sequence[x509.Certificate],
) -> list[Finding]:
    leaf, intermediates, roots = judged.leaf, judged.intermediates, judged.roots
    time = time.replace(microsecond=0)  # certificates know no parts of a second
    named = peer_name is None or covers(leaf, peer_name)
    findings = [] if named else [_name_mismatch(leaf, peer_name or "")]
    findings += _time_findings(leaf, time)
    # The chain is judged apart from name and date of the leaf, so that one
    # report tells all that is wrong.
    subject = peer_name if named and peer_name is not None else _own_name(leaf)
    moment = min(max(time, leaf.not_valid_before_utc), leaf.not_valid_after_utc)
    path = follow(leaf, intermediates, roots)
    refusal = _refusal(judged, subject, moment)
    if refusal:
        reasons = _explanations(path, roots, time, issued)
        if not reasons:
            reasons = [_unexplained(judged, path, moment, refusal)]
        findings += reasons
    elif weak := weak_key(leaf):
        findings.append(weak)  # the verifier looks at the keys of issuers only
    if judged.client is not Client.OPENSSL:
        findings += serial_findings(path.certificates)
    if judged.client is Client.WEB_PKI:
        findings += web_pki_findings(leaf, path.top if path.anchored else None)
    return findings + order_findings([leaf, *intermediates], path)


def _refusal(judged: _Judged, subject: str | None, time: datetime) -> str:
    """Return why ``cryptography`` refuses the chain, "" if it does not."""
    roots = judged.roots
    if roots.store is None:
        return "no trust anchors"
    if subject is None:
        return _NO_NAME
    try:
        peer = (
            x509.IPAddress(ipaddress.ip_address(subject))
            if is_ip(subject)
            else x509.DNSName(subject)
        )
        policy = PolicyBuilder().store(roots.store).time(time)
        if judged.max_depth is not None:
            policy = policy.max_chain_depth(judged.max_depth)
        policy.build_server_verifier(peer).verify(judged.leaf, list(judged.intermediates))
    except (VerificationError, *UNREADABLE) as exc:
        return shorten(exc, 300) or "refused"
    return ""


def _explanations(
    path: Path, roots: TrustAnchors, time: datetime, issued: Sequence[x509.Certificate]
) -> list[Finding]:
    """Return the known reasons why a chain is refused; the leaf's own dates are not among them."""
    end = explain_end(path, roots, issued=issued)
    findings = [end] if end else []
    for position, certificate in enumerate(path.certificates):
        anchor = path.anchored and certificate is path.top
        if position and not anchor:
            findings += _time_findings(certificate, time)
        elif anchor and position and certificate.not_valid_after_utc < time:
            message = f"the trusted root {describe(certificate)} expired on " + _day(
                certificate.not_valid_after_utc
            )
            findings.append(failure(Reason.EXPIRED_ROOT, message))
        checks = (weak_key,) if anchor else (weak_key, weak_signature, wrong_usage)
        findings += [found for check in checks if (found := check(certificate))]
    return findings


def _unexplained(judged: _Judged, path: Path, time: datetime, refusal: str) -> Finding:
    """Say why a chain is refused without a known reason.

    Where the client is OpenSSL, or the verifier asks for more than RFC 5280,
    OpenSSL is asked, and what it accepts is accepted.
    """
    # A pinned certificate is its own anchor, and one without names was never looked at.
    unjudged = judged.leaf in judged.roots or refusal == _NO_NAME
    beyond = judged.max_depth is None and (unjudged or is_beyond_rfc5280(refusal))
    asked = judged.client is Client.OPENSSL or (judged.client is Client.RFC5280 and beyond)
    if not asked:
        message = f"the chain is refused: {refusal}"
        return failure(Reason.CHAIN_INVALID, message, remedy=_STRICT_REMEDY)
    words = _openssl_refusal(judged.leaf, judged.intermediates, judged.roots, time)
    if words:
        return failure(Reason.CHAIN_INVALID, f"the chain is refused: {words} ({refusal})")
    # Clients differ in how they apply name constraints, and some did it wrongly
    # (CVE-2025-61727): names beyond them are never forgiven.
    if not respected(path.certificates[0], path.certificates[1:]):
        message = f"the chain is refused by its CA's name constraints: {refusal}"
        return failure(Reason.CHAIN_INVALID, message)
    message = f"accepted by OpenSSL, but a strict client refuses it: {refusal}"
    return warning(Reason.STRICT_PROFILE, message)


_NO_NAME = "the certificate has no subject alternative name to verify"
_STRICT_REMEDY = (
    "Have the certificate issued anew, or correct the CA that issued it. If it is a private CA "
    "that cannot be corrected and its clients are known to accept this, set `client: openssl` in "
    "the profile."
)


def _openssl_refusal(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: TrustAnchors,
    time: datetime,
) -> str:
    """Return why OpenSSL refuses the chain, "" if it does not."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(time)
    issuers = {known.issuer for known in (leaf, *intermediates)}
    for root in roots.certificates:
        if root.subject in issuers or root == leaf:
            store.add_cert(crypto.X509.from_cryptography(root))
    chain = [crypto.X509.from_cryptography(known) for known in intermediates]
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), chain)
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as exc:
        return shorten(exc) or "refused"
    return ""


def _name_mismatch(leaf: x509.Certificate, name: str) -> Finding:
    names = subject_names(leaf)
    if not names:
        served = "it has no subject alternative name"
    else:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        served = f"it is for {shorten(', '.join(names[:3]))}{more}"
    return failure(Reason.NAME_MISMATCH, f"the certificate is not for {shorten(name)}: {served}")


def _time_findings(certificate: x509.Certificate, time: datetime) -> list[Finding]:
    if certificate.not_valid_after_utc < time:
        message = f"{describe(certificate)} expired on {_day(certificate.not_valid_after_utc)}"
        return [failure(Reason.EXPIRED, message)]
    if certificate.not_valid_before_utc > time:
        message = (
            f"{describe(certificate)} is not valid before "
            f"{_day(certificate.not_valid_before_utc)}; it is {_day(time)} here, so one of the "
            "clocks may be wrong"
        )
        return [failure(Reason.NOT_YET_VALID, message)]
    return []


def _own_name(leaf: x509.Certificate) -> str | None:
    """Return some name the leaf is for, to judge its chain by."""
    for name in subject_names(leaf):
        return f"x{name[1:]}" if name.startswith("*.") else name
    return None


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
