"""Talk to the Apache program: test a configuration, reload, see that it lives on."""

from __future__ import annotations

import posixpath
import re
from functools import cached_property

from certrail.connectors import Host
from certrail.errors import CertrailError
from certrail.log import plain
from certrail.servers.apache.settings import CONFIGS, ApacheSettings
from certrail.servers.apache.tree import Reader
from certrail.servers.program import Program
from certrail.servers.target import ProgramControl, first_existing

_DEBIAN = "/etc/apache2/apache2.conf"
_NOISE = re.compile(r"(AH00558|AH00557|Action '|The Apache error log|Syntax OK)")
_PREFIX = re.compile(r"^\[[^]]*\] (\[[^]]*\] )*|^AH\d+: ")
_DUMPED = re.compile(r"\((/[^()]*):(\d+)\)\s*$", re.MULTILINE)
_NAMES = ("apache2", "httpd")
_LONGEST = 600


def words_of(text: str) -> str:
    """Return what Apache complains about, without notes about itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [_PREFIX.sub("", line) for line in lines if not _NOISE.search(line)]
    return plain("; ".join(dict.fromkeys(found)))[:_LONGEST]


class ApacheControl(ProgramControl):
    """One Apache on one host."""

    def __init__(self, host: Host, settings: ApacheSettings) -> None:
        self.program = Program(host, "Apache")
        self._host = host
        self._settings = settings
        self._built_in: frozenset[str] | None = None

    @cached_property
    def config(self) -> str:
        """The main configuration file."""
        return self._settings.config or first_existing(self._host, CONFIGS) or CONFIGS[0]

    @property
    def unit(self) -> str:
        """The service of systemd: Debian and SUSE name it by the folder."""
        return "apache2" if self.config.startswith("/etc/apache2/") else "httpd"

    @property
    def _binary(self) -> str:
        if self._settings.binary:
            return self._settings.binary
        return "apache2ctl" if self.config == _DEBIAN else "httpd"

    def command(self, *arguments: str) -> list[str]:
        """Return the server's own command with *arguments*."""
        own = ["-f", self._settings.config] if self._settings.config not in ("", _DEBIAN) else []
        return [self._binary, *own, *arguments]

    def version(self) -> str:
        """Return the program's name and version, ``Apache/2.4.62``.

        Raises:
            NotFound: there is no such program.
        """
        text = self.program.run([self._binary, "-v"]).text
        found = re.search(r"Apache/[\d.]+", text)
        return found[0] if found else "Apache"

    def test(self) -> str:
        """Return "" if Apache accepts the configuration, else its own words."""
        return self.program.words(self.command("-t"), self._settings.longest_test, said=words_of)

    def virtual_hosts(self) -> frozenset[tuple[str, int]] | None:
        """Return file and line of each virtual host that Apache itself sees, None if it fails."""
        result = self.program.run(self.command("-t", "-D", "DUMP_VHOSTS"))
        if result.exit_code != 0:
            return None
        text = result.stdout.decode(errors="surrogateescape")
        return frozenset((path, int(line)) for path, line in _DUMPED.findall(text))

    def read(self) -> Reader:
        """Read the configuration with everything it includes.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be read.
        """
        return Reader(
            self._host,
            self.config,
            environment=self._environment(),
            built_in=self._modules,
            version=lambda: self.version().removeprefix("Apache/"),
        ).read()

    def reload(self) -> str:
        """Reload gracefully and wait until a new child process serves.

        Apache passes a key that does not fit in its test and ends in the reload,
        so that its being alive is part of what is waited for.
        """
        return self.program.timed(self._reload)

    def _reload(self) -> str:
        pid_file, log = self._files()
        master = self.program.process_of(pid_file, *_NAMES)
        before = self.program.children(master) if master else None
        argv: list[str]
        match self._settings.reload:
            case "graceful":
                argv = self.command("-k", "graceful")
            case "systemd":
                argv = ["systemctl", "reload", self.unit]
            case command:
                argv = list(command)
        limit = self._settings.longest_reload
        words = self.program.words(argv, limit, said=words_of)
        if words or before is None:
            return words
        return self.program.wait_for_new_child(master, before, limit, log)

    def _files(self) -> tuple[str, str]:
        """Return the paths of the pid file and of the error log, "" where not known."""
        try:
            reader = self.read()
        except CertrailError:
            return self._settings.pid_file, ""
        pid_file = self._settings.pid_file or reader.main.last("pidfile")
        default = "run/httpd.pid" if self.config != _DEBIAN else "/run/apache2/apache2.pid"
        log = reader.main.last("errorlog")
        return (
            reader.full_name(pid_file or default),
            reader.full_name(log) if log and not log.startswith(("|", "syslog")) else "",
        )

    def _environment(self) -> dict[str, str]:
        """Return what Debian's ``envvars`` sets, as apache2ctl does before every start."""
        path = posixpath.join(posixpath.dirname(self.config), "envvars")
        if self._host.info(path) is None:
            return {}
        script = '. "$1" >/dev/null 2>&1; exec env -0'
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        result = self._host.run([*clean, "sh", "-c", script, "sh", path])
        pairs = (one.partition("=") for one in result.stdout.decode(errors="replace").split("\0"))
        return {name: value for name, _, value in pairs if name and name not in ("PATH", "_")}

    def _modules(self) -> frozenset[str]:
        if self._built_in is None:
            text = self.program.run([self._binary, "-l"]).text
            self._built_in = frozenset(re.findall(r"^\s+(\S+\.c)$", text, re.MULTILINE))
        return self._built_in
