"""Read the main section of an Exim configuration.

"The Exim runtime configuration file" of the Exim specification: macros have
names that begin with a capital letter and are replaced wherever they stand;
``.include``, ``.ifdef``; a backslash at the end continues a line; ``begin``
ends the section.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers.pair import Value

_ASSIGNMENT = re.compile(
    rb"[ \t]*(?P<hide>hide[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*==?[ \t]*"
    rb"(?P<value>.*?)\s*\Z",
    re.DOTALL,
)
_SWITCH = re.compile(rb"[ \t]*\.(ifdef|ifndef|elifdef|elifndef|else|endif)\b[ \t]*([^\s#]*)")
_INCLUDE = re.compile(rb"[ \t]*\.(include|include_if_exists)[ \t]+(.*?)\s*\Z", re.DOTALL)
_BEGIN = re.compile(rb"[ \t]*begin[ \t]")
_DEEPEST = 10


@dataclass(eq=False)
class Configuration:
    """Options and macros; of each name what counts.

    Attributes:
        end: file and offset where the main section ends.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    options: dict[str, Value] = field(default_factory=dict)
    macros: dict[str, Value] = field(default_factory=dict)
    end: tuple[str, int] = ("", 0)

    def source(self, name: str) -> Value | None:
        """Return what says the value of option *name*: the option, or the macro that it is."""
        found = self.options.get(name)
        for _ in range(_DEEPEST):
            if found is None or (inner := self.macros.get(found.text)) is None:
                break
            found = inner
        return found

    def text(self, name: str) -> str:
        """Return the value of option *name*, macros replaced."""
        found = self.options.get(name)
        return self.expanded(found.text) if found is not None else ""

    def expanded(self, text: str, depth: int = 0) -> str:
        """Return *text* with macros replaced."""
        if depth > _DEEPEST:
            return text
        for name, value in self.macros.items():
            if name in text:
                return self.expanded(text.replace(name, value.text), depth + 1)
        return text


def read_configuration(host: Host, paths: Sequence[str], given: Mapping[str, str]) -> Configuration:
    """Read *paths* one after the other as one file; *given* are macros from elsewhere.

    Raises:
        NotFound: one of them, or a file that is included, is not there.
        InvalidRequest: conditions that do not fit together.
    """
    configuration = Configuration()
    configuration.macros = {name: Value("", 0, 0, 0, text) for name, text in given.items()}
    reader = _Reader(host.read_file, configuration)
    for path in paths:
        if not reader.read(path, ()):
            break
    return configuration


class _Reader:
    def __init__(self, read_file: Callable[[str], bytes], configuration: Configuration) -> None:
        self._read_file = read_file
        self._found = configuration
        # For each open condition: whether it holds, and whether a part of it has held already.
        self._conditions: list[tuple[bool, bool]] = []

    def read(self, path: str, trail: tuple[str, ...]) -> bool:
        """Read one file; False once the main section has ended."""
        if path in trail:
            raise InvalidRequest(
                f"{path} includes itself", remedy="Remove one of the two; nothing was changed."
            )
        data = self._found.files[path] = self._read_file(path)
        self._found.end = (path, len(data))
        for start, end, number in logical_lines(data):
            line = data[start:end]
            if switch := _SWITCH.match(line):
                self._switch(switch[1], switch[2], f"{path}:{number}")
            elif not all(holds for holds, _ in self._conditions):
                continue
            elif _BEGIN.match(line):
                self._found.end = (path, start)
                return False
            elif include := _INCLUDE.match(line):
                inner = self._found.expanded(include[2].decode(errors="surrogateescape"))
                wanted = posixpath.join(posixpath.dirname(path), inner)
                try:
                    more = self.read(wanted, (*trail, path))
                except NotFound:
                    if include[1] == b"include":
                        raise
                else:
                    if not more:
                        return False
                self._found.end = (path, len(data))
            elif match := _ASSIGNMENT.match(line):
                self._assign(match, path, start, number)
        return True

    def _assign(self, match: re.Match[bytes], path: str, start: int, number: int) -> None:
        name = match["name"].decode()
        first, last = start + match.start("value"), start + match.end("value")
        text = _joined(match["value"])
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1]
        where = self._found.macros if name[0].isupper() else self._found.options
        # The order of macros is that in which they are replaced, and the last one counts.
        where[name] = Value(path, first, last, number, text)

    def _switch(self, what: bytes, name: bytes, place: str) -> None:
        text = name.decode(errors="replace")
        defined = text in self._found.macros
        if what in (b"ifdef", b"ifndef"):
            holds = defined == (what == b"ifdef")
            self._conditions.append((holds, holds))
            return
        if not self._conditions:
            raise InvalidRequest(
                f"{place}: .{what.decode()} without .ifdef",
                remedy="Run `exim -bV` and correct the file; nothing was changed.",
            )
        _, before = self._conditions.pop()
        if what == b"endif":
            return
        holds = not before and (what == b"else" or defined == (what == b"elifdef"))
        self._conditions.append((holds, before or holds))


def logical_lines(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and number of each line that is not empty and no comment."""
    at, number = 0, 1
    while at < len(data):
        start, first = at, number
        while True:
            newline = data.find(b"\n", at)
            end = newline if newline >= 0 else len(data)
            at, number = end + 1, number + 1
            if not data[start:end].rstrip().endswith(b"\\") or at >= len(data):
                break
        text = data[start:end].lstrip()
        if text and not text.startswith(b"#"):
            yield start, end, first


def _joined(raw: bytes) -> str:
    """Return a value on one line: blanks that begin a continued line do not count."""
    return re.sub(rb"[ \t]*\\[ \t\r]*\n[ \t]*", b"", raw).decode(errors="surrogateescape")
