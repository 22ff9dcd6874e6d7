"""Directives of an nginx configuration, with includes followed and byte ranges kept."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers.bulk import read_many
from certrail.servers.nginx.lexer import Kind, Token, tokenize
from certrail.servers.remembered import Remembered

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One configuration file as read.

    Attributes:
        path: as nginx names it, which may be a link.
        data: its bytes.
    """

    path: str
    data: bytes
    directives: tuple[Directive, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Directive:
    """A simple directive (``name argument…;``) or a block (``name argument… { … }``).

    Attributes:
        path: file it stands in.
        words: name and arguments.
        start, end: byte range, the ``;`` or ``}`` included.
        opened: offset after ``{``, 0 for a simple directive.
        closed: offset of ``}``, 0 for a simple directive.
        children: directives of the block, includes not yet followed.
    """

    path: str
    words: tuple[Token, ...]
    start: int
    end: int
    opened: int = 0
    closed: int = 0
    children: tuple[Directive, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The directive's name."""
        return self.words[0].text

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its arguments, without quotes and escapes."""
        return tuple(word.text for word in self.words[1:])

    @property
    def line(self) -> int:
        """Line on which it starts."""
        return self.words[0].line

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.line}"


def parse(data: bytes, path: str = "<text>") -> tuple[Directive, ...]:
    """Return the directives of one file; includes stay as they are.

    Raises:
        InvalidRequest: the braces or semicolons do not fit.
    """
    open_blocks: list[tuple[tuple[Token, ...], int, list[Directive]]] = []
    level: list[Directive] = []
    words: list[Token] = []
    line = 1
    for token in tokenize(data, path):
        line = token.line
        if token.kind is Kind.WORD:
            words.append(token)
        elif token.kind is Kind.END and words:
            level.append(Directive(path, tuple(words), words[0].start, token.end))
            words = []
        elif token.kind is Kind.OPEN and words:
            open_blocks.append((tuple(words), token.end, level))
            level, words = [], []
        elif token.kind is Kind.CLOSE and open_blocks and not words:
            head, opened, parent = open_blocks.pop()
            parent.append(
                Directive(path, head, head[0].start, token.end, opened, token.start, tuple(level))
            )
            level = parent
        elif token.kind in (Kind.END, Kind.OPEN, Kind.CLOSE):
            raise _misplaced(path, line, f"unexpected {data[token.start : token.end].decode()!r}")
    if words or open_blocks:
        raise _misplaced(path, line, "unexpected end of file, expecting ';' or '}'")
    return tuple(level)


_source_file = Remembered(lambda data, path: SourceFile(path, data, parse(data, path)))


class Reader:
    """Reads configuration files of one host, each once, and follows includes.

    *root* is the main configuration file; relative names are relative to its
    directory, as nginx has it (``ngx_conf_full_name``).
    """

    def __init__(self, host: Host, root: str) -> None:
        self._host = host
        self.root = root
        self.conf_prefix = posixpath.dirname(root)
        self.files: dict[str, SourceFile] = {}
        self._included: dict[str, tuple[str, ...]] = {}

    def with_changes(self, changes: Mapping[str, bytes]) -> Reader:
        """Return a reader that sees the same files, except that *changes* were written."""
        reader = Reader(self._host, self.root)
        reader.files = {
            **self.files,
            **{path: _source_file(data, path) for path, data in changes.items()},
        }
        reader._included = self._included
        return reader

    def full_name(self, name: str) -> str:
        """Return *name* as an absolute path."""
        return posixpath.join(self.conf_prefix, name)

    def file(self, path: str) -> SourceFile:
        """Return the file at *path*, read and parsed once.

        Raises:
            NotFound: it does not exist.
            InvalidRequest: it cannot be parsed.
        """
        if path not in self.files:
            self.files[path] = _source_file(self._host.read_file(path), path)
        return self.files[path]

    def main(self) -> Iterator[Directive]:
        """Directives of the outermost level, includes followed."""
        root = self.file(self.root)
        yield from self._expand(root.directives, (self.root,))

    def inside(self, block: Directive, trail: tuple[str, ...] = ()) -> Iterator[Directive]:
        """Directives of *block*, includes followed in place."""
        yield from self._expand(block.children, trail or (block.path,))

    def _expand(
        self, directives: tuple[Directive, ...], trail: tuple[str, ...]
    ) -> Iterator[Directive]:
        for directive in directives:
            if directive.name != "include" or len(directive.words) != 2:
                yield directive
                continue
            for path in self._targets(directive):
                if path in trail:
                    raise InvalidRequest(
                        f"{directive.place} includes {path}, which includes it again",
                        remedy="Remove one of the two includes; nothing was changed.",
                    )
                yield from self._expand(self.file(path).directives, (*trail, path))

    def _targets(self, include: Directive) -> tuple[str, ...]:
        pattern = self.full_name(include.arguments[0])
        if not _GLOB & set(pattern):
            return (pattern,)
        if pattern not in self._included:
            paths = self._included[pattern] = self._host.glob(pattern)
            unread = [path for path in paths if path not in self.files]
            for path, data in read_many(self._host, unread).items():
                self.files[path] = _source_file(data, path)
        return self._included[pattern]


def load(host: Host, root: str) -> Reader:
    """Start reading the configuration at *root*.

    Raises:
        InvalidRequest: there is no such file.
    """
    reader = Reader(host, root)
    try:
        reader.file(root)
    except NotFound as exc:
        raise InvalidRequest(
            f"nginx configuration {root} does not exist on {host.name}",
            remedy="Set `config` of the endpoint's server to the path of nginx.conf.",
        ) from exc
    return reader


def _misplaced(path: str, line: int, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}:{line}: {what}",
        remedy="Run `nginx -t` on the host and correct the configuration; nothing was changed.",
    )
