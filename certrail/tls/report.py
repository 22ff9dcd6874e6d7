"""What is probed, and what the verdict looks like to people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from certrail.model import Chain, Fingerprint, serial_text
from certrail.tls.addresses import is_ip
from certrail.tls.client import Client
from certrail.tls.handshake import Presented
from certrail.tls.starttls import StartTls
from certrail.x509.findings import Finding, Severity

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """What to probe and what is expected there.

    Attributes:
        host: DNS name or IP address that clients connect to.
        port: TCP port.
        addresses: ``host:port`` texts to connect to instead, each of them; empty: every A and
            AAAA address of *host*.
        sni: name sent in the handshake and looked for in the certificate; "" takes *host*
            if it is a DNS name, None sends none.
        starttls: how TLS begins there.
        fingerprint: of the leaf that must be served, None for any.
        names: names that the leaf must cover besides the one connected to.
        roots: trust anchors as PEM text, None for those of this machine.
        client: how strictly the chain is judged; None: like a browser where this machine's
            anchors count, by RFC 5280 where others do.
        issued: the chain as issued; tells a missing intermediate from an unknown CA.
        timeout: for one address, from connecting to the end.
        verify_name: whether the leaf must be for the name connected to; False for endpoints
            reached under a name of no matter to clients.
        verify_trust: whether the chain must lead to a trust anchor; False where clients pin
            the certificate itself, then what is wrong with the chain is only a warning.
    """

    host: str
    port: int = 443
    addresses: tuple[str, ...] = ()
    sni: str | None = ""
    starttls: StartTls = StartTls.NONE
    fingerprint: Fingerprint | None = None
    names: tuple[str, ...] = ()
    roots: str | None = None
    client: Client | None = None
    issued: Chain | None = None
    timeout: timedelta = timedelta(seconds=10)
    verify_name: bool = True
    verify_trust: bool = True

    @property
    def server_name(self) -> str | None:
        """The name sent in the handshake, None for none."""
        if self.sni == "":
            return None if is_ip(self.host) else self.host
        return self.sni


@dataclass(frozen=True, slots=True)
class AddressResult:
    """What was met at one address.

    Attributes:
        address: ``host:port``.
        presented: version, cipher and chain as served.
        findings: all that is wrong or odd, failures first.
        matched: whether the leaf is the expected one; None when none was expected or seen.
        trusted: whether trust was asked for, so that no failure means trusted.
        named: the same for the names.
    """

    address: str
    presented: Presented
    findings: tuple[Finding, ...] = ()
    matched: bool | None = None
    trusted: bool = True
    named: bool = True

    @property
    def ok(self) -> bool:
        """Whether a regular client is content."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings because of which a client refuses."""
        return tuple(f for f in self.findings if f.severity is Severity.FAILURE)

    @property
    def detail(self) -> str:
        """One line for people: what answered, then what is wrong with it."""
        leaf = self.presented.leaf
        if leaf is None:
            return "; ".join(finding.message for finding in self.failures)
        where = f"{self.presented.tls_version or 'TLS'} at {self.address}"
        if self.failures:
            return f"{where}: " + "; ".join(finding.message for finding in self.failures)
        facts = ["leaf matches" if self.matched else f"serial {serial_text(leaf)}"]
        facts += ["chain trusted"] if self.trusted else []
        facts += ["names match"] if self.named else []
        return f"{where}: {', '.join(facts)}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for reports and the store."""
        leaf = self.presented.leaf
        return {
            "address": self.address,
            "ok": self.ok,
            "tls_version": self.presented.tls_version,
            "cipher": self.presented.cipher,
            "fingerprint": self.presented.fingerprint,
            "serial": serial_text(leaf) if leaf else None,
            "not_after": leaf.not_valid_after_utc.isoformat() if leaf else None,
            "chain_length": len(self.presented.certificates),
            "seconds": self.presented.seconds,
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What was met at every address of an endpoint.

    Attributes:
        target: what was asked for.
        results: one for each address, in the order they were found.
        findings: those on the endpoint as a whole.
    """

    target: ProbeTarget
    results: tuple[AddressResult, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every address was met and no client refuses any of them."""
        return bool(self.results) and not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Every failure, those of the endpoint as a whole first, each once."""
        found = [*self.findings, *(f for result in self.results for f in result.findings)]
        return tuple(dict.fromkeys(f for f in found if f.severity is Severity.FAILURE))

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Every warning, each once."""
        found = [*self.findings, *(f for result in self.results for f in result.findings)]
        return tuple(dict.fromkeys(f for f in found if f.severity is Severity.WARNING))

    @property
    def detail(self) -> str:
        """One line for people; with many addresses those that fail come first, then a count."""
        whole = [finding.message for finding in self.findings]
        if len(self.results) < 2:
            return "; ".join([*whole, *(result.detail for result in self.results)])
        failed = [result for result in self.results if not result.ok]
        shown = sorted(self.results, key=lambda result: result.ok)[:_SHOWN]
        head = f"{len(self.results)} addresses"
        head += f", {len(failed)} of them failed" if failed else " all good"
        more = len(self.results) - len(shown)
        rest = [f"and {more} more"] if more else []
        return f"{head}: " + "; ".join([*whole, *(result.detail for result in shown), *rest])

    def to_json(self) -> dict[str, Any]:
        """Return plain data for reports and the store."""
        return {
            "ok": self.ok,
            "host": self.target.host,
            "port": self.target.port,
            "detail": self.detail,
            "findings": [finding.to_json() for finding in self.findings],
            "addresses": [result.to_json() for result in self.results],
        }
