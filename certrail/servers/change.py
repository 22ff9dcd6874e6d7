"""What shall be configured, for servers whose sites have any number of pairs of directives."""

from __future__ import annotations

from dataclasses import dataclass


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
