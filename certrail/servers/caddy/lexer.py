"""Words of a Caddyfile and where each stands (caddyserver.com, "Caddyfile Concepts")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from certrail.errors import InvalidRequest

_BLANK = re.compile(rb"(?:[ \t\r\v\f]+|\\\r?\n|(?:(?<=[ \t\r\v\f\n])|(?<![^\n]))#[^\n]*)+")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"|`[^`]*`', re.DOTALL)
_HEREDOC = re.compile(rb"<<([A-Za-z0-9_-]+)\r?\n")
_WORD = re.compile(rb"[^\s]+")


@dataclass(frozen=True, slots=True)
class Word:
    """One word: what it says, where it stands, and whether it is quoted."""

    text: str
    start: int
    end: int
    number: int
    quoted: bool = False

    @property
    def known(self) -> bool:
        """Whether the text is final: no variable or argument of a snippet is in it."""
        return self.quoted or "{" not in self.text

    def is_bracket(self, bracket: str) -> bool:
        """Return whether it opens or closes a block."""
        return not self.quoted and self.text == bracket


def lines(data: bytes, path: str) -> Iterator[list[Word]]:
    """Yield the words of each line; a line may go on behind ``\\`` and inside of quotes.

    Raises:
        InvalidRequest: a quote or here-document without end; says in which line.
    """
    found: list[Word] = []
    at, number = 0, 1
    while at < len(data):
        if data[at : at + 1] == b"\n":
            if found:
                yield found
            found, at, number = [], at + 1, number + 1
            continue
        if blank := _BLANK.match(data, at):
            number += blank[0].count(b"\n")
            at = blank.end()
            continue
        word, end = _word(data, at, number, path)
        found.append(word)
        number += data.count(b"\n", at, end)
        at = end
    if found:
        yield found


def _word(data: bytes, at: int, number: int, path: str) -> tuple[Word, int]:
    first = data[at : at + 1]
    if first in (b'"', b"`"):
        match = _QUOTED.match(data, at)
        if match is None:
            raise _open(path, number)
        inner = match[0][1:-1]
        if first == b'"':
            inner = inner.replace(b'\\"', b'"')
        return Word(_text(inner), at, match.end(), number, quoted=True), match.end()
    if here := _HEREDOC.match(data, at):
        close = re.compile(rb"^[ \t]*" + re.escape(here[1]) + rb"(?=\s|\Z)", re.MULTILINE)
        last = close.search(data, here.end())
        if last is None:
            raise _open(path, number)
        return Word("", at, last.end(), number, quoted=True), last.end()
    match = _WORD.match(data, at)
    assert match is not None
    return Word(_text(match[0]), at, match.end(), number), match.end()


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _open(path: str, number: int) -> InvalidRequest:
    return InvalidRequest(
        f"{path}:{number}: a quote that is not closed",
        remedy="Run `caddy validate` and correct the file; nothing was changed.",
    )
