"""Read ``postgresql.conf``.

https://www.postgresql.org/docs/current/config-setting.html: one setting per
line, ``=`` optional, ``#`` begins a comment outside of quotes, names in any
case, the last setting of a name counts; what ``ALTER SYSTEM`` wrote comes after.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound, PermissionRefused
from certrail.servers.pair import Value

AUTO = "postgresql.auto.conf"
DEFAULTS = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl": "off"}
"""The settings that say which certificate is served."""
_LINE = re.compile(
    rb"[ \t]*(?P<name>[A-Za-z_][A-Za-z0-9_.]*)[ \t]*=?[ \t]*"
    rb"(?P<value>'(?:[^'\\\n]|''|\\.)*'|[^\s#']*)[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)"
)
_NOTHING = re.compile(rb"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPE = re.compile(r"''|\\(.)", re.DOTALL)
_ON = ("on", "true", "yes", "1", "t", "y", "tr", "tru", "ye")


@dataclass(eq=False)
class Configuration:
    """Everything that is set; of each name what counts."""

    root: str
    files: dict[str, bytes] = field(default_factory=dict)
    settings: dict[str, Value] = field(default_factory=dict)
    hidden: str = ""
    """The file of ``ALTER SYSTEM``, if the account may not read it."""

    def text(self, name: str, default: str = "") -> str:
        """Return the value of *name*."""
        found = self.settings.get(name)
        return found.text if found is not None else default

    @property
    def data(self) -> str:
        """The data directory."""
        return self.text("data_directory", posixpath.dirname(self.root))

    @property
    def ssl(self) -> bool:
        """Whether ``ssl`` is on."""
        return self.text("ssl", "off").lower() in _ON

    def file(self, name: str, default: str) -> str:
        """Return the path in setting *name*, relative ones below the data directory."""
        return posixpath.normpath(posixpath.join(self.data, self.text(name, default) or default))


def read_configuration(host: Host, path: str) -> Configuration:
    """Read *path*, what it includes, and what ``ALTER SYSTEM`` set.

    Raises:
        NotFound: it, or a file that it includes, is not there.
        InvalidRequest: a line that is none.
    """
    configuration = Configuration(path)
    _read(host, path, configuration, ())
    auto = posixpath.join(configuration.data, AUTO)
    try:
        if host.info(auto) is not None:
            _read(host, auto, configuration, ())
    except PermissionRefused:
        configuration.hidden = auto
    return configuration


def _read(host: Host, path: str, configuration: Configuration, trail: tuple[str, ...]) -> None:
    if path in trail:
        raise InvalidRequest(
            f"{path} includes itself", remedy="Remove one of the two; nothing was changed."
        )
    data = configuration.files[path] = host.read_file(path)
    for one, name in lines_of(data, path):
        beside = posixpath.join(posixpath.dirname(path), one.text)
        if name == "include_dir":
            inner = [
                entry
                for entry in sorted(host.list_directory(beside))
                if entry.endswith(".conf") and not entry.startswith(".")
            ]
            for entry in inner:
                _read(host, posixpath.join(beside, entry), configuration, (*trail, path))
        elif name in ("include", "include_if_exists"):
            try:
                _read(host, beside, configuration, (*trail, path))
            except NotFound:
                if name == "include":
                    raise
        else:
            configuration.settings[name] = one


def lines_of(data: bytes, path: str) -> list[tuple[Value, str]]:
    """Return each setting of *data* and its name, in lower case.

    Raises:
        InvalidRequest: a line that is none.
    """
    found = []
    at, number = 0, 1
    while at < len(data):
        match = _NOTHING.match(data, at)
        if match is None:
            match = _LINE.match(data, at)
            if match is None:
                raise InvalidRequest(
                    f"{path}:{number}: not a setting",
                    remedy="Correct the line; nothing was changed.",
                )
            text = match["value"].decode(errors="surrogateescape")
            if text.startswith("'"):
                text = _ESCAPE.sub(lambda one: one[1] or "'", text[1:-1])
            start, end = match.span("value")
            found.append((Value(path, start, end, number, text), match["name"].decode().lower()))
        at = max(match.end(), at + 1)
        number += 1
    return found
