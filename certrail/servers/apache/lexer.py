"""Split an Apache configuration into lines and words without losing a byte.

Rules: https://httpd.apache.org/docs/2.4/configuring.html#syntax and
``ap_cfg_getline``, ``ap_getword_conf`` of the server. A backslash at the end
of a line continues it, in comments too; words are separated by blanks and may
be in single or double quotes, inside which a backslash escapes the quote and
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_LINE = re.compile(rb"(?:[^\n\\]|\\(?!\r?\n)|\\\r?\n)*(?:\n|\Z)")
_CONTINUED = re.compile(rb"\\\r?\n")
_BLANK = b" \t\r\n\v\f"


class Kind(StrEnum):
    """What a line is."""

    DIRECTIVE = "directive"
    OPEN = "open"
    CLOSE = "close"
    OTHER = "other"
    """Blank, or a comment."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word: its value without quotes, and the bytes it covers with them."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: bytes *start* to *end* with its end of line; *number* counts from one.

    For a section, the first word is its name without the angle bracket.
    """

    kind: Kind
    start: int
    end: int
    number: int
    words: tuple[Word, ...] = ()

    @property
    def name(self) -> str:
        """The directive's or section's name in lower case; names know no case."""
        return self.words[0].text.lower() if self.words else ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words behind the name."""
        return tuple(word.text for word in self.words[1:])


def lines(data: bytes) -> Iterator[Line]:
    """Yield the logical lines of *data*; together they cover it without a gap."""
    position, number = 0, 1
    while position < len(data):
        match = _LINE.match(data, position)
        end = match.end() if match and match.end() > position else len(data)
        yield _line(data, position, end, number)
        number += data.count(b"\n", position, end)
        position = end


def quote(text: str) -> bytes:
    """Return *text* as one word, quoted only where it must be."""
    raw = text.encode(errors="surrogateescape")
    if raw and not re.search(rb"[\s\"'\\]", raw):
        return raw
    return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _line(data: bytes, start: int, end: int, number: int) -> Line:
    at = _skip(data, start, end)
    if at >= end or data[at : at + 1] == b"#":
        return Line(Kind.OTHER, start, end, number)
    stop = end
    kind = Kind.DIRECTIVE
    if data[at : at + 1] == b"<":
        kind = Kind.CLOSE if data[at + 1 : at + 2] == b"/" else Kind.OPEN
        at += 2 if kind is Kind.CLOSE else 1
        closing = data.rfind(b">", at, end)
        stop = closing if closing >= 0 else end
    words = []
    while (at := _skip(data, at, stop)) < stop:
        word = _word(data, at, stop)
        words.append(word)
        at = word.end
    return Line(kind if words else Kind.OTHER, start, end, number, tuple(words))


def _skip(data: bytes, at: int, end: int) -> int:
    """Return where the next word begins: behind blanks and continued line ends."""
    while at < end:
        if data[at] in _BLANK:
            at += 1
        elif continued := _CONTINUED.match(data, at, end):
            at = continued.end()
        else:
            break
    return at


def _word(data: bytes, at: int, end: int) -> Word:
    start, value = at, bytearray()
    quote_sign = data[at : at + 1] if data[at : at + 1] in (b'"', b"'") else b""
    at += len(quote_sign)
    while at < end:
        char = data[at : at + 1]
        if continued := _CONTINUED.match(data, at, end):
            at = continued.end()
            continue
        if quote_sign and char == b"\\" and data[at + 1 : at + 2] in (quote_sign, b"\\"):
            value += data[at + 1 : at + 2]
            at += 2
            continue
        if char == quote_sign:
            at += 1
            break
        if not quote_sign and char in (b" ", b"\t", b"\r", b"\n", b"\v", b"\f"):
            break
        value += char
        at += 1
    return Word(value.decode(errors="surrogateescape"), start, at)
