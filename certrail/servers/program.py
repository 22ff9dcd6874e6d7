"""Run a server's own program: test a configuration, reload, see that it lives on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from certrail.connectors import CommandResult, Host
from certrail.errors import NotFound, PermissionRefused
from certrail.log import effect, plain
from certrail.wait import Pending, until

_LONGEST = 600
_POLL = timedelta(milliseconds=50)
_SLOWEST_POLL = timedelta(seconds=1)


class Program:
    """A server's program on a host, and how its last reload went.

    Attributes:
        reload_seconds: how long the last reload took.
        verb: what was done to the server, for people: ``reloaded``, or ``restarted``
            where it cannot take over a certificate otherwise.
    """

    def __init__(self, host: Host, server: str) -> None:
        self.host = host
        self.server = server
        self.reload_seconds = 0.0
        self.verb = "reloaded"

    @property
    def told(self) -> str:
        """What was done to the server, for people."""
        return f"{self.verb} in {self.reload_seconds:.1f} s"

    def run(self, argv: Sequence[str], timeout: timedelta | None = None) -> CommandResult:
        """Run a command of the server's.

        Raises:
            NotFound: there is no such program.
        """
        result = self.host.run(argv, timeout=timeout)
        if result.exit_code == 127:
            raise NotFound(
                f"{argv[0]} cannot be run on {self.host.name}: {plain(result.text)[:200]}",
                remedy="Install it, or set `binary` of the endpoint's server to its path.",
                connector=self.host.name,
            )
        return result

    def words(
        self,
        argv: Sequence[str],
        timeout: timedelta,
        *,
        said: Callable[[str], str] | None = None,
    ) -> str:
        """Run *argv*; return "" if it succeeded, else what it *said*."""
        result = self.run(argv, timeout)
        if result.exit_code == 0:
            return ""
        text = (said or last_lines)(result.text)
        return text or f"{argv[0]}: exit code {result.exit_code}"

    def timed(self, reload: Callable[[], str], verb: str = "reloaded") -> str:
        """Do *reload*, keeping how long it took."""
        started = time.monotonic()
        self.verb = verb
        words = reload()
        self.reload_seconds = time.monotonic() - started
        effect(
            f"{self.server.lower().replace(' ', '-')}.{'reload' if verb == 'reloaded' else verb}",
            host=self.host.name,
            seconds=f"{self.reload_seconds:.2f}",
        )
        return words

    def process_of(self, pid_file: str, *names: str) -> int:
        """Return the process id in *pid_file* if a program of one of *names* has it, else 0."""
        try:
            first = self.host.read_file(pid_file).split()[:1] if pid_file else []
        except (NotFound, PermissionRefused):
            return 0
        if not first or not first[0].isdigit():
            return 0
        number = int(first[0])
        # The file may be stale, and the number another program's by now.
        found = self.host.run(["cat", f"/proc/{number}/comm"])
        return number if found.stdout.decode(errors="replace").strip() in names else 0

    def children(self, master: int) -> frozenset[int] | None:
        """Return the process ids of *master*'s children, None if it has ended."""
        places = [f"/proc/{master}/task/{master}/children", f"/proc/{master}/stat"]
        text = self.host.run(["cat", *places]).stdout.decode(errors="replace")
        found, _, stat = text.partition(f"{master} (")
        if not stat or stat.rpartition(") ")[2].startswith(("Z", "X")):
            return None
        return frozenset(int(word) for word in found.split() if word.isdigit())

    def wait_for_new_child(
        self, master: int, before: frozenset[int], within: timedelta, log: str = ""
    ) -> str:
        """Wait until *master* has a child that it had not before; "" or why that did not happen."""

        def ask() -> str | Pending:
            now = self.children(master)
            if now is None:
                where = f"; {log} says why" if log else "; its log says why"
                return f"{self.server} ended while it reloaded{where}"
            return "" if now - before else Pending()

        return wait(
            ask,
            within,
            f"no new process of {self.server} within {within.total_seconds():g} s; "
            "its log says why",
        )

    def listening_ports(self) -> frozenset[str]:
        """Return the TCP ports of the host on which something listens."""
        tables = self.host.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout
        return frozenset(
            str(int(row[1].rpartition(":")[2], 16))
            for row in listening_rows(tables.decode(errors="replace"))
        )


def wait(ask: Callable[[], str | Pending], within: timedelta, late: str) -> str:
    """Return what *ask* says, "" for success, or *late* if it stays pending for too long."""

    def over() -> Exception:
        return TimeoutError()

    try:
        return until(ask, timeout=within, interval=_POLL, slowest=_SLOWEST_POLL, late=over)
    except TimeoutError:
        return late


def listening_rows(table: str) -> list[list[str]]:
    """Return the fields of the listening sockets in a ``/proc/net/tcp`` (proc(5))."""
    rows = (line.split() for line in table.splitlines())
    return [row for row in rows if len(row) > 9 and row[3] == "0A"]


def last_lines(text: str) -> str:
    """Return the last lines of what a command said, without repetitions, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return plain("; ".join(dict.fromkeys(lines[-6:])))[:_LONGEST]
