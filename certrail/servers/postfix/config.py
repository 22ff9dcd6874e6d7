"""Read ``main.cf`` and ``master.cf``: https://www.postfix.org/postconf.5.html, master.5.html.

A logical line begins with something other than a blank; lines that begin with
one continue it; empty lines and comments may stand in between. Of two settings
of one name the last counts. In ``master.cf``, ``-o name=value`` and
``-o { name = value }`` set a parameter for one service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_WORD = re.compile(rb"\{[^{}]*\}|[^\s]+")
_LIST = re.compile(rb"[^\s,]+")
_ASSIGNMENT = re.compile(rb"\s*([A-Za-z0-9_-]+)\s*=\s*(.*?)\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it stands in a file: bytes *start* to *end* of *path*."""

    path: str
    start: int
    end: int
    number: int
    raw: bytes

    @property
    def text(self) -> str:
        """The value on one line, without comments in between."""
        lines = [line.strip() for line in self.raw.split(b"\n")]
        kept = [line for line in lines if not line.startswith(b"#")]
        return b" ".join(kept).decode(errors="surrogateescape").strip()

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.number}"

    def parts(self) -> Iterator[Value]:
        """Yield the elements of a list, separated by commas or blanks."""
        offset = 0
        for line in self.raw.splitlines(keepends=True):
            if not line.lstrip().startswith(b"#"):
                for found in _LIST.finditer(line):
                    start = self.start + offset + found.start()
                    yield Value(self.path, start, start + len(found[0]), self.number, found[0])
            offset += len(line)


@dataclass(frozen=True, slots=True)
class Service:
    """One line of ``master.cf``.

    Attributes:
        name: as written in its first column.
        kind: ``inet``, ``unix``, …
        command: the program.
        overrides: parameters set for it alone.
    """

    name: str
    kind: str
    command: str
    place: str
    overrides: dict[str, Value]

    @property
    def is_server(self) -> bool:
        """Whether mail comes in here."""
        return self.kind == "inet" and self.command == "smtpd"

    @property
    def address(self) -> str:
        """``address:port``, ``*`` for any address."""
        host, _, port = self.name.rpartition(":")
        return f"{host or '*'}:{_PORTS.get(port, port)}"

    def is_meant(self, wanted: str) -> bool:
        """Return whether *wanted*, a name, a port, or an address with one, means it."""
        return wanted in (self.name, self.address, self.address.rpartition(":")[2])


def main_settings(data: bytes, path: str) -> dict[str, Value]:
    """Return the settings of ``main.cf`` by name."""
    found = {}
    for start, end, number in _logical_lines(data):
        if match := _ASSIGNMENT.match(data[start:end]):
            first, last = start + match.start(2), start + match.end(2)
            name = match[1].decode()
            found[name] = Value(path, first, last, number, data[first:last])
    return found


def services(data: bytes, path: str) -> list[Service]:
    """Return the services of ``master.cf``."""
    found = []
    for start, end, number in _logical_lines(data):
        words = _words(data, start, end)
        if len(words) < 8:
            continue
        texts = [data[a:b].decode(errors="surrogateescape") for a, b in words]
        overrides = {}
        for option, (first, last) in zip(texts[8:], words[9:], strict=False):
            if option == "-o" and (one := _override(data, path, first, last, number)):
                overrides[one[0]] = one[1]
        found.append(Service(texts[0], texts[1], texts[7], f"{path}:{number}", overrides))
    return found


def _override(
    data: bytes, path: str, start: int, end: int, number: int
) -> tuple[str, Value] | None:
    if data[start : start + 1] == b"{":
        start, end = start + 1, end - 1
    match = _ASSIGNMENT.match(data[start:end])
    if match is None:
        return None
    first, last = start + match.start(2), start + match.end(2)
    return match[1].decode(), Value(path, first, last, number, data[first:last])


def _words(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    words, at = [], start
    for line in data[start:end].splitlines(keepends=True):
        if not line.lstrip().startswith(b"#"):
            words += [(at + one.start(), at + one.end()) for one in _WORD.finditer(line)]
        at += len(line)
    return words


def _logical_lines(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and line number of each logical line."""
    start, end, number, at = -1, -1, 0, 0
    for count, match in enumerate(_LINE.finditer(data), 1):
        line = match[0]
        at = match.start()
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        if line[:1] in b" \t" and start >= 0:
            end = at + len(line)
            continue
        if start >= 0:
            yield start, end, number
        start, end, number = at, at + len(line), count
    if start >= 0:
        yield start, end, number
