"""Talk to the haproxy program: test a configuration, reload, see that a new worker took over."""

from __future__ import annotations

import re
import time
from datetime import timedelta

from certrail.connectors import CommandResult, Host
from certrail.errors import NotFound, PermissionRefused
from certrail.log import effect, plain
from certrail.servers.haproxy.settings import HaproxySettings
from certrail.wait import Pending, until

_ALERT = re.compile(r"\[ALERT\]\s+\(\d+\) : (?:config : )?(.*)")
_SUMMARIES = ("Error(s) found", "Fatal errors found")
_POLL = timedelta(milliseconds=60)
_SLOWEST_POLL = timedelta(seconds=1)
_LEAVING_SECONDS = 1.0
_LONGEST = 600


def words_of(text: str) -> str:
    """Return what HAProxy complains about, without prefixes, summaries and repetitions."""
    found = [match[1] for line in text.splitlines() if (match := _ALERT.search(line))]
    found = [line for line in found if not line.startswith(_SUMMARIES)] or found
    lines = found or [line for line in text.splitlines() if line.strip()]
    return plain("; ".join(dict.fromkeys(line.strip() for line in lines)))[:_LONGEST]


class HaproxyControl:
    """One HAProxy on one host.

    Attributes:
        reload_seconds: how long the last reload took until a new worker served.
    """

    def __init__(self, host: Host, settings: HaproxySettings) -> None:
        self._host = host
        self._settings = settings
        self.reload_seconds = 0.0

    def version(self) -> str:
        """Return the program's name and version, ``HAProxy 2.6.12``.

        Raises:
            NotFound: there is no such program.
        """
        first = self._run([self._settings.binary, "-v"]).text.split("\n")[0]
        return plain(" ".join(first.replace(" version ", " ").split(" ")[:2])).split("-")[0]

    def test(self) -> str:
        """Return "" if HAProxy accepts the configuration, else its own words."""
        argv = [self._settings.binary, "-c", "-f", self._settings.config]
        result = self._run(argv, timeout=self._settings.longest_test)
        if result.exit_code == 0:
            return ""
        return words_of(result.text) or f"exit code {result.exit_code}"

    def reload(self) -> str:
        """Reload and wait until a new worker serves and the old ones have let go.

        The signal returns before anything is read, and a master that fails
        goes on with its old worker, so the exit code alone says little. Where
        the processes cannot be seen, it is all there is.
        """
        started = time.monotonic()
        master = self._master()
        before = self._children(master)
        if self._settings.reload == "signal" and not before:
            return (
                f"no master process with a worker is found through {self._settings.pid_file}; "
                "start HAProxy with -W, or set `pid_file` or `reload`"
            )
        result = self._run(self._reload_command(master), timeout=self._settings.longest_reload)
        if result.exit_code != 0:
            return words_of(result.text) or f"reload: exit code {result.exit_code}"
        words = self._wait_for_new_worker(master, before) if before else ""
        self.reload_seconds = time.monotonic() - started
        effect("haproxy.reload", host=self._host.name, seconds=f"{self.reload_seconds:.2f}")
        return words

    def _reload_command(self, master: int) -> list[str]:
        match self._settings.reload:
            case "signal":
                return ["kill", "-USR2", str(master)]
            case "systemd":
                return ["systemctl", "reload", "haproxy"]
            case command:
                return list(command)

    def _run(self, argv: list[str], timeout: timedelta | None = None) -> CommandResult:
        result = self._host.run(argv, timeout=timeout)
        if result.exit_code == 127:
            raise NotFound(
                f"{argv[0]} cannot be run on {self._host.name}: {plain(result.text)[:200]}",
                remedy="Install it, or set `binary` of the endpoint's server to its path.",
                connector=self._host.name,
            )
        return result

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

        try:
            return until(
                ask,
                timeout=self._settings.longest_reload,
                interval=_POLL,
                slowest=_SLOWEST_POLL,
                late=TimeoutError,
            )
        except TimeoutError:
            return (
                f"no new worker process within {self._settings.reload_timeout:g} s; "
                "its log says why"
            )

    def _master(self) -> int:
        """Return the master's process id, 0 where it cannot be told."""
        path = self._settings.pid_file
        try:
            first = self._host.read_file(path).split()[:1] if path else []
        except (NotFound, PermissionRefused):
            return 0
        if not first or not first[0].isdigit():
            return 0
        number = int(first[0])
        # The file may be stale, and the number another program's by now.
        found = self._host.run(["grep", "-l", "haproxy", f"/proc/{number}/cmdline"])
        return number if found.exit_code == 0 else 0

    def _children(self, master: int) -> frozenset[int]:
        if not master:
            return frozenset()
        result = self._host.run(["cat", f"/proc/{master}/task/{master}/children"])
        return frozenset(int(word) for word in result.stdout.split() if word.isdigit())
