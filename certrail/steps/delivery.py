"""Certificate delivery: stored whole, then read back and compared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from certrail import log
from certrail.connectors import DeliveryTarget
from certrail.errors import Conflict
from certrail.model import Bundle, Site
from certrail.steps.installation import bundle_for, issued, lock_name
from certrail.steps.outcome import Outcome, Work
from certrail.store.database import locked

OpenDelivery = Callable[[], AbstractContextManager[tuple[DeliveryTarget, Site]]]


def deliver(work: Work, open_target: OpenDelivery) -> Outcome:
    """Store the request's certificate where it is wanted and see that it is there.

    Raises:
        Conflict: something else is there after the delivery.
    """
    certificate = issued(work)
    with open_target() as (target, site), locked(lock_name(work, target)):
        bundle = bundle_for(certificate, target)
        fingerprint = bundle.chain.fingerprint
        with work.journal.effect("deliver", fingerprint, {"site": site.id}) as effect:
            line = stored(target, site, bundle)
            effect.record({"line": line})
            log.effect("deliver", request=work.request.id, site=site.id, what=line)
        found = target.delivered(site)
    if found != fingerprint:
        raise Conflict(
            f"{line}, but {'another certificate' if found else 'nothing'} is there when read back",
            remedy="Look at who else writes there, then retry: no new order is made.",
        )
    return Outcome.completed(f"{line}; read back and compared")


def stored(target: DeliveryTarget, site: Site, bundle: Bundle) -> str:
    """Deliver *bundle*; return one line for people.

    Raises:
        Conflict: somebody else wrote at the same moment, whom a retry would overwrite unseen.
    """
    try:
        return target.deliver(site, bundle)
    except Conflict:
        # A way that repeats calls looks like somebody else: the copy finds what the first wrote.
        if target.delivered(site) != bundle.chain.fingerprint:
            raise
        # For what comes after the storing, or is not seen in the certificate, as its chain.
        return target.deliver(site, bundle)
