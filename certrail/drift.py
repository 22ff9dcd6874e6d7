"""Drift: somebody else's certificate is served where ours was installed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drift:
    """What a look at an endpoint says.

    Attributes:
        index: which of the answers stands for the endpoint.
        told: fingerprint of the foreign certificate that people have been told of by
            now, "" if none is served.
        is_new: whether they are to be told now.
    """

    index: int
    told: str = ""
    is_new: bool = False


def judge(served: Sequence[str], *, ours: str, told: str, is_busy: bool) -> Drift:
    """Compare what the addresses of an endpoint serve with what we installed.

    Args:
        served: fingerprint at each address that answered; at least one.
        ours: of the certificate that the endpoint got from us, "" if none.
        told: of the foreign certificate that people were told of last, "" if none.
        is_busy: whether a request is changing the endpoint just now: then it tells nothing.
    """
    foreign = [number for number, one in enumerate(served) if ours and one != ours]
    if not foreign:
        return Drift(0)
    # One machine of several behind a name is enough to be wrong.
    known = next((number for number in foreign if served[number] == told), None)
    if known is not None:
        return Drift(known, told)
    return Drift(foreign[0]) if is_busy else Drift(foreign[0], served[foreign[0]], is_new=True)


def not_looked_at(location: str, addresses: Sequence[str], target: str | None) -> str | None:
    """Return why nobody looks at an endpoint by itself, None if somebody does.

    What a store holds costs calls of its vendor's interface with its credentials, so it is
    read back by requests and not each hour.
    """
    if addresses or "/" not in location:
        return None
    where = target or "its target"
    return (
        f"there is nothing to connect to: what {where} holds is read back and compared at each "
        "request, not in between. Where something serves it, give that one's `address`."
    )
