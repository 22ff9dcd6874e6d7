"""Talk to the nginx program: test a configuration, reload, and see that it was taken over."""

from __future__ import annotations

import posixpath
import re
import time
from dataclasses import dataclass
from datetime import timedelta

from certrail.connectors import CommandResult, Host
from certrail.errors import CertrailError, NotFound, PermissionRefused
from certrail.log import effect, plain
from certrail.servers.nginx.settings import NginxSettings
from certrail.servers.nginx.tree import parse
from certrail.wait import Pending, until

_LEVEL = re.compile(r"\[(emerg|alert|crit|error)\] (?:\d+#\d+: )?(?:\*\d+ )?(.*)")
_COMPILED = re.compile(r"--(prefix|pid-path|error-log-path)=(\S+)")
_POLL = timedelta(milliseconds=50)
_SLOWEST_POLL = timedelta(seconds=1)
_LONGEST = 600


def words_of(text: str) -> str:
    """Return what nginx complains about, without its log prefixes and repetitions."""
    found = [match[2] for line in text.splitlines() if (match := _LEVEL.search(line))]
    lines = found or [line for line in text.splitlines() if line.strip()]
    return plain("; ".join(dict.fromkeys(line.strip() for line in lines)))[:_LONGEST]


@dataclass(frozen=True, slots=True)
class _Running:
    """The nginx that runs: master, its children, and how long its error log is."""

    master: int
    children: frozenset[int]
    log: str
    log_size: int


class NginxControl:
    """One nginx on one host.

    Attributes:
        reload_seconds: how long the last reload took until new workers served.
    """

    def __init__(self, host: Host, settings: NginxSettings) -> None:
        self._host = host
        self._settings = settings
        self._built_in: dict[str, str] = {}
        self.reload_seconds = 0.0

    def version(self) -> str:
        """Return the program's own name and version, ``nginx/1.22.1``.

        Raises:
            NotFound: there is no such program.
        """
        result = self._run([self._settings.binary, "-v"])
        return plain(result.text.rpartition("version: ")[2]).split(" ")[0]

    def test(self) -> str:
        """Return "" if nginx accepts the configuration, else its own words."""
        result = self._run(self._command("-t"), timeout=self._settings.longest_test)
        if result.exit_code == 0:
            return ""
        return words_of(result.text) or f"exit code {result.exit_code}"

    def reload(self) -> str:
        """Reload and wait until only new workers take connections.

        ``nginx -s reload`` returns before the master process has read
        anything, and a master that fails to (a port in use, a file its
        account cannot read) goes on with the old configuration, so the exit
        code alone says little. Where the processes cannot be seen, the exit
        code is all there is.
        """
        started = time.monotonic()
        before = self._running()
        result = self._run(self._reload_command(), timeout=self._settings.longest_reload)
        if result.exit_code != 0:
            return words_of(result.text) or f"reload: exit code {result.exit_code}"
        words = self._wait_for_new_workers(before) if before else ""
        self.reload_seconds = time.monotonic() - started
        effect("nginx.reload", host=self._host.name, seconds=f"{self.reload_seconds:.2f}")
        return words

    def _reload_command(self) -> list[str]:
        settings = self._settings
        if settings.reload == "systemd":
            return ["systemctl", "reload", "nginx"]
        if settings.reload != "signal":
            return list(settings.reload)
        if settings.pid_file and (master := self._master(settings.pid_file)):
            return ["kill", "-HUP", str(master)]
        return self._command("-s", "reload")

    def _command(self, *arguments: str) -> list[str]:
        settings = self._settings
        prefix = ["-p", settings.prefix] if settings.prefix else []
        return [settings.binary, *prefix, "-c", settings.config, *arguments]

    def _run(self, argv: list[str], timeout: timedelta | None = None) -> CommandResult:
        result = self._host.run(argv, timeout=timeout)
        if result.exit_code == 127:
            raise NotFound(
                f"{argv[0]} cannot be run on {self._host.name}: {plain(result.text)[:200]}",
                remedy="Install it, or set `binary` of the endpoint's server to its path.",
                connector=self._host.name,
            )
        return result

    def _wait_for_new_workers(self, before: _Running) -> str:
        """Return "" once new workers took over, else why they did not."""

        def ask() -> str | Pending:
            children = self._children(before.master)
            if children - before.children and not self._accepting(children & before.children):
                return ""
            # A port in use is tried again for a while; everything else is final.
            words = self._complaints(before)
            return words if words and "bind() to" not in words else Pending()

        try:
            return until(
                ask,
                timeout=self._settings.longest_reload,
                interval=_POLL,
                slowest=_SLOWEST_POLL,
                late=TimeoutError,
            )
        except TimeoutError:
            return self._complaints(before) or (
                f"no new worker process within {self._settings.reload_timeout:g} s; "
                "its error log says why"
            )

    def _running(self) -> _Running | None:
        """Return what runs now, None where that cannot be seen."""
        main = self._main_level()
        pid = self._settings.pid_file or self._full_name(main.get("pid", ""), "pid-path")
        master = self._master(pid)
        if master and not self._is_nginx(master):
            # A stale pid file: the number belongs to another program by now.
            return None
        children = self._children(master) if master else frozenset()
        if not children:
            return None
        log = self._full_name(main.get("error_log", ""), "error-log-path")
        info = self._host.info(log) if log.startswith("/") else None
        if info is None or info.kind != "file":
            return _Running(master, children, "", 0)
        return _Running(master, children, log, info.size)

    def _main_level(self) -> dict[str, str]:
        """Return the simple directives of nginx.conf itself; nothing if it cannot be read."""
        path = self._settings.config
        try:
            directives = parse(self._host.read_file(path), path)
        except CertrailError:
            return {}
        return {one.name: one.arguments[0] for one in directives if one.arguments}

    def _full_name(self, path: str, built_in: str) -> str:
        """Return where a path of the main level is; relative ones are relative to the prefix."""
        if path.startswith("/"):
            return path
        if not self._built_in:
            text = self._run([self._settings.binary, "-V"]).text
            self._built_in = dict(_COMPILED.findall(text))
        if not path:
            path = self._built_in.get(built_in, "")
        prefix = self._settings.prefix or self._built_in.get("prefix", "")
        return posixpath.join(prefix, path) if path and prefix else path

    def _master(self, pid_file: str) -> int:
        try:
            text = self._host.read_file(pid_file).strip() if pid_file.startswith("/") else b""
        except (NotFound, PermissionRefused):
            return 0
        return int(text) if text.isdigit() else 0

    def _is_nginx(self, process: int) -> bool:
        result = self._host.run(["grep", "-l", ": master process", f"/proc/{process}/cmdline"])
        return result.exit_code == 0

    def _children(self, master: int) -> frozenset[int]:
        result = self._host.run(["cat", f"/proc/{master}/task/{master}/children"])
        return frozenset(int(word) for word in result.stdout.split() if word.isdigit())

    def _accepting(self, workers: frozenset[int]) -> frozenset[int]:
        """Return which of the old *workers* still take connections, by their process titles."""
        if not workers:
            return workers
        files = {f"/proc/{worker}/cmdline": worker for worker in workers}
        leaving = self._host.run(["grep", "-l", "shutting down", *files]).stdout.decode().split()
        return frozenset(worker for path, worker in files.items() if path not in leaving)

    def _complaints(self, before: _Running) -> str:
        """Return what the master wrote to its error log since, "" if nothing."""
        if not before.log:
            return ""
        result = self._host.run(["tail", "-c", f"+{before.log_size + 1}", before.log])
        emergencies = [
            line
            for line in result.stdout.decode(errors="replace").splitlines()
            if f"[emerg] {before.master}#" in line
        ]
        return words_of("\n".join(emergencies))
