"""Tokens of an nginx configuration file, each with its place in the bytes.

Every byte of the file belongs to exactly one token, so that joining the
tokens gives the file back, whatever is in it: other encodings, CRLF, a
missing final newline. The rules are those of nginx's own reader
(``ngx_conf_read_token`` in ``src/core/ngx_conf_file.c``), which differ from
what most descriptions say: a ``#`` or ``}`` inside a word is part of it, a
backslash protects any byte, and ``${`` does not open a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from certrail.errors import InvalidRequest


class Kind(StrEnum):
    """What a token is."""

    SPACE = "space"
    COMMENT = "comment"
    WORD = "word"
    END = "end"
    OPEN = "open"
    CLOSE = "close"
    CODE = "code"
    """Lua between the braces of a ``…_by_lua_block``; not nginx's syntax."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token: bytes *start* to *end*; *line* counts from one."""

    kind: Kind
    start: int
    end: int
    line: int
    text: str = ""
    """For a word: its value, without quotes and escapes."""


_TOKEN = re.compile(
    rb"""(?P<space>[ \t\r\n]++)
       | (?P<comment>\#[^\n]*+)
       | (?P<end>;) | (?P<open>\{) | (?P<close>\})
       | (?P<double>"(?:\\.|[^"\\])*+")
       | (?P<single>'(?:\\.|[^'\\])*+')
       | (?P<word>(?:\\.|\$\{*+|[^ \t\r\n;{}"'\\$])(?:\\.|\$\{*+|[^ \t\r\n;{\\$])*+)
    """,
    re.VERBOSE | re.DOTALL,
)
# A closed quote must be followed by one of these; ")" starts the next word (`if ($a = "b")`).
_AFTER_QUOTE = b" \t\r\n;{)"
_ESCAPE = re.compile(rb"\\([\"'\\trn])")
_ESCAPED = {b"t": b"\t", b"r": b"\r", b"n": b"\n"}
_LUA = re.compile(
    rb"""--\[(?P<c>=*)\[.*?\](?P=c)\] | --[^\n]*
       | \[(?P<s>=*)\[.*?\](?P=s)\]
       | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
       | [{}]
    """,
    re.VERBOSE | re.DOTALL,
)


def tokenize(data: bytes, path: str = "<text>") -> Iterator[Token]:
    """Split *data* into tokens that cover it without a gap.

    Raises:
        InvalidRequest: nginx could not read it either (open quote, misplaced sign).
    """
    position, line, directive = 0, 1, ""
    while position < len(data):
        match = _TOKEN.match(data, position)
        if match is None:
            raise _broken(path, line, f"unexpected {data[position : position + 20]!r}")
        group = match.lastgroup or ""
        end = match.end()
        if group in ("double", "single"):
            if end < len(data) and data[end] not in _AFTER_QUOTE:
                raise _broken(path, line, f"unexpected {data[end : end + 1]!r} after a quote")
            token = Token(Kind.WORD, position, end, line, _value(data[position + 1 : end - 1]))
        elif group == "word":
            token = Token(Kind.WORD, position, end, line, _value(data[position:end]))
        else:
            token = Token(Kind(group), position, end, line)
        yield token
        line += data.count(b"\n", position, end)
        position = end
        if token.kind is Kind.WORD:
            directive = directive or token.text
        elif token.kind is Kind.OPEN and directive.endswith("_by_lua_block"):
            end = _end_of_lua(data, position, path, line)
            if end > position:
                yield Token(Kind.CODE, position, end, line)
                line += data.count(b"\n", position, end)
            position, directive = end, ""
        elif token.kind in (Kind.END, Kind.OPEN, Kind.CLOSE):
            directive = ""


def quote(text: str) -> bytes:
    """Return *text* as one word of a configuration file, quoted only where it must be."""
    raw = text.encode(errors="surrogateescape")
    if raw and not re.search(rb"[ \t\r\n;{}\"'\\#$]", raw):
        return raw
    escaped = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + escaped.replace(b"\n", b"\\n").replace(b"\r", b"\\r") + b'"'


def _value(raw: bytes) -> str:
    if b"\\" in raw:
        raw = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), raw)
    return raw.decode(errors="surrogateescape")


def _end_of_lua(data: bytes, position: int, path: str, line: int) -> int:
    """Return where the brace stands that closes the Lua code starting at *position*."""
    depth = 1
    for found in _LUA.finditer(data, position):
        if found[0] == b"{":
            depth += 1
        elif found[0] == b"}":
            depth -= 1
            if not depth:
                return found.start()
    raise _broken(path, line, "the Lua block is not closed")


def _broken(path: str, line: int, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}:{line}: {what}",
        remedy="Run `nginx -t` on the host and correct the configuration; nothing was changed.",
    )
