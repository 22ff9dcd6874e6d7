"""Which servers there are on a host, and where their configuration is.

What runs says it best: its command line names a configuration that is not in
the usual place. Processes of containers (another mount namespace) are left
out: the paths they name are not the host's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from certrail.connectors import Host
from certrail.servers.apache.settings import CONFIGS as APACHE_CONFIGS
from certrail.servers.mariadb.control import CONFIGS as MARIADB_CONFIGS
from certrail.servers.postgresql.control import CONFIGS as POSTGRESQL_CONFIGS
from certrail.servers.target import first_existing

_USUAL: dict[str, tuple[str, ...]] = {
    "nginx": ("/etc/nginx/nginx.conf", "/usr/local/nginx/conf/nginx.conf"),
    "apache": APACHE_CONFIGS,
    "haproxy": ("/etc/haproxy/haproxy.cfg",),
    "postfix": ("/etc/postfix/main.cf",),
    "dovecot": ("/etc/dovecot/dovecot.conf",),
    "lighttpd": ("/etc/lighttpd/lighttpd.conf",),
    "mariadb": MARIADB_CONFIGS,
}
_KINDS = {
    "nginx": "nginx",
    "apache2": "apache",
    "httpd": "apache",
    "haproxy": "haproxy",
    "master": "postfix",
    "dovecot": "dovecot",
    "lighttpd": "lighttpd",
    "mariadbd": "mariadb",
    "postgres": "postgresql",
    "postmaster": "postgresql",
}
_FOLDERS = ("", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
# One line for each process: command name, folder, MAIL_CONFIG, then the words of its command line.
_PROCESSES = (
    "own=$(readlink /proc/self/ns/mnt); for d in /proc/[0-9]*; do "
    'read -r name 2>/dev/null <"$d/comm" || continue; '
    f"case $name in {'|'.join(_KINDS)}) ;; *) continue ;; esac; "
    '[ "$(readlink "$d/ns/mnt")" = "$own" ] || continue; '
    'mail=$(tr "\\0" "\\n" 2>/dev/null <"$d/environ" | sed -n "s/^MAIL_CONFIG=//p"); '
    'printf "%s\\001%s\\001%s\\001" "$name" "$(readlink "$d/cwd")" "$mail"; '
    'tr "\\0\\n" "\\001 " <"$d/cmdline"; echo; done; echo done'
)


@dataclass(frozen=True, slots=True)
class Found:
    """A server of a host.

    Attributes:
        settings: the ``server`` mapping that reaches it, without a site.
        running: whether a process of it was seen.
    """

    settings: dict[str, Any]
    running: bool

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.settings["kind"])


@dataclass(frozen=True, slots=True)
class _Process:
    name: str
    folder: str
    mail_config: str
    words: tuple[str, ...]

    def option(self, letter: str) -> str:
        """Return the path given with ``-letter``, absolute, "" if none is."""
        found = _options(self.words, letter)
        return self._full(found[0]) if found else ""

    def long(self, name: str) -> str:
        """Return the path given with ``--name=``, absolute, "" if none is."""
        start = f"--{name}="
        found = [word.removeprefix(start) for word in self.words if word.startswith(start)]
        return self._full(found[0]) if found else ""

    def _full(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.folder or "/", path))


def discover(host: Host) -> list[Found]:
    """Return the servers on *host*: those that run, and configured ones of other kinds."""
    found: list[Found] = []
    for process in _processes(host):
        settings = _READERS[_KINDS[process.name]](process)
        if settings is not None and settings not in [one.settings for one in found]:
            found.append(Found(settings, running=True))
    kinds = {one.kind for one in found}
    for kind, usual in _USUAL.items():
        if kind not in kinds and first_existing(host, usual):
            found.append(Found({"kind": kind}, running=False))
    known = {one.settings.get("config") for one in found}
    for path in (path for pattern in POSTGRESQL_CONFIGS for path in host.glob(pattern)):
        if path not in known:
            found.append(Found({"kind": "postgresql", "config": path}, running=False))
    return found


def _processes(host: Host) -> Iterator[_Process]:
    text = host.run(["sh", "-c", _PROCESSES]).stdout.decode(errors="surrogateescape")
    for line in text.splitlines():
        name, *rest = line.split("\x01")
        if name in _KINDS and len(rest) > 2:
            yield _Process(name, rest[0], rest[1], tuple(word for word in rest[2:] if word))


def _nginx(process: _Process) -> dict[str, Any] | None:
    title = " ".join(process.words)
    if "master process" not in title:
        return None
    words = tuple(title.partition("master process")[2].split())
    own = _Process(process.name, process.folder, "", words)
    prefix = own.option("p")
    given = _options(words, "c")
    settings: dict[str, Any] = {"kind": "nginx"}
    if prefix:
        settings["prefix"] = f"{prefix}/"
    if given:
        base = prefix or "/etc/nginx"
        settings["config"] = posixpath.normpath(posixpath.join(base, given[0]))
    return {**settings, **_binary(words, "nginx")}


def _apache(process: _Process) -> dict[str, Any] | None:
    config = process.option("f")
    if not config:
        return {"kind": "apache", **_binary(process.words, "apache2", "httpd")}
    return {"kind": "apache", "config": config, "binary": process.words[0]}


def _haproxy(process: _Process) -> dict[str, Any] | None:
    config, pid_file = process.option("f"), process.option("p")
    usual = {"config": _USUAL["haproxy"][0], "pid_file": "/run/haproxy.pid"}
    settings = {"config": config, "pid_file": pid_file}
    kept = {name: value for name, value in settings.items() if value and value != usual[name]}
    return {"kind": "haproxy", **kept, **_binary(process.words, "haproxy")}


def _postfix(process: _Process) -> dict[str, Any] | None:
    if not process.words or "postfix" not in process.words[0]:
        return None
    config = process.option("c") or process.mail_config
    usual = config in ("", "/etc/postfix")
    return {"kind": "postfix"} if usual else {"kind": "postfix", "config": config}


def _dovecot(process: _Process) -> dict[str, Any] | None:
    config = process.option("c")
    usual = config in ("", _USUAL["dovecot"][0])
    return {"kind": "dovecot"} if usual else {"kind": "dovecot", "config": config}


def _lighttpd(process: _Process) -> dict[str, Any] | None:
    config = process.option("f")
    usual = config in ("", *_USUAL["lighttpd"])
    settings = {"kind": "lighttpd"} if usual else {"kind": "lighttpd", "config": config}
    return {**settings, **_binary(process.words, "lighttpd")}


def _mariadb(process: _Process) -> dict[str, Any] | None:
    config = process.long("defaults-file")
    settings = {"kind": "mariadb", "config": config} if config else {"kind": "mariadb"}
    return {**settings, **_binary(process.words, "mariadbd")}


def _postgresql(process: _Process) -> dict[str, Any] | None:
    # Its children, of the same name, have a title instead of a command line.
    if not process.words or posixpath.basename(process.words[0]) not in ("postgres", "postmaster"):
        return None
    named = process.long("config-file") or process.long("config_file")
    for option, value in zip(process.words, process.words[1:], strict=False):
        if option == "-c" and value.startswith("config_file="):
            named = value.removeprefix("config_file=")
    data = process.option("D")
    config = named or (posixpath.join(data, "postgresql.conf") if data else "")
    return {"kind": "postgresql", "config": config} if config else None


_READERS: dict[str, Callable[[_Process], dict[str, Any] | None]] = {
    "nginx": _nginx,
    "apache": _apache,
    "haproxy": _haproxy,
    "postfix": _postfix,
    "dovecot": _dovecot,
    "lighttpd": _lighttpd,
    "mariadb": _mariadb,
    "postgresql": _postgresql,
}


def _options(words: Sequence[str], letter: str) -> list[str]:
    """Return the values of ``-letter VALUE`` and ``-letterVALUE``."""
    found = []
    for index, word in enumerate(words):
        if word == f"-{letter}" and index + 1 < len(words):
            found.append(words[index + 1])
        elif word.startswith(f"-{letter}") and word[2:3] in ("/", "."):
            found.append(word[2:])
    return found


def _binary(words: Sequence[str], *names: str) -> dict[str, str]:
    """Return the program's path where it is not in a usual place."""
    path = words[0] if words else ""
    own = posixpath.basename(path) in names and posixpath.dirname(path) not in _FOLDERS
    return {"binary": path} if own else {}
