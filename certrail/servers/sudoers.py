"""The lines of sudoers(5) that an account needs for a server, and no more.

The account reaches files with its own rights; as root it only tests the
configuration and reloads the server. Each line names one command with all its
arguments, so that nothing else can be run with it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from certrail.connectors import Host
from certrail.errors import InvalidRequest
from certrail.servers.apache.control import ApacheControl
from certrail.servers.apache.settings import CONFIGS, ApacheSettings
from certrail.servers.command import CommandSettings
from certrail.servers.dovecot import DovecotSettings
from certrail.servers.haproxy import HaproxySettings
from certrail.servers.lighttpd import LighttpdSettings
from certrail.servers.nginx import NginxSettings
from certrail.servers.postfix import PostfixSettings

_FOLDERS = {"doveadm": "/usr/bin", "doveconf": "/usr/bin", "systemctl": "/usr/bin"}
_ADMIN = "/usr/sbin"
_SPECIAL = re.compile(r"([\\,:=\s#*?\[\]!])")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_GRACE = 10


def commands(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    """Return what has to run as root for an endpoint's ``server``, with the seconds it may take.

    *host* is asked only where the settings do not say it: which layout an Apache has.

    Raises:
        InvalidRequest: the kind is not known here, or it signals processes, which no line can
            list; the remedy says which setting helps.
    """
    kind = str(server.get("kind", ""))
    if kind not in _KINDS:
        raise InvalidRequest(
            f"it is not known which commands a server of the kind {kind!r} needs as root",
            remedy="Use `sudo: true` for this machine.",
        )
    return _KINDS[kind](server, host)


def lines(account: str, needed: Iterable[tuple[Sequence[str], float]]) -> list[str]:
    """Return the lines for *account*; each command once.

    Raises:
        InvalidRequest: *account* cannot be the name of an account.
    """
    if not _ACCOUNT.match(account):
        raise InvalidRequest(f"{account!r} is not the name of an account")
    made = (
        f"{account} ALL=(root) TIMEOUT={seconds + _GRACE:.0f} NOPASSWD: {_listed(argv)}"
        for argv, seconds in needed
    )
    return list(dict.fromkeys(made))


def _listed(argv: Sequence[str]) -> str:
    program = argv[0]
    if "/" not in program:
        program = posixpath.join(_FOLDERS.get(program, _ADMIN), program)
    if not all(argv):
        raise InvalidRequest(f"a line of sudoers cannot name an empty argument of {program}")
    # Without arguments a line would allow any.
    words = [_SPECIAL.sub(r"\\\1", word) for word in argv[1:]] or ['""']
    return " ".join([_SPECIAL.sub(r"\\\1", program), *words])


def _nginx(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = NginxSettings.parse(server)
    prefix = ["-p", settings.prefix] if settings.prefix else []
    own = [settings.binary, *prefix, "-c", settings.config]
    reload = [*own, "-s", "reload"]
    if settings.reload == "systemd":
        reload = ["systemctl", "reload", "nginx"]
    elif settings.reload != "signal":
        reload = list(settings.reload)
    elif settings.pid_file:
        raise _signals("nginx", "Leave out `pid_file`, or set `reload: systemd`.")
    return [([*own, "-t"], settings.test_timeout), (reload, settings.reload_timeout)]


def _apache(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = ApacheSettings.parse(server)
    control = ApacheControl(host, settings)
    reload = control.command("-k", "graceful")
    if settings.reload == "systemd":
        reload = ["systemctl", "reload", "apache2" if control.config == CONFIGS[0] else "httpd"]
    elif settings.reload != "graceful":
        reload = list(settings.reload)
    return [
        (control.command("-t"), settings.test_timeout),
        (control.command("-t", "-D", "DUMP_VHOSTS"), settings.test_timeout),
        (reload, settings.reload_timeout),
    ]


def _haproxy(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = HaproxySettings.parse(server)
    if settings.reload == "signal":
        raise _signals("haproxy", "Set `reload: systemd`, or a command as a list of words.")
    systemd = settings.reload == "systemd"
    reload = ["systemctl", "reload", "haproxy"] if systemd else list(settings.reload)
    test = [settings.binary, "-c", "-f", settings.config]
    return [(test, settings.test_timeout), (reload, settings.reload_timeout)]


def _lighttpd(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = LighttpdSettings.parse(server)
    if settings.reload == "signal":
        raise _signals("lighttpd", "Set `reload: systemd`, or a command as a list of words.")
    systemd = settings.reload == "systemd"
    restart = ["systemctl", "restart", "lighttpd"] if systemd else list(settings.reload)
    test = [settings.binary, "-tt", "-f", settings.config]
    return [(test, settings.test_timeout), (restart, settings.reload_timeout)]


def _postfix(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = PostfixSettings.parse(server)
    own = [settings.binary, "-c", settings.config]
    return [
        ([*own, "check"], settings.test_timeout),
        ([*own, "reload"], settings.reload_timeout),
    ]


def _dovecot(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = DovecotSettings.parse(server)
    folder = posixpath.dirname(settings.binary)
    doveconf = posixpath.join(folder, "doveconf") if folder else "doveconf"
    return [
        ([doveconf, "-c", settings.config, "-n"], settings.test_timeout),
        ([settings.binary, "-c", settings.config, "reload"], settings.reload_timeout),
    ]


def _command(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = CommandSettings.parse(server)
    return [(list(one), settings.timeout) for one in (settings.test, settings.reload) if one]


def _signals(kind: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(
        f"{kind} is reloaded by a signal to a process, which no line of sudoers can list",
        remedy=remedy,
    )


_KINDS: Mapping[str, Callable[[Mapping[str, object], Host], list[tuple[list[str], float]]]] = {
    "apache": _apache,
    "command": _command,
    "dovecot": _dovecot,
    "haproxy": _haproxy,
    "lighttpd": _lighttpd,
    "nginx": _nginx,
    "postfix": _postfix,
}
