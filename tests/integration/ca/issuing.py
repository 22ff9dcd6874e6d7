"""What tests of single CAs share."""

from __future__ import annotations

from datetime import timedelta

from certrail.connectors import CertificateAuthority
from certrail.keys.generate import generate
from certrail.model import Chain, Csr, KeyAlgorithm, Order, OrderKey, OrderSpec, SubjectSpec
from certrail.wait import Pending, until
from certrail.x509.csr import build_csr

TICK = timedelta(milliseconds=20)


def csr_for(*names: str) -> Csr:
    """Return a CSR for *names* with a new key."""
    return build_csr(SubjectSpec(names), generate(KeyAlgorithm.ECDSA_P256))


def spec(*names: str, key: str = "ref-1", profile: str = "", replaces: str = "") -> OrderSpec:
    """Return a specification with defaults for what a test does not care about."""
    return OrderSpec(OrderKey(key), names, profile=profile, replaces=replaces)


def collect(ca: CertificateAuthority, order: Order) -> Chain:
    """Ask until the chain is there."""

    def ask() -> Chain | Pending:
        found = ca.collect(order)
        return Pending() if isinstance(found, Pending) else found

    return until(
        ask,
        timeout=timedelta(seconds=20),
        interval=TICK,
        slowest=TICK,
        late=lambda: AssertionError("no certificate"),
    )


def issue(ca: CertificateAuthority, *names: str, **more: str) -> Chain:
    """Order, finalize, collect."""
    return collect(ca, ca.finalize(ca.open_order(spec(*names, **more)), csr_for(*names)))
