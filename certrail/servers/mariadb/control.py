"""Talk to the MariaDB programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from certrail.connectors import Host
from certrail.servers.mariadb.config import Configuration, read_configuration
from certrail.servers.mariadb.settings import MariadbSettings
from certrail.servers.pair import DatabaseControl
from certrail.servers.program import Program, last_lines, wait
from certrail.servers.target import first_existing
from certrail.wait import Pending

CONFIGS = ("/etc/my.cnf", "/etc/mysql/my.cnf")
"""Where the server looks itself; Red Hat has the first, Debian the second."""
_ASKED = "SELECT @@ssl_cert, @@ssl_key, @@port, COALESCE(@@bind_address, '*'), @@datadir"
_FLUSH = "FLUSH SSL"
_NOTHING = "DO 0"
STATEMENTS = (_ASKED, _FLUSH, _NOTHING)
"""Everything that a server is told."""


class MariadbControl(DatabaseControl):
    """One MariaDB on one host."""

    def __init__(self, host: Host, settings: MariadbSettings) -> None:
        self.program = Program(host, "MariaDB")
        self._host = host
        self._settings = settings
        self._version = ""

    @cached_property
    def config(self) -> str:
        """The option file."""
        return self._settings.config or first_existing(self._host, CONFIGS) or CONFIGS[0]

    def read(self) -> Configuration:
        """Read the option files.

        Raises:
            NotFound: there are none.
            InvalidRequest: they cannot be read.
        """
        if not self._version:
            found = re.match(r"MariaDB (\d+\.\d+)", self.version())
            self._version = found[1] if found else "unknown"
        return read_configuration(self._host, self.config, self._version)

    def version(self) -> str:
        """Return name and version, ``MariaDB 10.11.14``."""
        found = re.search(r"Ver (\d[\d.]*)", self.program.run([self._settings.binary, "-V"]).text)
        return f"MariaDB {found[1]}" if found else "MariaDB"

    @property
    def test_command(self) -> list[str]:
        """What tests the options."""
        return [self._settings.binary, f"--defaults-file={self.config}", "--verbose", "--help"]

    def test(self) -> str:
        """Return "" if the server knows all of its options; it does not look at certificates."""
        return self.program.words(self.test_command, self._settings.longest_test, said=_errors)

    def running(self) -> tuple[str, ...]:
        """Return certificate, key, port, address and data directory of the running server.

        Empty if it does not answer.
        """
        result = self.program.run(self.client(_ASKED), self._settings.longest_reload)
        if result.exit_code != 0:
            return ()
        text = result.stdout.decode(errors="surrogateescape").rstrip("\n")
        return tuple("" if one == "NULL" else one for one in text.split("\t"))

    def data(self) -> str:
        """Return the data directory."""
        return self.read().text("datadir", "/var/lib/mysql")

    def reload(self) -> str:
        """Make the server read its certificate: ``FLUSH SSL`` where it names the file already.

        The server reads the names only when it starts; where they are others it is restarted.
        """
        configuration = self.read()
        wanted = (configuration.text("ssl_cert"), configuration.text("ssl_key"))
        off = configuration.ssl_off is not None
        if self.running()[:2] == wanted and not off:
            return self.program.timed(lambda: self._say(_FLUSH))
        return self.program.timed(self._restart, "restarted")

    def _restart(self) -> str:
        argv: Sequence[str]
        match self._settings.restart:
            case "never":
                return (
                    "it reads the names of its files only when it starts, and `restart: never` "
                    "is set"
                )
            case "systemd":
                argv = ["systemctl", "restart", "mariadb"]
            case command:
                argv = command
        limit = self._settings.longest_reload
        if words := self.program.words(argv, limit):
            return words

        def ask() -> str | Pending:
            return Pending() if self._say(_NOTHING) else ""

        seconds = f"{limit.total_seconds():g} s"
        return wait(ask, limit, f"it did not answer within {seconds} after its restart")

    def _say(self, statement: str) -> str:
        return self.program.words(
            self.client(statement), self._settings.longest_reload, said=_errors
        )

    def client(self, statement: str) -> list[str]:
        """Return the command that has the server do *statement*."""
        config = self._settings.client_config or self.config
        client = [self._settings.client, f"--defaults-file={config}"]
        return [*client, "--batch", "--skip-column-names", f"--execute={statement}"]


def _errors(text: str) -> str:
    kept = [line for line in text.splitlines() if "ERROR" in line]
    return last_lines("\n".join(re.sub(r"^\S+ +\S+ \d+ (?=\[)", "", line) for line in kept) or text)
