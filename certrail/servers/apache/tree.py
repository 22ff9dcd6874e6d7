"""Read an Apache configuration as the server does: includes, variables, conditional sections.

What decides at run time is followed as far as the files say it: ``Define``,
``LoadModule``, ``IfModule``, ``IfDefine``, ``IfFile``, ``IfVersion``; the
environment comes from Debian's ``envvars``. What cannot be decided is kept and
marked, so that it is not edited.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers.apache.lexer import Kind, Line, Word, lines
from certrail.servers.bulk import read_many
from certrail.servers.remembered import Remembered

_VARIABLE = re.compile(r"\$\{([^}:]+)\}")
_GLOB = set("*?[")
_CONDITIONS = frozenset({"ifmodule", "ifdefine", "ifversion", "iffile", "ifdirective", "ifsection"})
_PHP = re.compile(r"libphp(\d*)\.so\Z")


_lines_of = Remembered(lambda data, _: tuple(lines(data)))


@dataclass(frozen=True, slots=True, eq=False)
class Directive:
    """A directive or the opening line of a section, where it stands and what it says.

    Attributes:
        arguments: with variables replaced.
        uncertain: whether it applies depends on something that cannot be told from here.
    """

    path: str
    line: Line
    arguments: tuple[str, ...]
    uncertain: bool = False

    @property
    def name(self) -> str:
        """Its name in lower case."""
        return self.line.name

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.line.number}"

    @property
    def word(self) -> Word:
        """Its first argument as written."""
        return self.line.words[1]


@dataclass(eq=False)
class Section:
    """A virtual host, or the main server: what is directly in it.

    Attributes:
        opening: its first line, None for the main server.
        closing: its last line.
        directives: those directly in it or in conditional sections that apply.
    """

    opening: Directive | None = None
    closing: Line | None = None
    directives: list[Directive] = field(default_factory=list)

    def all(self, name: str) -> list[Directive]:
        """Return the directives called *name* that have an argument."""
        return [one for one in self.directives if one.name == name and one.arguments]

    def last(self, name: str) -> str:
        """Return the first argument of the last directive called *name*, "" without one."""
        found = self.all(name)
        return found[-1].arguments[0] if found else ""


@dataclass(slots=True)
class _State:
    """What the server knows at a point of the configuration."""

    root: str
    defines: dict[str, str] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)


class Reader:
    """Reads the configuration at *root_file*, each file once."""

    def __init__(
        self,
        host: Host,
        root_file: str,
        *,
        environment: Mapping[str, str] | None = None,
        built_in: Callable[[], frozenset[str]] = frozenset,
        version: Callable[[], str] = str,
    ) -> None:
        self._host = host
        self.root_file = root_file
        self.environment = dict(environment or {})
        self._built_in = built_in
        self._version = version
        self.files: dict[str, bytes] = {}
        self._found: dict[str, tuple[str, ...]] = {}
        self.main = Section()
        self.hosts: list[Section] = []
        self.macros: list[Directive] = []
        self._state = _State(_default_root(root_file))

    @property
    def server_root(self) -> str:
        """What relative paths are relative to."""
        return self._state.root

    @property
    def modules(self) -> set[str]:
        """Modules loaded by ``LoadModule``."""
        return self._state.modules

    def read(self, changes: Mapping[str, bytes] | None = None) -> Reader:
        """Read everything; *changes* are seen instead of what is in these files.

        Raises:
            NotFound: the main file or one that is included is missing.
            InvalidRequest: sections do not fit together.
        """
        self.files.update(changes or {})
        self._file(self.root_file, self.main, ())
        return self

    def again(self, changes: Mapping[str, bytes]) -> Reader:
        """Return the configuration as it would be with *changes* written."""
        reader = Reader(
            self._host,
            self.root_file,
            environment=self.environment,
            built_in=self._built_in,
            version=self._version,
        )
        reader.files = dict(self.files)
        reader._found = self._found
        return reader.read(changes)

    def full_name(self, path: str) -> str:
        """Return *path* as an absolute path."""
        return posixpath.normpath(posixpath.join(self._state.root, path))

    def expand(self, text: str) -> str:
        """Replace variables that are known."""
        known = {**self.environment, **self._state.defines}
        return _VARIABLE.sub(lambda found: known.get(found[1], found[0]), text)

    def _file(
        self, path: str, section: Section, trail: tuple[str, ...], *, uncertain: bool = False
    ) -> None:
        if path in trail:
            raise InvalidRequest(
                f"{path} includes itself",
                remedy="Remove one of the two Include directives; nothing was changed.",
            )
        if path not in self.files:
            self.files[path] = self._host.read_file(path)
        walk = iter(_lines_of(self.files[path], path))
        self._lines(path, walk, section, (*trail, path), uncertain=uncertain, until="")

    def _lines(
        self,
        path: str,
        walk: Iterator[Line],
        section: Section,
        trail: tuple[str, ...],
        *,
        uncertain: bool,
        until: str,
    ) -> Line | None:
        for line in walk:
            if line.kind is Kind.OTHER:
                continue
            if line.kind is Kind.CLOSE:
                if line.name == until:
                    return line
                raise _misplaced(path, line, f"</{line.words[0].text}> closes nothing")
            arguments = tuple(self.expand(text) for text in line.arguments)
            directive = Directive(path, line, arguments, uncertain)
            if line.kind is Kind.OPEN:
                self._section(path, walk, directive, section, trail, uncertain=uncertain)
            else:
                self._directive(directive, section, trail)
        if until:
            raise InvalidRequest(
                f"{path}: <{until}> is not closed",
                remedy="Run the server's own test and correct the file; nothing was changed.",
            )
        return None

    def _section(
        self,
        path: str,
        walk: Iterator[Line],
        opening: Directive,
        section: Section,
        trail: tuple[str, ...],
        *,
        uncertain: bool,
    ) -> None:
        name = opening.name
        if name in _CONDITIONS:
            holds = self._holds(opening)
            if holds is False:
                _skip(path, walk, opening)
            else:
                doubt = uncertain or holds is None
                self._lines(path, walk, section, trail, uncertain=doubt, until=name)
        elif name == "virtualhost" and section is self.main:
            inner = Section(opening)
            inner.closing = self._lines(path, walk, inner, trail, uncertain=uncertain, until=name)
            self.hosts.append(inner)
        else:
            if name == "macro":
                self.macros.append(opening)
            _skip(path, walk, opening)

    def _directive(self, directive: Directive, section: Section, trail: tuple[str, ...]) -> None:
        section.directives.append(directive)
        arguments = directive.arguments
        if not arguments:
            return
        match directive.name:
            case "include" | "includeoptional":
                for path in self._included(directive):
                    self._file(path, section, trail, uncertain=directive.uncertain)
            case "define":
                value = arguments[1] if len(arguments) > 1 else ""
                self._state.defines[arguments[0]] = value
            case "undefine":
                self._state.defines.pop(arguments[0], None)
            case "serverroot":
                self._state.root = posixpath.normpath(arguments[0])
            case "loadmodule" if len(arguments) > 1:
                self._state.modules |= {arguments[0], _source_of(arguments[1])}

    def _included(self, include: Directive) -> tuple[str, ...]:
        wanted = self.full_name(include.arguments[0])
        if wanted not in self._found:
            self._found[wanted] = self._files_of(wanted)
            missing = [path for path in self._found[wanted] if path not in self.files]
            self.files.update(read_many(self._host, missing))
        found = self._found[wanted]
        if not found and include.name == "include" and not _GLOB & set(wanted):
            raise NotFound(
                f"{include.place} includes {wanted}, which does not exist on {self._host.name}",
                remedy="Run the server's own test and correct the file; nothing was changed.",
                connector=self._host.name,
            )
        return found

    def _files_of(self, pattern: str) -> tuple[str, ...]:
        """Return the files that an Include means: those of a directory with all below it."""
        paths = self._host.glob(pattern) if _GLOB & set(pattern) else (pattern,)
        found: list[str] = []
        for path in paths:
            try:
                info = self._host.info(self._host.real_path(path))
            except NotFound:
                # A dangling link in sites-enabled: the server's own test says so.
                continue
            if info is not None and info.kind == "directory":
                for name in self._host.list_directory(path):
                    found.extend(self._files_of(posixpath.join(path, name)))
            elif info is not None:
                found.append(path)
        return tuple(found)

    def _holds(self, condition: Directive) -> bool | None:
        """Return whether a conditional section applies, None if that cannot be told."""
        text = condition.arguments[0] if condition.arguments else ""
        negated, name = text.startswith("!"), text.removeprefix("!")
        match condition.name:
            case "ifmodule":
                found: bool | None = name in self._state.modules or name in self._built_in()
            case "ifdefine":
                # A definition on the command line is not seen here.
                found = True if name in self._state.defines else None
            case "iffile":
                found = self._host.info(self.full_name(name)) is not None
            case "ifversion":
                return _compares(self._version(), condition.arguments)
            case _:
                return None
        return None if found is None else found != negated


def _skip(path: str, walk: Iterator[Line], opening: Directive) -> None:
    """Pass over a section with all that is nested in it."""
    depth = 1
    for line in walk:
        if line.name == opening.name and line.kind in (Kind.OPEN, Kind.CLOSE):
            depth += 1 if line.kind is Kind.OPEN else -1
            if not depth:
                return
    raise _misplaced(path, opening.line, f"<{opening.line.words[0].text}> is not closed")


def _source_of(library: str) -> str:
    """Return the name by which ``IfModule`` knows a module: that of its source file."""
    name = posixpath.basename(library)
    if php := _PHP.match(name):
        return f"mod_php{php[1]}.c"
    return f"{name.removesuffix('.so')}.c"


def _default_root(root_file: str) -> str:
    """Return the server root compiled in by packages: /etc/apache2, /etc/httpd."""
    return posixpath.dirname(root_file).removesuffix("/conf") or "/"


def _compares(version: str, arguments: tuple[str, ...]) -> bool | None:
    """Evaluate ``<IfVersion [[!]operator] version>`` (mod_version)."""
    operator, wanted = arguments if len(arguments) == 2 else ("=", *arguments[:1])
    if not re.fullmatch(r"[\d.]+", version) or not re.fullmatch(r"[\d.]+", wanted):
        return None
    negated, operator = operator.startswith("!"), operator.removeprefix("!")
    have, want = _numbers(version), _numbers(wanted)
    result = {
        "=": have == want,
        "==": have == want,
        ">": have > want,
        ">=": have >= want,
        "<": have < want,
        "<=": have <= want,
    }.get(operator)
    return None if result is None else result != negated


def _numbers(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".") if part]
    return tuple(([*parts, 0, 0, 0])[:3])


def _misplaced(path: str, line: Line, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}:{line.number}: {what}",
        remedy="Run the server's own test and correct the file; nothing was changed.",
    )
