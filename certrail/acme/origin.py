"""Where a CA may send us: only to the origin that was configured.

Every URL after the directory's comes from the server. Followed blindly, a
hostile or broken directory makes us sign requests to, or fetch from, any
address that this machine can reach.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.log import plain

_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an http or https URL.

        Raises:
            ValueError: it is not such a URL, carries a user name, or contains a
                character that URL parsers disagree about.
        """
        if not all("!" <= character <= "~" and character != "\\" for character in url):
            raise ValueError("it contains characters that a URL cannot have")
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError("it is neither https nor http")
        if not parts.hostname or "@" in parts.netloc:
            raise ValueError("it has no plain host name")
        return cls(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])

    @property
    def is_loopback(self) -> bool:
        """Whether it can only be this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


class Origins:
    """The origins that URLs of one CA may have: the directory's and those allowed beside it."""

    def __init__(self, directory_url: str, allowed: Iterable[str] = ()) -> None:
        """Accept the configured URLs.

        Raises:
            InvalidRequest: one is not a URL, or plain http is used across a network.
        """
        self._allowed = frozenset(_configured(url) for url in (directory_url, *allowed))
        self._names = ", ".join(sorted(str(origin) for origin in self._allowed))

    def check(self, url: object) -> str:
        """Return *url*, which the CA sent, if it may be followed.

        Raises:
            UnexpectedReply: it leads elsewhere or is no URL.
        """
        shown = plain(url)[:200]
        try:
            if not isinstance(url, str):
                raise ValueError("it is not text")  # noqa: TRY004 - same answer as for a bad text
            origin = Origin.of(url)
        except ValueError as exc:
            raise UnexpectedReply(
                f"the CA sent a URL that cannot be used: {shown} ({exc})"
            ) from exc
        if origin not in self._allowed:
            raise UnexpectedReply(
                f"the CA sent a URL that leads elsewhere: {shown} (allowed: {self._names})",
                remedy=f"If {plain(origin)} belongs to the CA, add it to the connector's "
                "allowed_origins; otherwise do not use this directory.",
            )
        return url


def _configured(url: str) -> Origin:
    try:
        origin = Origin.of(url)
    except ValueError as exc:
        raise InvalidRequest(
            f"not a usable URL: {plain(url)} ({exc})",
            remedy="Give the whole address, such as https://ca.example/acme/directory.",
        ) from exc
    if origin.scheme == "http" and not origin.is_loopback:
        raise InvalidRequest(
            f"{plain(url)} is plain http",
            remedy="Use https; plain http is accepted for this machine (127.0.0.1, ::1) only.",
        )
    return origin
