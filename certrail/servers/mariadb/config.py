"""Read the option files of MariaDB.

https://mariadb.com/docs/server/server-management/install-and-upgrade-mariadb/configuring-mariadb/configuring-mariadb-with-option-files:
groups in brackets, ``name = value`` or ``name`` alone, ``-`` and ``_`` are the
same in names, ``!include`` and ``!includedir`` at any place, the last setting counts.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest
from certrail.servers.pair import Value

_GROUPS = re.compile(r"(server|galera|client-server|mysqld|mariadb|mariadbd)(?:-([\d.]+))?\Z")
_OWN_GROUPS = ("mysqld", "mariadbd", "mariadb", "server")
_GROUP = re.compile(rb"[ \t]*\[([^\]\n]*)\]")
_INCLUDE = re.compile(rb"[ \t]*!(include|includedir)[ \t]+([^\n]*?)\s*\Z")
_OPTION = re.compile(rb"[ \t]*([^\s=\[#;!][^\s=]*)[ \t]*(?:=[ \t]*)?")
_QUOTED = re.compile(rb"\"[^\"\n]*\"|'[^'\n]*'")
_OFF = ("0", "off", "false")


@dataclass(eq=False)
class Configuration:
    """What is set for the server; of each name what counts.

    Attributes:
        version: of the server, ``10.11``; groups for other versions do not count.
        gaps: by group, file and offset behind the last option of the server.
    """

    root: str
    files: dict[str, bytes] = field(default_factory=dict)
    settings: dict[str, Value] = field(default_factory=dict)
    version: str = ""
    gaps: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def gap(self) -> tuple[str, int] | None:
        """File and offset where a missing option belongs, None if there is no such group."""
        return next((self.gaps[name] for name in _OWN_GROUPS if name in self.gaps), None)

    def text(self, name: str, default: str = "") -> str:
        """Return the value of *name*, written with ``_``."""
        found = self.settings.get(name)
        return found.text if found is not None else default

    @property
    def ssl_off(self) -> Value | None:
        """The setting that switches TLS off, None if there is none."""
        found = [self.settings.get(name) for name in ("ssl", "skip_ssl", "disable_ssl")]
        on, *off = found
        if on is not None and on.text.lower() in _OFF:
            return on
        return next((one for one in off if one is not None and one.text.lower() not in _OFF), None)


def read_configuration(host: Host, path: str, version: str = "") -> Configuration:
    """Read *path* and what it includes, as a server of *version* (``10.11``) does.

    Raises:
        NotFound: it, or a file that it includes, is not there.
        InvalidRequest: it includes itself.
    """
    configuration = Configuration(path, version=version)
    _read(host, path, configuration, ())
    return configuration


def _read(host: Host, path: str, configuration: Configuration, trail: tuple[str, ...]) -> None:
    if path in trail:
        raise InvalidRequest(
            f"{path} includes itself", remedy="Remove one of the two; nothing was changed."
        )
    data = configuration.files[path] = host.read_file(path)
    at, ours, plain = 0, False, ""
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        if found := _INCLUDE.match(line):
            wanted = found[2].decode(errors="surrogateescape")
            for one in _included(host, wanted, folder=found[1] == b"includedir"):
                _read(host, one, configuration, (*trail, path))
        elif group := _GROUP.match(line):
            match = _GROUPS.match(group[1].decode(errors="replace").strip().lower())
            ours = match is not None and match[2] in (None, configuration.version)
            plain = match[1] if match and not match[2] else ""
            if plain:
                configuration.gaps[plain] = (path, at + len(line))
        elif ours and (option := _OPTION.match(line)):
            name = option[1].decode(errors="surrogateescape").lower().replace("-", "_")
            start, end = option.end(), _end_of_value(line, option.end())
            text = line[start:end].decode(errors="surrogateescape")
            if _QUOTED.fullmatch(line[start:end]):
                text = text[1:-1]
            value = Value(path, at + start, at + end, number, text)
            configuration.settings[name.removeprefix("loose_")] = value
            if plain:
                configuration.gaps[plain] = (path, at + len(line))
        at += len(line)


def _included(host: Host, wanted: str, *, folder: bool) -> list[str]:
    if not folder:
        return [wanted]
    names = sorted(host.list_directory(wanted))
    return [posixpath.join(wanted, one) for one in names if one.endswith((".cnf", ".ini"))]


def _end_of_value(line: bytes, start: int) -> int:
    """Return where the value ends: before a comment that is not in quotes, and blanks."""
    quote = b""
    end = len(line)
    for at in range(start, len(line)):
        byte = line[at : at + 1]
        if byte in b"\"'" and (not quote or byte == quote):
            quote = b"" if quote else byte
        if byte == b"#" and not quote:
            end = at
            break
    return start + len(line[start:end].rstrip())
