"""Talk to the PostgreSQL program."""

from __future__ import annotations

import posixpath
import re
from functools import cached_property

from certrail.connectors import Host
from certrail.servers.pair import DatabaseControl, Value
from certrail.servers.postgresql.config import DEFAULTS, Configuration, read_configuration
from certrail.servers.postgresql.settings import PostgresqlSettings
from certrail.servers.program import Program, last_lines
from certrail.servers.target import only_one

CONFIGS = (
    "/etc/postgresql/*/*/postgresql.conf",
    "/var/lib/pgsql/data/postgresql.conf",
    "/var/lib/pgsql/*/data/postgresql.conf",
)
"""Where packages keep the file: Debian, one folder for each version and cluster; Red Hat and
SUSE; those of postgresql.org for Red Hat."""
_VERSIONED = re.compile(r"/var/lib/pgsql/(\d[\d.]*)/data/")
_VERSION = re.compile(r"/(\d[\d.]*)/")
_NAMES = ("postgres", "postmaster")
_BINARIES = ("/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres")
_TIME = re.compile(r"^\S+ \S+ \S+ \[\d+\] ", re.MULTILINE)


class PostgresqlControl(DatabaseControl):
    """One PostgreSQL on one host."""

    def __init__(self, host: Host, settings: PostgresqlSettings) -> None:
        self.program = Program(host, "PostgreSQL")
        self._host = host
        self._settings = settings

    @cached_property
    def config(self) -> str:
        """The main file.

        Raises:
            InvalidRequest: there are several, or none.
        """
        return self._settings.config or only_one(self._host, CONFIGS)

    def read(self) -> Configuration:
        """Read the configuration.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be read.
        """
        configuration = read_configuration(self._host, self.config)
        if configuration.hidden:
            self._ask_what_counts(configuration)
        return configuration

    def _ask_what_counts(self, configuration: Configuration) -> None:
        """Have the program tell what ``ALTER SYSTEM`` set, where only it may read that."""
        for name, default in DEFAULTS.items():
            ours = configuration.text(name, default)
            if name == "ssl":
                ours = "on" if configuration.ssl else "off"
            result = self.program.run(self.asking(name), self._settings.longest_test)
            counts = result.stdout.decode(errors="surrogateescape").rstrip("\n")
            if result.exit_code == 0 and counts != ours:
                configuration.settings[name] = Value(configuration.hidden, 0, 0, 0, counts)

    def version(self) -> str:
        """Return name and version, ``PostgreSQL 15.14``."""
        found = re.search(r"\(PostgreSQL\) (\S+)", self.program.run([self._binary, "-V"]).text)
        return f"PostgreSQL {found[1]}" if found else "PostgreSQL"

    def asking(self, name: str) -> list[str]:
        """Return the command that says what the setting *name* is; it reads the configuration."""
        argv = [self._binary, "-C", name, "-D", posixpath.dirname(self.config)]
        return [*argv, "-c", f"config_file={self.config}"]

    def test(self) -> str:
        """Return "" if PostgreSQL can read its configuration; it does not look at certificates."""
        return self.program.words(
            self.asking("ssl_cert_file"),
            self._settings.longest_test,
            said=lambda text: last_lines(_TIME.sub("", text)),
        )

    def reload(self) -> str:
        """Reload.

        The postmaster works in one thread and sees to a signal before it takes
        another connection, so the first client after this gets the new certificate.
        """
        return self.program.timed(self._reload)

    def data(self) -> str:
        """Return the data directory."""
        return self.read().data

    def _reload(self) -> str:
        limit = self._settings.longest_reload
        match self._settings.reload:
            case "signal":
                pid_file = posixpath.join(self.read().data, "postmaster.pid")
                master = self.program.process_of(pid_file, *_NAMES)
                if not master:
                    return f"PostgreSQL does not run: {pid_file} names no process of it"
                return self.program.words(["kill", "-HUP", str(master)], limit)
            case "systemd":
                return self.program.words(["systemctl", "reload", self.unit], limit)
            case command:
                return self.program.words(list(command), limit)

    @property
    def unit(self) -> str:
        """The service of systemd; Debian's reloads every cluster."""
        found = _VERSIONED.match(self.config)
        return f"postgresql-{found[1]}" if found else "postgresql"

    @property
    def _binary(self) -> str:
        if self._settings.binary:
            return self._settings.binary
        data = read_configuration(self._host, self.config).data
        pid_file = posixpath.join(data, "postmaster.pid")
        if master := self.program.process_of(pid_file, *_NAMES):
            found = self._host.run(["readlink", f"/proc/{master}/exe"])
            if path := found.stdout.decode(errors="surrogateescape").strip():
                return path
        installed = [path for pattern in _BINARIES for path in self._host.glob(pattern)]
        version = _VERSION.search(self.config)
        ends = tuple(f"{sign}{version[1]}/bin/postgres" for sign in "/-") if version else ()
        # Of several versions, the one whose cluster this is.
        same = [path for path in installed if path.endswith(ends)] if ends else []
        return (same or installed or ["postgres"])[-1]
