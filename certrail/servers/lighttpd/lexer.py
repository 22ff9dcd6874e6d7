"""Words of a ``lighttpd.conf``, with the bytes where each stands.

https://redmine.lighttpd.net/projects/lighttpd/wiki/Docs_Configuration
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from certrail.errors import InvalidRequest

_TOKEN = re.compile(
    rb"""(?P<blank>(?:[ \t\r\n;]|\#[^\n]*|\\\r?\n)+)
    |(?P<string>"(?:[^"\\]|\\.)*"|'[^']*')
    |(?P<condition>\$[A-Z_]+(?:\[\s*"[^"]*"\s*\])?)
    |(?P<operator>:=|\+=|=>|==|!=|=~|!~|=\^|=\$|[=+,])
    |(?P<bracket>[{}()])
    |(?P<word>[A-Za-z0-9_.*/-]+)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word: its kind (a group of the expression above), bytes, and line."""

    kind: str
    raw: bytes
    start: int
    number: int

    @property
    def end(self) -> int:
        """Where the next byte begins."""
        return self.start + len(self.raw)

    @property
    def text(self) -> str:
        """The word as text."""
        return self.raw.decode(errors="surrogateescape")

    @property
    def value(self) -> str | None:
        """What a string or number says; None where that is not plain."""
        if self.kind == "word":
            return self.text if self.raw.isdigit() else None
        inner = self.raw[1:-1]
        if self.raw[:1] == b'"':
            if b"\\" in inner.replace(b'\\"', b"").replace(b"\\\\", b""):
                # Regular expressions are written so and stay as they are.
                return inner.decode(errors="surrogateescape")
            inner = inner.replace(b'\\"', b'"').replace(b"\\\\", b"\\")
        return inner.decode(errors="surrogateescape")


def tokens(data: bytes, path: str) -> Iterator[Token]:
    """Yield the words of *data*.

    Raises:
        InvalidRequest: a byte that cannot stand there; says in which line.
    """
    at, number = 0, 1
    while at < len(data):
        match = _TOKEN.match(data, at)
        if match is None:
            raise InvalidRequest(
                f"{path}:{number}: not understood: {data[at : at + 20]!r}",
                remedy="Run `lighttpd -tt -f` on the file and correct it; nothing was changed.",
            )
        if match.lastgroup != "blank":
            yield Token(match.lastgroup or "", match[0], at, number)
        number += match[0].count(b"\n")
        at = match.end()
