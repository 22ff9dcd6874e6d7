"""What a client sees at the endpoint of a request."""

from __future__ import annotations

from datetime import timedelta

from certrail.configuration.plan import Plan
from certrail.model import Chain, Fingerprint
from certrail.tls.client import Client
from certrail.tls.findings import Reason
from certrail.tls.probe import ProbeReport, ProbeTarget, probe
from certrail.tls.starttls import StartTls
from certrail.wait import Pending, until

_FIRST_LOOK = timedelta(milliseconds=50)
_SLOWEST_LOOK = timedelta(seconds=2)

# What can pass by itself while a server is reloading.
_PASSING = frozenset(
    {Reason.LEAF_DIFFERS, Reason.UNREACHABLE, Reason.HANDSHAKE_FAILED, Reason.ADDRESSES_DISAGREE}
)


def probe_target(plan: Plan, chain: Chain | None) -> ProbeTarget:
    """Return how to test the endpoint of *plan*, expecting *chain* if one is given."""
    return ProbeTarget(
        host=plan.host,
        port=plan.port,
        addresses=plan.addresses,
        sni=plan.sni or "",
        starttls=StartTls(plan.starttls) if plan.starttls else StartTls.NONE,
        fingerprint=chain.fingerprint if chain else None,
        names=plan.names if chain else (),
        roots=plan.trust_pem,
        client=Client(plan.client) if plan.client else None,
        issued=chain,
    )


def is_reachable(plan: Plan) -> bool:
    """Return whether the endpoint of *plan* has an address that clients connect to."""
    return bool(plan.addresses) or "/" not in plan.location


def settled(plan: Plan, chain: Chain, within: timedelta = timedelta(0)) -> ProbeReport:
    """Probe until every address serves *chain*'s leaf, or the plan's time for it is up.

    *within* is the time that the target takes at the most; the longer of both counts.

    Returns the last report, whatever it says: a reload takes effect some
    moments after the command returned, and what does not pass by itself
    ends the wait at once.
    """
    target = probe_target(plan, chain)
    last: list[ProbeReport] = []

    def look() -> ProbeReport | Pending:
        report = probe(target)
        last[:] = [report]
        waiting = [f for f in report.failures if f.code in _PASSING]
        return Pending() if waiting else report

    class _Late(Exception):
        pass

    try:
        return until(
            look,
            timeout=max(plan.install_timeout, within),
            interval=_FIRST_LOOK,
            slowest=_SLOWEST_LOOK,
            late=_Late,
        )
    except _Late:
        return last[0]


def presented(plan: Plan, fingerprint: Fingerprint) -> Chain | None:
    """Return the chain with that leaf as a client gets it now, None if no address serves it."""
    report = probe(probe_target(plan, None))
    seen = (result.presented for result in report.results)
    return next((one.chain for one in seen if one.fingerprint == fingerprint), None)


def served(plan: Plan) -> Fingerprint | None:
    """Return the leaf served at the first address that answers, None if none does."""
    report = probe(probe_target(plan, None))
    seen = (result.presented.fingerprint for result in report.results)
    return next((fingerprint for fingerprint in seen if fingerprint), None)
