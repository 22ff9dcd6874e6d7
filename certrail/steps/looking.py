"""Looking at what the endpoints of the inventory serve, without changing anything there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from certrail.errors import CertrailError
from certrail.log import logger
from certrail.store import observed
from certrail.store.observed import Place
from certrail.tls.addresses import Address, is_ip
from certrail.tls.handshake import fetch
from certrail.tls.scan import Scanned, examine
from certrail.tls.starttls import StartTls, guess_starttls
from certrail.tls.trust import load
from certrail.wait import Clock

_TIMEOUT = timedelta(seconds=5)


@dataclass(slots=True)
class Looked:
    """What a round found.

    Attributes:
        answered: endpoints that presented a certificate.
        silent: those that did not.
        drifted: locations that serve another certificate than ours, and did not before.
        left: endpoints that there was no time for.
    """

    answered: int = 0
    silent: int = 0
    left: int = 0
    drifted: tuple[str, ...] = ()


def look_around(
    *,
    most: int,
    within: timedelta,
    clock: Clock,
    at_once: int = 16,
    executor: str | None = None,
) -> Looked:
    """Look at the endpoints of the inventory that can be reached from here, and keep what is seen.

    Args:
        executor: the agent or sensor that looks, at those which it alone reaches; None
            for those which any machine reaches.
        most: how many are looked at; of more, each round takes others.
        within: after this time no more of them are begun.
        clock: measures it.
        at_once: how many are asked at the same time.
    """
    deadline = clock.monotonic() + within.total_seconds()
    done = Looked()

    def one(place: Place) -> tuple[Place, bool | None, bool]:
        if clock.monotonic() > deadline:
            return place, None, False
        try:
            answers = list(look_at(place, None, _TIMEOUT))
            is_new = keep(place, answers)
        except CertrailError as exc:
            logger.warning("%s was not looked at: %s", place.location, exc)
            return place, False, False
        return place, any(seen.chain is not None for seen in answers), is_new

    with ThreadPoolExecutor(at_once) as pool:
        for place, answered, is_new in pool.map(one, observed.known(most, executor)):
            if answered is None:
                done.left += 1
            elif answered:
                done.answered += 1
            else:
                done.silent += 1
            if is_new:
                done.drifted += (place.location,)
    return done


def look_at(place: Place, protocol: StartTls | None, timeout: timedelta) -> Iterator[Scanned]:
    """Yield what each address of an endpoint answers, reached the way it is configured.

    Raises:
        InvalidRequest: an address cannot be read.
    """
    system = load(None)
    own = load(place.trust_pem) if place.trust_pem else None
    for text in place.addresses or (place.location,):
        address = Address.parse(text)
        host = Address.parse(place.location).host if ":" in place.location else address.host
        sni = place.sni or (None if is_ip(host) else host)
        how = protocol or (
            StartTls(place.starttls) if place.starttls else guess_starttls(address.port)
        )
        seen = fetch(address, sni=sni, starttls=how, timeout=timeout)
        yield examine(seen, sni, how, system, own, datetime.now(UTC))


def keep(place: Place, answers: Sequence[Scanned]) -> bool:
    """Keep what was seen; see :func:`certrail.store.observed.keep_for`."""
    return observed.keep_for(place, [(seen.to_json(), seen.chain) for seen in answers])
