"""What is served out there now: many addresses, no expectations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from certrail.model import UNREADABLE, Chain, Fingerprint, key_text, serial_text, subject_names
from certrail.tls.addresses import MOST_ADDRESSES, Address, expand_all, is_ip
from certrail.tls.client import Client
from certrail.tls.findings import Reason
from certrail.tls.handshake import Presented, fetch
from certrail.tls.starttls import StartTls, guess_starttls
from certrail.tls.trust import TrustAnchors, load
from certrail.tls.verify import verify_chain
from certrail.x509.findings import Finding, Severity, assess, shorten


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What the inventory keeps of a certificate.

    Attributes:
        fingerprint: SHA-256 of the DER.
        serial: colon-separated hex.
        subject, issuer: RFC 4514 text, made plain.
        names: subject alternative names.
        key: kind of key for people, ``ECDSA P-256``.
        not_before, not_after: aware UTC.
        chain: as served.
    """

    fingerprint: Fingerprint
    serial: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    key: str
    not_before: datetime
    not_after: datetime
    chain: Chain

    def to_json(self) -> dict[str, Any]:
        """Return plain data for reports; the chain is left out."""
        return {
            "fingerprint": self.fingerprint,
            "serial": self.serial,
            "subject": self.subject,
            "issuer": self.issuer,
            "names": list(self.names),
            "key": self.key,
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one address answered.

    Attributes:
        address: ``host:port``.
        starttls: how TLS was begun.
        facts: of the leaf served, None when there was none to see.
        tls_version: ``TLS 1.3``, "" without a handshake.
        findings: on certificate, chain and handshake, failures first.
        public: whether the chain leads to an anchor that this machine trusts.
    """

    address: str
    starttls: StartTls
    facts: CertificateFacts | None = None
    tls_version: str = ""
    findings: tuple[Finding, ...] = ()
    public: bool = False

    @property
    def chain(self) -> Chain | None:
        """What was presented, None where there was nothing to see."""
        return self.facts.chain if self.facts else None

    @property
    def reachable(self) -> bool:
        """Whether anything answered there at all."""
        return all(finding.code is not Reason.UNREACHABLE for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for reports."""
        return {
            "address": self.address,
            "starttls": str(self.starttls),
            "reachable": self.reachable,
            "tls_version": self.tls_version,
            "public": self.public,
            "certificate": self.facts.to_json() if self.facts else None,
            "findings": [finding.to_json() for finding in self.findings],
        }


def scan(
    targets: Iterable[str],
    *,
    concurrency: int = 32,
    timeout: timedelta = timedelta(seconds=3),
    most: int = MOST_ADDRESSES,
    roots: str | None = None,
    starttls: StartTls | None = None,
    now: datetime | None = None,
) -> Iterator[Scanned]:
    """Ask every target, each ``HOST:PORT`` or ``NETWORK/PREFIX:PORT``, what it serves.

    Answers come in the order of the targets; at most *concurrency* are asked
    at once and *most* in all. An address where nothing answers comes back
    like any other, with the finding that says so; nothing is logged.
    *starttls* None guesses by port. *roots* are trusted besides those of this machine.

    Raises:
        InvalidRequest: at once, before anything is asked: a target cannot be
            read, a network or all targets together are too large.
    """
    addresses = expand_all(targets, most=most)
    system = load(None)
    private = load(roots) if roots else None
    moment = now or datetime.now(UTC)

    def ask(address: Address) -> Scanned:
        protocol = guess_starttls(address.port) if starttls is None else starttls
        sni = None if is_ip(address.host) else address.host
        seen = fetch(address, sni=sni, starttls=protocol, timeout=timeout)
        return examine(seen, sni, protocol, system, private, moment)

    return _in_order(addresses, ask, max(1, concurrency))


def examine(
    seen: Presented,
    name: str | None,
    starttls: StartTls,
    system: TrustAnchors,
    private: TrustAnchors | None,
    now: datetime,
) -> Scanned:
    """Return facts and findings of what was presented; pure.

    *name* None leaves the name unchecked, since a scan by address does not know it.
    """
    leaf = seen.leaf
    if leaf is None:
        return Scanned(str(seen.address), starttls, findings=seen.findings)
    rest = seen.certificates[1:]
    by_system = verify_chain(leaf, rest, system, None, now, client=Client.OPENSSL)
    public = all(finding.severity is Severity.WARNING for finding in by_system)
    trusting = system if public or private is None else private
    # A scan looks at whatever is there; what only strict clients refuse is a warning.
    chain = verify_chain(leaf, rest, trusting, name, now, client=Client.OPENSSL)
    found = [*seen.findings, *chain, *assess(leaf, public=public)]
    found.sort(key=lambda finding: finding.severity is not Severity.FAILURE)
    return Scanned(
        str(seen.address),
        starttls,
        _facts(leaf, seen),
        seen.tls_version,
        tuple(dict.fromkeys(found)),
        public,
    )


def _facts(leaf: x509.Certificate, seen: Presented) -> CertificateFacts | None:
    chain, fingerprint = seen.chain, seen.fingerprint
    if chain is None or fingerprint is None:
        return None
    try:
        return CertificateFacts(
            fingerprint=fingerprint,
            serial=serial_text(leaf),
            subject=shorten(leaf.subject.rfc4514_string()),
            issuer=shorten(leaf.issuer.rfc4514_string()),
            names=subject_names(leaf),
            key=key_text(leaf),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            chain=chain,
        )
    except UNREADABLE:
        return None


def _in_order(
    addresses: Iterable[Address], ask: Callable[[Address], Scanned], concurrency: int
) -> Iterator[Scanned]:
    """Yield answers in order while no more than twice *concurrency* wait to be taken."""
    pending: deque[Future[Scanned]] = deque()
    pool = ThreadPoolExecutor(concurrency)
    try:
        for address in addresses:
            pending.append(pool.submit(ask, address))
            if len(pending) >= 2 * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
