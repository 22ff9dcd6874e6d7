"""The ``listen`` directive: an address in one form, and what is said about it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from certrail.errors import InvalidRequest

DEFAULT = "*:80"
"""What a server block without ``listen`` gets (nginx run as root)."""


@dataclass(frozen=True, slots=True)
class Listen:
    """One listening address.

    Attributes:
        address: ``*``, an IPv4 address, an IPv6 address in brackets, a host
            name, or ``unix:/path``.
        port: 0 for a unix socket.
        tls: ``ssl`` or ``quic`` is set.
        default: ``default_server`` is set.
    """

    address: str
    port: int
    tls: bool = False
    default: bool = False

    @property
    def key(self) -> str:
        """The address and port as one text, the same for every spelling."""
        return f"{self.address}:{self.port}" if self.port else self.address

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return self.address.startswith("[")


def parse_listen(arguments: tuple[str, ...]) -> tuple[Listen, ...]:
    """Read the arguments of one ``listen`` directive; a port range gives several.

    Raises:
        InvalidRequest: not an address nginx would take.
    """
    if not arguments:
        raise InvalidRequest("a listen directive without an address")
    flags = set(arguments[1:])
    tls = bool(flags & {"ssl", "quic"})
    default = bool(flags & {"default_server", "default"})
    return tuple(Listen(address, port, tls, default) for address, port in _addresses(arguments[0]))


def parse_wanted(text: str) -> Listen:
    """Read a ``listen`` setting: ``443``, ``10.0.0.1:443``, ``[::1]:443``, ``*:443``.

    A port alone has the address "" and stands for every address.

    Raises:
        InvalidRequest: not an address.
    """
    if text.isdigit():
        return Listen("", _port(text, text))
    found = _addresses(text)
    if len(found) != 1:
        raise InvalidRequest(f"listen: {text!r} is a range of ports; name one")
    return Listen(*found[0])


def _addresses(text: str) -> list[tuple[str, int]]:
    if text.startswith("unix:"):
        return [(text, 0)]
    if text.isdigit():
        return [("*", _port(text, text))]
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidRequest(f"listen: {text!r} is not an address")
        return [(_ipv6(host[1:], text), port) for port in _ports(rest[1:] or "80", text)]
    host, _, port = text.partition(":")
    if not port and "-" in host and host.replace("-", "").isdigit():
        return [("*", number) for number in _ports(host, text)]
    address = "*" if host == "0.0.0.0" else host.lower()  # noqa: S104 - read, not bound
    return [(address, number) for number in _ports(port or "80", text)]


def _ipv6(text: str, whole: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(text)}]"
    except ValueError as exc:
        raise InvalidRequest(f"listen: {whole!r} is not an address") from exc


def _ports(text: str, whole: str) -> range:
    first, _, last = text.partition("-")
    start = _port(first, whole)
    return range(start, (_port(last, whole) if last else start) + 1)


def _port(text: str, whole: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise InvalidRequest(f"listen: {whole!r} has no port between 1 and 65535")
    return int(text)
