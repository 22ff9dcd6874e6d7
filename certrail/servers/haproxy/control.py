"""Talk to the haproxy program: test a configuration, reload, see that a new worker took over."""

from __future__ import annotations

import posixpath
import re
import time

from certrail.connectors import Host
from certrail.log import plain
from certrail.servers.haproxy.settings import HaproxySettings
from certrail.servers.program import Program, wait
from certrail.servers.target import ProgramControl
from certrail.wait import Pending

_ALERT = re.compile(r"\[ALERT\]\s+\(\d+\) : (?:config : )?(.*)")
_SUMMARIES = ("Error(s) found", "Fatal errors found")
_LEAVING_SECONDS = 1.0
_LONGEST = 600


def words_of(text: str) -> str:
    """Return what HAProxy complains about, without prefixes, summaries and repetitions."""
    found = [match[1] for line in text.splitlines() if (match := _ALERT.search(line))]
    found = [line for line in found if not line.startswith(_SUMMARIES)] or found
    lines = found or [line for line in text.splitlines() if line.strip()]
    return plain("; ".join(dict.fromkeys(line.strip() for line in lines)))[:_LONGEST]


class HaproxyControl(ProgramControl):
    """One HAProxy on one host."""

    def __init__(self, host: Host, settings: HaproxySettings) -> None:
        self.program = Program(host, "HAProxy")
        self._settings = settings

    def version(self) -> str:
        """Return the program's name and version, ``HAProxy 2.6.12``.

        Raises:
            NotFound: there is no such program.
        """
        first = self.program.run([self._settings.binary, "-v"]).text.split("\n")[0]
        return plain(" ".join(first.replace(" version ", " ").split(" ")[:2])).split("-")[0]

    def test(self) -> str:
        """Return "" if HAProxy accepts the configuration, else its own words."""
        argv = [self._settings.binary, "-c", "-f", self._settings.config]
        return self.program.words(argv, self._settings.longest_test, said=words_of)

    def reload(self) -> str:
        """Reload and wait until a new worker serves and the old ones have let go.

        The signal returns before anything is read, and a master that fails
        goes on with its old worker, so the exit code alone says little. Where
        the processes cannot be seen, it is all there is.
        """
        return self.program.timed(self._reload)

    def _reload(self) -> str:
        names = ("haproxy", posixpath.basename(self._settings.binary))
        master = self.program.process_of(self._settings.pid_file, *names)
        before = self._children(master)
        if self._settings.reload == "signal" and not before:
            return (
                f"no master process with a worker is found through {self._settings.pid_file}; "
                "start HAProxy with -W, or set `pid_file` or `reload`"
            )
        argv = self._reload_command(master)
        if words := self.program.words(argv, self._settings.longest_reload, said=words_of):
            return words
        return self._wait_for_new_worker(master, before) if before else ""

    def _reload_command(self, master: int) -> list[str]:
        match self._settings.reload:
            case "signal":
                return ["kill", "-USR2", str(master)]
            case "systemd":
                return ["systemctl", "reload", "haproxy"]
            case command:
                return list(command)

    def _wait_for_new_worker(self, master: int, before: frozenset[int]) -> str:
        seen: frozenset[int] = frozenset()
        since = 0.0

        def ask() -> str | Pending:
            nonlocal seen, since
            now = self._children(master)
            # From 3.1 on the worker itself reads the configuration and ends if it cannot,
            # so a new one counts when it is still there at the second look.
            steady = seen & (now - before)
            since = (since or time.monotonic()) if steady else 0.0
            seen = now - before
            # An old worker lets go of its sockets at once but stays for open connections.
            left = not now & before
            gone = steady and (left or time.monotonic() - since > _LEAVING_SECONDS)
            return "" if gone else Pending()

        seconds = f"{self._settings.reload_timeout:g} s"
        late = f"no new worker process within {seconds}; its log says why"
        return wait(ask, self._settings.longest_reload, late)

    def _children(self, master: int) -> frozenset[int]:
        return (self.program.children(master) or frozenset()) if master else frozenset()
