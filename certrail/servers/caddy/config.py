"""Read a Caddyfile: sites, their addresses, and the ``tls`` directive of each.

https://caddyserver.com/docs/caddyfile/concepts, /directives/tls, /directives/import.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest
from certrail.servers.caddy.lexer import Word, lines

_ADDRESS = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[^\]]*\]|[^:/]*)(?::(?P<port>[^/]*))?(?:/.*)?\Z"
)
_HIDDEN = re.compile(r"[^*?\[\]]*(?:/\.)")


@dataclass(frozen=True, slots=True)
class Line:
    """A directive: its words, the file, and how many lines reach the site through it."""

    path: str
    words: tuple[Word, ...]
    opens: bool = False

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.words[0].number}"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a site answers: *host* "" for every name."""

    scheme: str
    host: str
    port: str

    @property
    def is_tls(self) -> bool:
        """Whether clients begin with TLS."""
        return self.scheme != "http" and not (not self.scheme and self.port == "80")

    def covers(self, name: str) -> bool:
        """Return whether requests for *name* are for it."""
        if self.host.startswith("*."):
            return name.partition(".")[2] == self.host[2:]
        return self.host in ("", name)


@dataclass(eq=False)
class SiteBlock:
    """One site: its addresses and directives, those of imported snippets too.

    Attributes:
        gap: file and offset behind the line that opens it; None where it has no braces.
    """

    path: str
    number: int
    addresses: list[Address]
    directives: list[Line] = field(default_factory=list)
    gap: tuple[str, int] | None = None

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.number}"

    @property
    def tls(self) -> Line | None:
        """The directive that names the certificate, None if there is none."""
        found = [one for one in self.directives if one.words[0].text == "tls"]
        return found[-1] if found else None

    def names(self, name: str) -> list[Word]:
        """Return the values of directive *name*."""
        return [w for one in self.directives if one.words[0].text == name for w in one.words[1:]]


@dataclass(eq=False)
class Configuration:
    """The sites of a Caddyfile, and the files that it consists of."""

    root: str
    files: dict[str, bytes] = field(default_factory=dict)
    sites: list[SiteBlock] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    def port(self, address: Address) -> str:
        """Return the port of *address*."""
        if address.port:
            return address.port
        return self.options.get("https_port", "443")

    def users(self, line: Line) -> list[SiteBlock]:
        """Return the sites that get *line*."""
        key = (line.path, line.words[0].start)
        return [
            site
            for site in self.sites
            if key in [(one.path, one.words[0].start) for one in site.directives]
        ]

    def serving(self, name: str, port: str) -> list[SiteBlock]:
        """Return the sites that answer for *name*: of the addresses that fit, the most exact."""
        found: dict[int, list[SiteBlock]] = {}
        for site in self.sites:
            for one in site.addresses:
                if one.is_tls and one.covers(name) and port in ("", self.port(one)):
                    exact = 0 if one.host == name else 1 if one.host else 2
                    found.setdefault(exact, []).append(site)
        best = found[min(found)] if found else []
        return list(dict.fromkeys(best))


def read_configuration(host: Host, path: str) -> Configuration:
    """Read *path* and what it imports.

    Raises:
        NotFound: it is not there.
        InvalidRequest: it cannot be understood.
    """
    configuration = Configuration(path)
    _Reader(host, configuration).read()
    return configuration


class _Reader:
    def __init__(self, host: Host, configuration: Configuration) -> None:
        self._host = host
        self._found = configuration
        self._snippets: dict[str, list[Line]] = {}

    def read(self) -> None:
        everything = list(self._lines(self._found.root, ()))
        at = 0
        if everything and everything[0].words[0].is_bracket("{"):
            at = _end(everything, 0)
            for line in everything[1 : at - 1]:
                self._found.options.setdefault(
                    line.words[0].text, line.words[1].text if len(line.words) > 1 else ""
                )
        while at < len(everything):
            at = self._block(everything, at)

    def _block(self, everything: Sequence[Line], at: int) -> int:
        first = everything[at]
        words = list(first.words)
        head = words[0].text
        if head == "import":
            # A snippet that brings sites of its own.
            raise InvalidRequest(
                f"{first.place}: sites that come from a snippet are not understood",
                remedy="Write the sites into the Caddyfile; nothing was changed.",
            )
        while words[-1].text.endswith(",") and not words[-1].quoted and at + 1 < len(everything):
            at += 1
            words += everything[at].words
        opened = words[-1].is_bracket("{")
        if opened:
            end = _end(everything, at)
            inner = everything[at + 1 : end - 1]
        else:
            end, inner = len(everything), everything[at + 1 :]
        if head.startswith("(") and head.endswith(")"):
            self._snippets[head[1:-1]] = list(inner)
            return end
        if head.startswith("&("):
            return end
        names = [one.text.rstrip(",") for one in (words[:-1] if opened else words)]
        addresses = [
            _address(part, first) for name in names for part in name.split(",") if part.strip()
        ]
        gap = (first.path, everything[at].words[-1].end) if opened else None
        site = SiteBlock(first.path, words[0].number, addresses, gap=gap)
        site.directives = list(self._directives(inner, ()))
        self._found.sites.append(site)
        return end

    def _directives(self, inner: Sequence[Line], trail: tuple[str, ...]) -> Iterator[Line]:
        """Yield the directives of one block, imported ones in their place."""
        depth = 0
        for line in inner:
            first, last = line.words[0], line.words[-1]
            if first.is_bracket("}"):
                depth -= 1
                continue
            if depth == 0:
                name = line.words[1].text if len(line.words) > 1 else ""
                if first.text == "import" and name in self._snippets and name not in trail:
                    yield from self._directives(self._snippets[name], (*trail, name))
                elif first.text != "import":
                    yield line
            if last.is_bracket("{"):
                depth += 1

    def _lines(self, path: str, trail: tuple[str, ...]) -> Iterator[Line]:
        """Yield every line; files that are imported take the place of the import."""
        if path in trail:
            raise InvalidRequest(
                f"{path} imports itself", remedy="Remove one of the two; nothing was changed."
            )
        if path not in self._found.files:
            self._found.files[path] = self._host.read_file(path)
        for words in lines(self._found.files[path], path):
            paths = self._imported(path, words)
            if paths is None:
                yield Line(path, tuple(words))
                continue
            for one in paths:
                yield from self._lines(one, (*trail, path))

    def _imported(self, path: str, words: Sequence[Word]) -> list[str] | None:
        """Return the files that a line imports, None if it is no such line."""
        if words[0].text != "import" or len(words) < 2 or not words[1].known:
            return None
        wanted = posixpath.join(posixpath.dirname(path), words[1].text)
        if set("*?[") & set(wanted):
            return [one for one in self._host.glob(wanted) if not _HIDDEN.match(one)]
        return [wanted] if self._host.info(wanted) is not None else None


def _end(everything: Sequence[Line], at: int) -> int:
    """Return the index behind the line that closes the block opened in line *at*."""
    depth = 0
    for index in range(at, len(everything)):
        words = everything[index].words
        depth += words[-1].is_bracket("{")
        depth -= words[0].is_bracket("}")
        if depth == 0:
            return index + 1
    raise InvalidRequest(
        f"{everything[at].place}: the block is not closed",
        remedy="Run `caddy validate` and correct the file; nothing was changed.",
    )


def _address(text: str, line: Line) -> Address:
    match = _ADDRESS.match(text.strip())
    if match is None or "{" in text:
        raise InvalidRequest(
            f"{line.place}: the address {text} is not understood",
            remedy="Write it without variables; nothing was changed.",
        )
    return Address(match["scheme"] or "", match["host"].lower(), match["port"] or "")
