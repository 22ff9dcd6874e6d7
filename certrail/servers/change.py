"""What shall be configured, for servers whose sites have any number of pairs of directives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from certrail.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Change:
    """What a site shall have.

    Attributes:
        certificate, key: absolute paths for the two directives.
        key_kind: ``RSA`` or ``ECDSA``; of several pairs, the one of this kind is replaced.
        beside: add a pair of a new kind rather than replace one of another kind.
        enable_tls: give TLS to a site without.
        listen: the address for it, "" for port 443 on the site's addresses.
    """

    certificate: str
    key: str
    key_kind: str
    beside: bool = False
    enable_tls: bool = False
    listen: str = ""


P = TypeVar("P")


def to_replace(
    place: str,
    own: Sequence[P],
    wanted: Change,
    *,
    ours: Sequence[P],
    kind_of: Callable[[P], str],
    place_of: Callable[[P], str],
    keep_one: str,
    write: str,
) -> P | None:
    """Return which of a site's *own* certificates gives way, None to put ours beside them.

    Args:
        place: of the site, for people.
        own: its certificates.
        wanted: what it is to have.
        ours: those of *own* that name our files already.
        kind_of: ``RSA``, ``ECDSA``, or "" where it cannot be told.
        place_of: where one is configured.
        keep_one: what to do where there are several of a kind.
        write: the lines that a person would write.

    Raises:
        InvalidRequest: several could be meant, or none is of the kind.
    """
    chosen = ours or [one for one in own if kind_of(one) == wanted.key_kind]
    if len(chosen) == 1:
        return chosen[0]
    if len(chosen) > 1:
        places = " and ".join(place_of(one) for one in chosen)
        raise InvalidRequest(
            f"{place} has {len(chosen)} {wanted.key_kind} certificates: {places}", remedy=keep_one
        )
    if wanted.beside:
        return None
    if len(own) == 1:
        return own[0]
    raise InvalidRequest(
        f"{place} has {len(own)} certificates and none is {wanted.key_kind}",
        remedy="Set `key_types: add` to add this one beside them, choose another key algorithm, "
        f"or write: {write}",
    )


def must_be_alone(place: str, name: str, users: Sequence[str], what: str, remedy: str) -> None:
    """Check that the setting *name* at *place* counts for one site only.

    Args:
        place: where it stands.
        name: its name.
        users: places of the sites that include its file.
        what: what the server calls a site, in the plural.
        remedy: which lines a person would write.

    Raises:
        InvalidRequest: changing it would change others.
    """
    if len(users) > 1:
        shown = ", ".join(users[:5]) + (", …" if len(users) > 5 else "")
        raise InvalidRequest(
            f"{place}: `{name}` stands in a file that {len(users)} {what} include ({shown}); "
            "changing it would change all of them",
            remedy=remedy,
        )
