"""Read a Dovecot configuration of 2.3 (``ssl_cert = <file``) or 2.4 (``ssl_server_cert_file``).

https://doc.dovecot.org/2.3/configuration_manual/config_file/config_file_syntax/ and
https://doc.dovecot.org/2.4.0/core/config/file_syntax.html: one setting or block
per line, ``#`` begins a comment at the start of a line or behind a blank, a
backslash at the end continues a line, the last setting of a name counts.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound

_LINE = re.compile(rb"(?:[^\n\\]|\\(?!\r?\n)|\\\r?\n)*(?:\n|\Z)")
_COMMENT = re.compile(rb"(?:^|(?<=[ \t]))#.*", re.DOTALL)
_SETTING = re.compile(rb"\s*([^\s=#{}]+)\s*=[ \t]*(.*?)\s*\Z", re.DOTALL)
_BLOCK = re.compile(rb"\s*([^=#{}]+?)\s*\{\s*\Z", re.DOTALL)
_INCLUDE = re.compile(rb"\s*!(include|include_try)\s+(.*?)\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, where its value stands, and the blocks around it.

    Attributes:
        blocks: names of the blocks, outermost first: ``("protocol imap",)``.
    """

    path: str
    name: str
    value: str
    start: int
    end: int
    number: int
    blocks: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.number}"

    @property
    def file(self) -> str:
        """The file that the value names, with or without the ``<`` of 2.3; "" if none."""
        text = self.value.strip().strip('"').removeprefix("<").strip().strip('"')
        return text if text.startswith("/") else ""


@dataclass(frozen=True, slots=True)
class Names:
    """How the settings are called."""

    pairs: tuple[tuple[str, str], ...]
    mark: str

    def lines(self, certificate: str, key: str) -> tuple[str, str]:
        """Return the two lines that name a certificate and its key."""
        first, second = self.pairs[0]
        return f"{first} = {self.mark}{certificate}", f"{second} = {self.mark}{key}"


OLD = Names((("ssl_cert", "ssl_key"), ("ssl_alt_cert", "ssl_alt_key")), "<")
NEW = Names(
    (
        ("ssl_server_cert_file", "ssl_server_key_file"),
        ("ssl_server_alt_cert_file", "ssl_server_alt_key_file"),
    ),
    "",
)


@dataclass(eq=False)
class Configuration:
    """Everything that is set, in the order in which Dovecot reads it."""

    root: str
    files: dict[str, bytes] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)

    @property
    def names(self) -> Names:
        """How settings are called in this version."""
        return NEW if self.last("dovecot_config_version") else OLD

    def last(self, name: str, blocks: tuple[str, ...] = ()) -> Setting | None:
        """Return what counts for *name* directly in *blocks*, None if it is not set."""
        found = [one for one in self.settings if one.name == name and one.blocks == blocks]
        return found[-1] if found else None

    def blocks_with_certificate(self) -> list[tuple[str, ...]]:
        """Return the blocks that have a certificate of their own."""
        name = self.names.pairs[0][0]
        return list(dict.fromkeys(one.blocks for one in self.settings if one.name == name))

    def scope(self, site: str, protocol: str) -> tuple[str, ...]:
        """Return the blocks whose certificate clients get for *site* (over *protocol*).

        Raises:
            InvalidRequest: several could be meant.
        """
        own = [blocks for blocks in self.blocks_with_certificate() if blocks]
        named = [blocks for blocks in own if _is_for(blocks, site)]
        over = [blocks for blocks in own if list(blocks) == [f"protocol {protocol}"]]
        found = [blocks for blocks in named if not protocol or f"protocol {protocol}" in blocks]
        found = found or named or over
        if len(found) > 1:
            raise InvalidRequest(
                f"{len(found)} blocks of {self.root} have a certificate for {site}: "
                + ", ".join(" in ".join(reversed(blocks)) for blocks in found),
                remedy="Set `listen` of the endpoint's server to the protocol that is meant.",
            )
        return found[0] if found else ()


def read_configuration(
    host: Host, root: str, changes: Mapping[str, bytes] | None = None
) -> Configuration:
    """Read the configuration at *root* with everything it includes.

    Raises:
        NotFound: there is none.
        InvalidRequest: its blocks do not fit together.
    """
    configuration = Configuration(root, dict(changes or {}))
    _read(host, root, configuration, (), ())
    return configuration


def settings_of(data: bytes, path: str) -> Iterator[Setting | tuple[str, bool, tuple[str, ...]]]:
    """Yield settings, and includes as ``(pattern, may be missing, blocks)``.

    Raises:
        InvalidRequest: its blocks do not fit together.
    """
    blocks: list[str] = []
    at, number = 0, 1
    while at < len(data):
        match = _LINE.match(data, at)
        end = match.end() if match and match.end() > at else len(data)
        line = data[at:end]
        text = _COMMENT.sub(b"", line)
        if include := _INCLUDE.match(text):
            yield _text(include[2]), include[1] == b"include_try", tuple(blocks)
        elif opened := _BLOCK.match(text):
            blocks.append(" ".join(_text(opened[1]).split()))
        elif text.strip() == b"}":
            if not blocks:
                raise _misplaced(path, number, "a block is closed that was not opened")
            blocks.pop()
        elif found := _SETTING.match(text):
            start = at + found.start(2)
            value = _text(found[2])
            yield Setting(
                path, _text(found[1]), value, start, at + found.end(2), number, tuple(blocks)
            )
        number += line.count(b"\n")
        at = end
    if blocks:
        raise _misplaced(path, number, f"the block {blocks[-1]} is not closed")


def _read(
    host: Host,
    path: str,
    configuration: Configuration,
    outer: tuple[str, ...],
    trail: tuple[str, ...],
) -> None:
    if path in trail:
        raise InvalidRequest(
            f"{path} includes itself", remedy="Remove one of the two; nothing was changed."
        )
    if path not in configuration.files:
        configuration.files[path] = host.read_file(path)
    for one in settings_of(configuration.files[path], path):
        if isinstance(one, Setting):
            blocks = (*outer, *one.blocks)
            configuration.settings.append(
                Setting(one.path, one.name, one.value, one.start, one.end, one.number, blocks)
            )
            continue
        pattern, may_be_missing, blocks = one
        wanted = posixpath.join(posixpath.dirname(path), pattern)
        for found in host.glob(wanted) if set("*?[") & set(wanted) else (wanted,):
            try:
                _read(host, found, configuration, (*outer, *blocks), (*trail, path))
            except NotFound:
                if not may_be_missing:
                    raise


def _is_for(blocks: tuple[str, ...], site: str) -> bool:
    patterns = [block.partition(" ")[2] for block in blocks if block.startswith("local_name ")]
    return any(
        fnmatch.fnmatchcase(site.lower(), name.strip('"').lower())
        for pattern in patterns
        for name in pattern.split()
    )


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _misplaced(path: str, number: int, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}:{number}: {what}",
        remedy="Run `doveconf -n` and correct the file; nothing was changed.",
    )
