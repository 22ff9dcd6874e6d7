"""Where to connect: address texts, resolution with a deadline, networks."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from certrail.errors import InvalidRequest
from certrail.log import plain
from certrail.tls.findings import Reason, Stopped, failure

MOST_ADDRESSES = 4096
"""Largest network that a scan expands, in addresses."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host (name or IP address) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port``, with IPv6 addresses in brackets (RFC 3986 section 3.2.2).

        Raises:
            InvalidRequest: no port, or not a port.
        """
        host, separator, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            separator = ""
        if not (separator and host and port.isascii() and port.isdigit()) or not (
            0 < int(port[:6]) < 65536
        ):
            raise InvalidRequest(
                f"not an address: {plain(text)!r}",
                remedy="Write HOST:PORT, and [ADDRESS]:PORT for IPv6.",
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_ip(text: str) -> bool:
    """Return whether *text* is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def resolve(address: Address, *, timeout: float) -> tuple[Address, ...]:
    """Return every A and AAAA address, as the system's resolver orders them.

    *timeout* is in seconds. An IP address returns as it is.

    Raises:
        Stopped: the name has no address, or the resolver did not answer in time.
    """
    if is_ip(address.host):
        return (address,)
    answers: queue.Queue[list[str] | str] = queue.Queue(1)
    # getaddrinfo knows no deadline; a daemon thread can be left behind with it.
    threading.Thread(target=_look_up, args=(address.host, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=max(timeout, 0.001))
    except queue.Empty:
        answer = f"no answer from the resolver within {timeout:g} s"
    if isinstance(answer, str):
        raise Stopped(
            failure(
                Reason.UNREACHABLE,
                f"{plain(address.host)} cannot be resolved: {answer}",
                remedy="Check the name and its A and AAAA records, or set the endpoint's address.",
            )
        )
    return tuple(Address(host, address.port) for host in dict.fromkeys(answer))


def expand(text: str, *, most: int = MOST_ADDRESSES) -> Iterator[Address]:
    """Read ``HOST:PORT`` or ``NETWORK/PREFIX:PORT``; a network gives each of its hosts.

    Raises:
        InvalidRequest: neither of the two, or the network has more than *most* addresses.
    """
    address = Address.parse(text)
    if "/" not in address.host:
        return iter((address,))
    try:
        network = ipaddress.ip_network(address.host, strict=False)
    except ValueError as exc:
        raise InvalidRequest(f"not a network: {plain(address.host)!r} ({exc})") from exc
    if network.num_addresses > most:
        raise InvalidRequest(
            f"{network} has {network.num_addresses} addresses, more than the {most} of one scan",
            remedy="Scan smaller networks one after another, or list the hosts.",
        )
    return (Address(str(host), address.port) for host in network.hosts())


def expand_all(texts: Iterable[str], *, most: int = MOST_ADDRESSES) -> tuple[Address, ...]:
    """Expand several targets; duplicates fall together, the order stays.

    Raises:
        InvalidRequest: as :func:`expand`.
    """
    found = dict.fromkeys(address for text in texts for address in expand(text, most=most))
    if len(found) > most:
        raise InvalidRequest(
            f"{len(found)} addresses are more than the {most} of one scan",
            remedy="Scan fewer targets at a time.",
        )
    return tuple(found)


def _look_up(host: str, answers: queue.Queue[list[str] | str]) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        answers.put(plain(getattr(exc, "strerror", None) or exc))
        return
    answers.put([str(entry[4][0]) for entry in found])
