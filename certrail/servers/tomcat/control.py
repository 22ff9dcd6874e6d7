"""Make Tomcat take over certificates: through its manager, or by a restart."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from functools import cached_property

from certrail.connectors import Host
from certrail.log import effect
from certrail.servers.program import Program, last_lines, wait
from certrail.servers.target import ProgramControl, only_one
from certrail.servers.tomcat.config import Configuration, base_of
from certrail.servers.tomcat.settings import TomcatSettings
from certrail.servers.tomcat.xml import problem
from certrail.wait import Pending

CONFIGS = (
    "/etc/tomcat*/server.xml",
    "/etc/tomcat/server.xml",
    "/opt/tomcat/conf/server.xml",
    "/usr/local/tomcat/conf/server.xml",
)
"""Where packages, images and most people keep it."""


class TomcatControl(ProgramControl):
    """One Tomcat on one host.

    Attributes:
        edited: whether server.xml has changed, which Tomcat reads only when it starts.
    """

    edited = False

    def __init__(self, host: Host, settings: TomcatSettings) -> None:
        self.program = Program(host, "Tomcat")
        self._host = host
        self._settings = settings

    @cached_property
    def config(self) -> str:
        """``server.xml``.

        Raises:
            InvalidRequest: there are several, or none.
        """
        return self._settings.config or only_one(self._host, CONFIGS)

    def read(self) -> Configuration:
        """Read ``server.xml``.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be read.
        """
        data = self._host.read_file(self.config)
        return Configuration.read(self.config, data, self._settings.base)

    def version(self) -> str:
        """Return the program's name."""
        return "Tomcat"

    def account(self) -> str:
        """Return the account that this Tomcat runs as, "" where that cannot be told."""
        base = self.read().base
        mark = f"-Dcatalina.base={base}"
        found = self._host.run(["ps", "-eo", "euser:32=,args="]).stdout
        for line in found.decode(errors="surrogateescape").splitlines():
            words = line.split()
            if mark in words:
                return "" if words[0] == "root" else words[0]
        return ""

    def test(self) -> str:
        """Return "" if ``server.xml`` is well formed; Tomcat has no test that says more at once."""
        wrong = problem(self._host.read_file(self.config))
        return f"{self.config}, {wrong}" if wrong else ""

    def reload(self) -> str:
        """Take over the certificate: through the manager, or by a restart where it must be."""
        if self._settings.manager and not self.edited:
            words = self.program.timed(self._ask_manager)
            if not words:
                return ""
            effect("tomcat.manager-refused", host=self._host.name, cause=words)
        else:
            words = "server.xml is read only when Tomcat starts" if self.edited else "no `manager`"
        if self._settings.restart == "never":
            return f"it needs a restart ({words}), and `restart: never` is set"
        return self.program.timed(self._restart, "restarted")

    def _ask_manager(self) -> str:
        """Ask for ``sslReload`` (Tomcat's "Manager App How-To"); the login never shows."""
        limit = self._settings.longest_reload
        login = ["--netrc-file", self._settings.manager_netrc]
        argv = ["curl", "--silent", "--show-error", "--fail"]
        argv += login if self._settings.manager_netrc else []
        result = self._host.run([*argv, f"{self._settings.manager}/text/sslReload"], timeout=limit)
        said = result.stdout.decode(errors="replace").strip()
        if result.exit_code == 0 and said.startswith("OK"):
            return ""
        return last_lines(result.text) or f"curl: exit code {result.exit_code}"

    @property
    def restart_command(self) -> Sequence[str]:
        """What restarts it."""
        match self._settings.restart:
            case "systemd" | "never":
                base = self._settings.base or base_of(self.config)
                name = posixpath.basename(base)
                return ["systemctl", "restart", name if name.startswith("tomcat") else "tomcat"]
            case command:
                return command

    def _restart(self) -> str:
        limit = self._settings.longest_reload
        if words := self.program.words(self.restart_command, limit):
            return words
        ports = {host.port for host in self.read().hosts}

        def ask() -> str | Pending:
            return "" if ports <= self.program.listening_ports() else Pending()

        shown, seconds = ", ".join(sorted(ports)), f"{limit.total_seconds():g} s"
        late = f"it does not listen on {shown} {seconds} after its restart; its log says why"
        return wait(ask, limit, late)
