"""Testing installation: what a regular TLS client meets at every address of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from cryptography import x509

from certrail.model import UNREADABLE, serial_text
from certrail.tls.addresses import Address, resolve
from certrail.tls.client import Client
from certrail.tls.findings import Reason, Stopped, failure, warning
from certrail.tls.handshake import Presented, fetch
from certrail.tls.report import AddressResult, ProbeReport, ProbeTarget
from certrail.tls.trust import TrustAnchors, load
from certrail.tls.verify import covers, verify_chain
from certrail.x509.findings import (
    Finding,
    Severity,
    ca_as_leaf,
    extension,
    shorten,
)

__all__ = ["AddressResult", "ProbeReport", "ProbeTarget", "fetch", "judge", "probe"]

_AT_ONCE = 16
_SHOWN = 3


def probe(target: ProbeTarget, *, now: datetime | None = None) -> ProbeReport:
    """Shake hands with every address of *target* and judge what each serves at *now*.

    Whatever the other side does ends as a finding. *now* is an aware
    datetime, the present by default.

    Raises:
        InvalidRequest: the target's roots or addresses cannot be read.
    """
    anchors = load(target.roots)
    moment = now or datetime.now(UTC)
    explicit = [Address.parse(text) for text in target.addresses]
    addresses: list[Address] = []
    missing: list[Finding] = []
    for address in explicit or [Address(target.host, target.port)]:
        try:
            addresses += resolve(address, timeout=target.timeout.total_seconds())
        except Stopped as stop:
            missing.append(stop.finding)
    addresses = list(dict.fromkeys(addresses))

    def ask(address: Address) -> AddressResult:
        seen = fetch(
            address, sni=target.server_name, starttls=target.starttls, timeout=target.timeout
        )
        return judge(target, seen, anchors, moment)

    if len(addresses) > 1:
        with ThreadPoolExecutor(min(_AT_ONCE, len(addresses))) as pool:
            results = tuple(pool.map(ask, addresses))
    else:
        results = tuple(ask(address) for address in addresses)
    return ProbeReport(target, results, (*missing, *_disagreement(target, results)))


def judge(
    target: ProbeTarget, seen: Presented, anchors: TrustAnchors, now: datetime
) -> AddressResult:
    """Return the verdict on what one address presented; pure."""
    leaf = seen.leaf
    if leaf is None:
        return AddressResult(str(seen.address), seen, seen.findings)
    wanted = target.fingerprint
    matched = None if wanted is None else seen.fingerprint == wanted
    found = [*seen.findings]
    if matched is False:
        found.append(_leaf_differs(seen, leaf))
    try:
        found += _chain_findings(target, seen, leaf, anchors, now)
        found += _leaf_findings(target, seen, leaf)
    except UNREADABLE as exc:
        found.append(warning(Reason.STRICT_PROFILE, f"parts cannot be read: {shorten(exc)}"))
    found.sort(key=lambda finding: finding.severity is not Severity.FAILURE)
    return AddressResult(
        str(seen.address),
        seen,
        tuple(dict.fromkeys(found)),
        matched,
        trusted=target.verify_trust,
        named=target.verify_name or bool(target.names),
    )


def _chain_findings(
    target: ProbeTarget,
    seen: Presented,
    leaf: x509.Certificate,
    anchors: TrustAnchors,
    now: datetime,
) -> list[Finding]:
    findings = verify_chain(
        leaf,
        seen.certificates[1:],
        anchors,
        (target.server_name or target.host) if target.verify_name else None,
        now,
        issued=target.issued.certificates if target.issued else (),
        client=target.client or (Client.WEB_PKI if target.roots is None else Client.RFC5280),
    )
    if target.verify_trust:
        return findings
    kept = (Reason.NAME_MISMATCH, Reason.EXPIRED, Reason.NOT_YET_VALID)
    return [f if f.code in kept else replace(f, severity=Severity.WARNING) for f in findings]


def _leaf_findings(target: ProbeTarget, seen: Presented, leaf: x509.Certificate) -> list[Finding]:
    found = [finding] if (finding := ca_as_leaf(leaf)) else []
    missing = [name for name in target.names if not covers(leaf, name)]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        names = shorten(", ".join(missing[:_SHOWN]))
        message = f"the certificate served lacks names that are expected: {names}{more}"
        found.append(failure(Reason.NAME_MISMATCH, message))
    features = extension(leaf, x509.TLSFeature)
    if features and x509.TLSFeatureType.status_request in features and not seen.stapled:
        message = "the certificate demands OCSP stapling, but no response is stapled"
        found.append(warning(Reason.MUST_STAPLE, message))
    return found


def _leaf_differs(seen: Presented, leaf: x509.Certificate) -> Finding:
    message = (
        f"another certificate is served: serial {serial_text(leaf)}, valid until "
        f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    )
    return failure(Reason.LEAF_DIFFERS, message)


def _disagreement(target: ProbeTarget, results: Sequence[AddressResult]) -> tuple[Finding, ...]:
    """Tell apart the addresses of one name that serve different certificates."""
    served: dict[str, list[str]] = {}
    for result in results:
        if result.presented.fingerprint:
            served.setdefault(result.presented.fingerprint, []).append(result.address)
    if len(served) < 2:
        return ()
    examples = " and ".join(group[0] for group in list(served.values())[:_SHOWN])
    message = f"{len(served)} different certificates are served, for example at {examples}"
    # With an expected leaf the addresses that differ have their own failure.
    make = failure if target.fingerprint is None else warning
    return (make(Reason.ADDRESSES_DISAGREE, message),)
