"""Read an HAProxy configuration: its ``bind`` lines and the certificates they name.

Words are read by HAProxy's rules (configuration manual, section 2.2, "Quoting
and escaping"): blanks separate, a backslash escapes one character, single
quotes keep everything as it is, and only inside double quotes a ``$`` begins
an environment variable.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from certrail.errors import InvalidRequest

_SERVING = ("frontend", "listen")
_SECTIONS = re.compile(
    rb"(global|defaults|frontend|listen|backend|peers|resolvers|userlist|cache|mailers|program"
    rb"|ring|http-errors|log-forward|log-profile|fcgi-app|crt-store|traces|acme)\Z"
)
_HEX = re.compile(rb"\\x([0-9A-Fa-f]{2})")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a line: its value, and where it stands in the file."""

    text: str
    start: int
    end: int
    has_variable: bool = False


@dataclass(frozen=True, slots=True)
class CrtUse:
    """One ``crt PATH`` of a ``bind`` line, or what it comes to: lines of a list, files of a folder.

    Attributes:
        word: the path as written, of a folder that of the folder.
        path: absolute path; "" where it cannot be told (a variable, a store).
        kind: ``crt``, ``crt-list`` for a list as the line names it, ``listed`` for what stands
            in one, ``folder`` for what lies in a folder.
        source: the list that a listed one stands in, else "".
        place: ``file:line`` of a listed one, for people.
        filters: the names that a list gives it in place of its own.
    """

    word: Word
    path: str
    kind: str = "crt"
    source: str = ""
    place: str = ""
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Bind:
    """One ``bind`` line of a frontend or listen section.

    Attributes:
        place: ``file:line`` for people.
        section: ``frontend shop``.
        addresses: as written, separated by commas there.
        tls: whether it has ``ssl``.
        crts: its certificates, in their order; the first one is the default.
        conditional: it stands between ``.if`` and ``.endif``.
        end: offset behind its last word.
        base: folder of paths that are not absolute, "" where none is set.
    """

    place: str
    section: str
    addresses: tuple[str, ...]
    tls: bool
    crts: tuple[CrtUse, ...]
    conditional: bool
    end: int
    base: str = ""

    def listens_on(self, wanted: str) -> bool:
        """Return whether *wanted*, an address as written or a port, is one of its addresses."""
        return any(
            wanted == address or (wanted.isdigit() and address.rpartition(":")[2] == wanted)
            for address in self.addresses
        )


def binds(data: bytes, path: str) -> Iterator[Bind]:
    """Yield the ``bind`` lines that serve clients."""
    section, depth, base = "", 0, ""
    for number, start, line in _lines(data):
        words = split(line, start, f"{path}:{number}")
        if not words:
            continue
        first = words[0].text
        if first in (".if", ".endif"):
            depth += 1 if first == ".if" else -1
        elif _SECTIONS.match(first.encode(errors="surrogateescape")):
            section = " ".join(word.text for word in words[:2])
        elif first == "crt-base" and section.startswith("global") and len(words) > 1:
            base = words[1].text
        elif first == "bind" and section.split(" ")[0] in _SERVING and len(words) > 1:
            yield _bind(words, f"{path}:{number}", section, base, conditional=depth > 0)


def split(line: bytes, offset: int, place: str) -> list[Word]:
    """Split one line into words; *offset* is where it begins in the file.

    Raises:
        InvalidRequest: a quote is not closed.
    """
    words: list[Word] = []
    at = 0
    while at < len(line):
        if line[at : at + 1] in b" \t\r":
            at += 1
            continue
        if line[at : at + 1] == b"#":
            break
        begin, value, variable, at = at, *_word(line, at, place)
        text = value.decode("utf-8", "surrogateescape")
        words.append(Word(text, offset + begin, offset + at, variable))
    return words


def _word(line: bytes, at: int, place: str) -> tuple[bytes, bool, int]:
    value, quote, variable = bytearray(), b"", False
    while at < len(line):
        char = line[at : at + 1]
        if not quote and char in b" \t\r#":
            break
        if char == quote:
            quote = b""
        elif not quote and char in b"\"'":
            quote = char
        elif char == b"\\" and quote != b"'" and at + 1 < len(line):
            taken, length = _escape(line, at)
            value += taken
            at += length
            continue
        else:
            variable = variable or (quote == b'"' and char == b"$")
            value += char
        at += 1
    if quote:
        raise InvalidRequest(f"{place}: a {quote.decode()} is not closed")
    return bytes(value), variable, at


def _escape(line: bytes, at: int) -> tuple[bytes, int]:
    if found := _HEX.match(line, at):
        return bytes([int(found[1], 16)]), 4
    char = line[at + 1 : at + 2]
    return _ESCAPED.get(char, char), 2


def _lines(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    start = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        yield number, start, line
        start += len(line) + 1


def _bind(words: list[Word], place: str, section: str, base: str, *, conditional: bool) -> Bind:
    crts: list[CrtUse] = []
    tls = False
    follows = ""
    for word in words[2:]:
        if follows:
            # Only certificates are looked for in `crt-base`, lists are not.
            folder = base if follows == "crt" else ""
            crts.append(CrtUse(word, full_name(word, folder), follows))
        tls = tls or (word.text == "ssl" and not follows)
        follows = word.text if word.text in ("crt", "crt-list") and not follows else ""
    return Bind(
        place,
        section,
        tuple(words[1].text.split(",")),
        tls,
        tuple(crts),
        conditional,
        words[-1].end,
        base,
    )


def full_name(word: Word, base: str) -> str:
    if word.has_variable or word.text.startswith("@"):
        return ""
    path = word.text if word.text.startswith("/") else posixpath.join(base, word.text)
    return posixpath.normpath(path) if path.startswith("/") else ""
