"""Whether a target took a certificate over: seen by a client, or read back where none connects."""

from __future__ import annotations

from certrail.connectors import InstallTarget
from certrail.model import Chain, Fingerprint, Site
from certrail.steps import serving
from certrail.steps.outcome import Work
from certrail.tls.findings import Reason
from certrail.tls.probe import ProbeReport
from certrail.x509.findings import Finding

# The target switched, but clients do not see it: the installation did not work.
_NOT_SWITCHED = frozenset(
    {
        Reason.LEAF_DIFFERS,
        Reason.UNREACHABLE,
        Reason.HANDSHAKE_FAILED,
        Reason.KEY_MISMATCH,
        Reason.NO_CERTIFICATE,
        Reason.WRONG_PROTOCOL,
        Reason.ADDRESSES_DISAGREE,
        Reason.STARTTLS_REFUSED,
    }
)


def amiss(work: Work, target: InstallTarget, site: Site, chain: Chain) -> Finding | None:
    """Return what shows that *chain* is not what *target* serves, None once it is."""
    if is_read_back(work, target):
        return read_back(target, site, chain.fingerprint)
    return not_switched(serving.settled(work.plan, chain, target.traits.settles_within))


def not_switched(report: ProbeReport) -> Finding | None:
    """Return what in *report* says that something else is served, None if nothing does."""
    return next((one for one in report.failures if one.code in _NOT_SWITCHED), None)


def is_read_back(work: Work, target: InstallTarget) -> bool:
    """Return whether the target itself is asked, since there is nothing to connect to.

    Stores serve nothing. Where an address of what serves from them is given, that is asked.
    """
    return not target.traits.serves and not serving.is_reachable(work.plan)


def read_back(target: InstallTarget, site: Site, wanted: Fingerprint) -> Finding | None:
    """Return what is wrong with the certificate that *target* holds for *site*, None if nothing."""
    found = target.serving(site)
    if found == wanted:
        return None
    held = f"{found[:16]}…" if found else "no certificate"
    return Finding(
        Reason.LEAF_DIFFERS,
        f"{site.id} has {held} when read back, not {wanted[:16]}…",
        "Look at who else writes there, then retry: no new order is made.",
    )
