"""Addresses of ``<VirtualHost>`` and ``Listen``, in one form for every spelling."""

from __future__ import annotations

import contextlib
import ipaddress

_ANY = ("", "*", "_default_", "0.0.0.0", "[::]")  # noqa: S104 - read, not bound


def address_key(text: str) -> str:
    """Return ``address:port`` for one address of ``<VirtualHost>``; the port is ``*`` for any.

    ``_default_`` and ``*`` are the same to Apache.
    """
    address, port = _parts(text)
    return f"{address}:{port or '*'}"


def port_of(text: str) -> str:
    """Return the port in *text*, "" if it has none."""
    return _parts(text)[1]


def matches(key: str, wanted: str) -> bool:
    """Return whether a virtual host's address is the one that *wanted* means.

    *wanted* is a port, or an address with a port.
    """
    address, port = key.rpartition(":")[::2]
    if wanted.isdigit():
        return port in (wanted, "*")
    return key == address_key(wanted) or (port == "*" and address == _parts(wanted)[0])


def _parts(text: str) -> tuple[str, str]:
    text = text.strip().lower()
    if text.startswith("["):
        host, _, rest = text.partition("]")
        address, port = f"{host}]", rest.removeprefix(":")
    elif text.isdigit():
        address, port = "*", text
    else:
        address, _, port = text.partition(":")
    if address.startswith("["):
        with contextlib.suppress(ValueError):
            address = f"[{ipaddress.IPv6Address(address[1:-1])}]"
    return ("*" if address in _ANY else address), ("" if port == "*" else port)
