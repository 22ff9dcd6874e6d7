"""Names that a certificate can carry: DNS names and IP addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

import idna

from certrail.errors import InvalidRequest

_MAX_NAME = 253
_MAX_LABEL = 63
_LABEL_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A DNS name (lower case, A-labels, no trailing dot) or an IP address (canonical text).

    Build one with :meth:`parse`; a ``Name`` is known to be good.
    """

    text: str
    is_ip: bool = False

    @classmethod
    def parse(cls, raw: str) -> Name:
        """Accept what people type; refuse what no CA would sign.

        Internationalised names become A-labels by UTS 46 (RFC 5891). IP
        addresses take their canonical form (RFC 5952).

        Raises:
            InvalidRequest: neither a DNS name nor an IP address.
        """
        text = raw.strip()
        try:
            return cls(str(ipaddress.ip_address(text.strip("[]"))), is_ip=True)
        except ValueError:
            pass
        return cls(_dns_name(text, raw))

    @property
    def is_wildcard(self) -> bool:
        """Whether the leftmost label is ``*`` (RFC 6125)."""
        return self.text.startswith("*.")

    @property
    def base(self) -> str:
        """The name without a leading ``*.``."""
        return self.text.removeprefix("*.")

    @property
    def challenge_name(self) -> str:
        """Where dns-01 looks: the base domain, even for a wildcard (RFC 8555 section 8.4)."""
        return "_acme-challenge." + self.base

    def __str__(self) -> str:
        return self.text


def parse_names(raw: Iterable[str]) -> tuple[Name, ...]:
    """Parse several names; duplicates fall together, the given order stays.

    Raises:
        InvalidRequest: one of them is not a name, or there is none.
    """
    names = tuple(dict.fromkeys(Name.parse(text) for text in raw))
    if not names:
        raise InvalidRequest("no names given", remedy="List at least one DNS name or IP address.")
    return names


def matches(pattern: str, name: str) -> bool:
    """Return whether a certificate name covers *name* (RFC 6125: one label for ``*``)."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    if pattern.startswith("*."):
        _, _, parent = name.partition(".")
        return bool(parent) and parent == pattern[2:]
    return pattern == name


def _dns_name(text: str, raw: str) -> str:
    stripped = text.rstrip(".").lower()
    wildcard = stripped.startswith("*.")
    base = stripped.removeprefix("*.")
    if not base.isascii():
        try:
            base = idna.encode(base, uts46=True).decode("ascii")
        except idna.IDNAError as exc:
            raise InvalidRequest(f"not a DNS name: {raw!r} ({exc})") from exc
    labels = base.split(".")
    full = f"*.{base}" if wildcard else base
    if not base or len(full) > _MAX_NAME:
        raise InvalidRequest(f"not a DNS name: {raw!r}")
    for label in labels:
        if (
            not label
            or len(label) > _MAX_LABEL
            or not set(label) <= _LABEL_CHARACTERS
            or label.startswith("-")
            or label.endswith("-")
        ):
            raise InvalidRequest(f"not a DNS name: {raw!r} (label {label!r})")
    # A last label of digits only would be read as an IPv4 address (RFC 3696 section 2).
    if labels[-1].isdigit():
        raise InvalidRequest(f"not a DNS name: {raw!r} (the last label is a number)")
    return full
