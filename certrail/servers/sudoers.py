"""The lines of sudoers(5) that an account needs for a server, and no more.

The account reaches files with its own rights; as root it only tests the
configuration, reloads the server, and gives keys to the account that the server
reads them with. Each line names one command with all its arguments, so that
nothing else can be run with it; where keys are given away, the file is open, and
chown(1) itself keeps to files of the account.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from certrail.connectors import Host
from certrail.errors import InvalidRequest
from certrail.remote.sudo import handing_over
from certrail.servers.apache.control import ApacheControl
from certrail.servers.apache.settings import ApacheSettings
from certrail.servers.caddy import CaddySettings
from certrail.servers.caddy.control import CaddyControl
from certrail.servers.command import CommandSettings
from certrail.servers.dovecot import DovecotSettings
from certrail.servers.exim import EximSettings
from certrail.servers.exim.control import EximControl
from certrail.servers.haproxy import HaproxySettings
from certrail.servers.lighttpd import LighttpdSettings
from certrail.servers.mariadb import MariadbSettings
from certrail.servers.mariadb.control import STATEMENTS, MariadbControl
from certrail.servers.nginx import NginxSettings, NginxTarget
from certrail.servers.postfix import PostfixSettings
from certrail.servers.postgresql import PostgresqlSettings
from certrail.servers.postgresql.config import DEFAULTS
from certrail.servers.postgresql.control import PostgresqlControl
from certrail.servers.registry import open_target
from certrail.servers.target import FileTarget
from certrail.servers.tomcat import TomcatSettings
from certrail.servers.tomcat.control import TomcatControl

_USER = ("caddy", "chown", "doveadm", "doveconf", "mariadb", "systemctl")
_ADMIN = "/usr/sbin"
_SPECIAL = re.compile(r"([\\,:=\s#*?\[\]!])")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_GRACE = 10
_CHOWN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Needed:
    """A command that has to run as root.

    Attributes:
        argv: program and arguments.
        seconds: it may take.
        below: directory of files of the account, one of which is the last argument; "" for none.
        owner: who gets that file.
    """

    argv: Sequence[str]
    seconds: float
    below: str = ""
    owner: str = ""


def commands(server: Mapping[str, object], host: Host) -> list[Needed]:
    """Return what has to run as root for an endpoint's ``server``.

    *host* is asked only where the settings do not say it: which layout an Apache has, which
    account a Tomcat has.

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
    needed = [Needed(argv, seconds) for argv, seconds in _KINDS[kind](server, host)]
    return [*needed, *_given(server, host)]


def lines(account: str, needed: Iterable[Needed]) -> list[str]:
    """Return the lines for *account*; each command once.

    Raises:
        InvalidRequest: *account* cannot be the name of an account.
    """
    if not _ACCOUNT.match(account):
        raise InvalidRequest(f"{account!r} is not the name of an account")
    made = (
        f"{account} ALL=(root) TIMEOUT={one.seconds + _GRACE:.0f} NOPASSWD: {_words(account, one)}"
        for one in needed
        if not one.below or one.owner != account
    )
    return list(dict.fromkeys(made))


def _words(account: str, needed: Needed) -> str:
    if not needed.below:
        return _listed(needed.argv)
    return _listed(handing_over(account, needed.owner, f"{needed.below}/")) + "*"


def _given(server: Mapping[str, object], host: Host) -> list[Needed]:
    target = open_target(host, server)
    if isinstance(target, FileTarget):
        owner, base = target.key_file.owner, target.base
    elif isinstance(target, NginxTarget):
        owner, base = target.settings.key_owner, target.settings.base
    else:
        settings = CommandSettings.parse(server)
        owner, base = settings.key_owner, settings.directory
    return [Needed((), _CHOWN_SECONDS, base, owner)] if owner and base else []


def _listed(argv: Sequence[str]) -> str:
    program = argv[0]
    if "/" not in program:
        program = posixpath.join("/usr/bin" if program in _USER else _ADMIN, program)
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
        reload = ["systemctl", "reload", control.unit]
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


def _exim(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = EximSettings.parse(server)
    if settings.reload == "signal":
        raise _signals("exim", "Set `reload: systemd`, or a command as a list of words.")
    control = EximControl(host, settings)
    made = [["update-exim4.conf"]] if control.is_generated else []
    return [
        (control.test_command, settings.test_timeout),
        *((one, settings.reload_timeout) for one in [*made, control.reload_command]),
    ]


def _postgresql(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = PostgresqlSettings.parse(server)
    if settings.reload == "signal":
        raise _signals("postgresql", "Set `reload: systemd`, or a command as a list of words.")
    control = PostgresqlControl(host, settings)
    systemd = settings.reload == "systemd"
    reload = ["systemctl", "reload", control.unit] if systemd else list(settings.reload)
    asked = [(control.asking(name), settings.test_timeout) for name in DEFAULTS]
    return [*asked, (reload, settings.reload_timeout)]


def _mariadb(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = MariadbSettings.parse(server)
    control = MariadbControl(host, settings)
    said = [] if settings.client_config else [control.client(one) for one in STATEMENTS]
    restart = {"systemd": [["systemctl", "restart", "mariadb"]], "never": []}
    started = restart.get(str(settings.restart), [list(settings.restart)])
    return [
        (control.test_command, settings.test_timeout),
        *((one, settings.reload_timeout) for one in [*said, *started]),
    ]


def _caddy(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = CaddySettings.parse(server)
    control = CaddyControl(host, settings)
    return [
        (control.test_command, settings.test_timeout),
        (control.reload_command, settings.reload_timeout),
    ]


def _tomcat(server: Mapping[str, object], host: Host) -> list[tuple[list[str], float]]:
    settings = TomcatSettings.parse(server)
    if settings.restart == "never":
        return []
    return [(list(TomcatControl(host, settings).restart_command), settings.reload_timeout)]


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
    "caddy": _caddy,
    "command": _command,
    "dovecot": _dovecot,
    "exim": _exim,
    "haproxy": _haproxy,
    "lighttpd": _lighttpd,
    "mariadb": _mariadb,
    "nginx": _nginx,
    "postfix": _postfix,
    "postgresql": _postgresql,
    "tomcat": _tomcat,
}
