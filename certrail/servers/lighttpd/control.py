"""Talk to the lighttpd program: test a configuration, print it, restart."""

from __future__ import annotations

import re
from datetime import timedelta

from certrail.connectors import Host
from certrail.errors import NotFound, PermissionRefused
from certrail.servers.lighttpd.config import Configuration, parse, read_configuration
from certrail.servers.lighttpd.settings import LighttpdSettings
from certrail.servers.program import Program, wait
from certrail.servers.target import ProgramControl
from certrail.wait import Pending

_STARTED = b"server started"
_FLAGS, _IN_BACKGROUND = "server.feature-flags", "server.graceful-restart-bg"
# https://redmine.lighttpd.net/projects/lighttpd/wiki/Server_feature-flagsDetails
_ENABLED = re.compile(rb'"server\.graceful-restart-bg"\s*=>\s*"?(?:enabled?|true|1)\b')


class LighttpdControl(ProgramControl):
    """One lighttpd on one host."""

    def __init__(self, host: Host, settings: LighttpdSettings) -> None:
        self.program = Program(host, "lighttpd")
        self._host = host
        self._settings = settings

    def version(self) -> str:
        """Return name and version, ``lighttpd/1.4.69``."""
        found = re.match(r"lighttpd/[\d.]+", self.program.run([self._settings.binary, "-v"]).text)
        return found[0] if found else "lighttpd"

    def read(self) -> Configuration:
        """Read the files of the configuration.

        Raises:
            NotFound: there are none.
            InvalidRequest: they cannot be understood.
        """
        return read_configuration(self._host, self._settings.config)

    def printed(self) -> Configuration:
        """Return the configuration as lighttpd sees it, with what commands add to it."""
        result = self.program.run([self._settings.binary, "-p", "-f", self._settings.config])
        return parse(result.stdout, "lighttpd -p")

    def test(self) -> str:
        """Return "" if lighttpd accepts its configuration, certificates and keys too."""
        argv = [self._settings.binary, "-tt", "-f", self._settings.config]
        return self.program.words(argv, self._settings.longest_test)

    def reload(self) -> str:
        """Make lighttpd start anew; after a signal, open connections are served to their end."""
        return self.program.timed(self._reload, "restarted")

    def _reload(self) -> str:
        limit = self._settings.longest_reload
        match self._settings.reload:
            case "systemd":
                return self.program.words(["systemctl", "restart", "lighttpd"], limit)
            case "signal":
                return self._signal(limit)
            case command:
                return self.program.words(list(command), limit)

    def _signal(self, limit: timedelta) -> str:
        printed = self.printed()
        master = self.program.process_of(printed.get((), "server.pid-file"), "lighttpd")
        log = printed.get((), "server.errorlog")
        account = printed.get((), "server.username")
        if not master or not log:
            missing = "server.errorlog" if master else "a running process in server.pid-file"
            return f"the configuration names no {missing}, which `reload: signal` needs"
        if account not in ("", "root", self._settings.key_owner):
            return (
                f"after the signal lighttpd reads keys as {account}: set `key_owner: {account}`, "
                "or `reload: systemd`"
            )
        if not _ENABLED.search(printed.written((), _FLAGS)):
            # Measured: it then ends the open connections first, and answers nobody new meanwhile.
            return (
                "after the signal lighttpd answers nobody new until the last open connection has "
                f'ended: write `{_FLAGS} += ( "{_IN_BACKGROUND}" => "enable" )` and '
                '`server.systemd-socket-activation = "enable"` (lighttpd 1.4.56 or later) and '
                "restart it once, or set `reload: systemd`"
            )
        before = self._starts(log)
        if words := self.program.words(["kill", "-USR1", str(master)], limit):
            return words

        def ask() -> str | Pending:
            if self.program.children(master) is None:
                return f"lighttpd ended while it started anew; {log} says why"
            return "" if self._starts(log) > before else Pending()

        seconds = f"{limit.total_seconds():g} s"
        return wait(ask, limit, f"lighttpd did not start anew within {seconds}; {log} says why")

    def _starts(self, log: str) -> int:
        try:
            return self._host.read_file(log).count(_STARTED)
        except (NotFound, PermissionRefused):
            return 0
