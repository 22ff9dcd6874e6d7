"""Acting as root through sudo, without a terminal and without a question left open.

Two ways: everything as root, which needs a rule for any command; or the
account's own rights for all but the commands that sudo's rules list for it.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from certrail.connectors import CommandResult
from certrail.errors import AuthenticationFailed, PermissionRefused
from certrail.log import plain

# A command that outlives its caller's patience is ended on the host itself,
# with everything it started: ours may be the last chance to reach it. The
# directories are those that sshd's default PATH lacks for ordinary accounts.
_LAUNCH = (
    'PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin"; export PATH; '
    "s=$1; shift; "
    "if command -v timeout >/dev/null 2>&1; then exec timeout -k 5 "
    '"$s" "$@"; fi; exec "$@"'
)
# sudo reads a password only where its rules ask for one. Else the password is
# the first line that the command would see, so both lines are taken off first.
_SKIP_FIRST_LINE = 'IFS= read -r line; [ "$line" = "$1" ] || IFS= read -r line; unset line; shift; '
_GRACE = timedelta(seconds=2)
_KNOWN = "sudo -l "


def launched(argv: Sequence[str], timeout: timedelta) -> list[str]:
    """Return *argv* wrapped so that the host ends it soon after *timeout* by itself."""
    seconds = f"{(timeout + _GRACE).total_seconds():.0f}"
    return ["sh", "-c", _LAUNCH, "sh", seconds, *argv]


def handing_over(account: str, owner: str, path: str) -> list[str]:
    """Return the command by which root gives a file of *account* to *owner*.

    A rule that leaves *path* open lets the account give away its own files and no
    others, through links and other names too: chown(1) looks at what it has opened.
    """
    return ["chown", f"--from={account}", "--", owner, path]


Execute = Callable[[Sequence[str]], CommandResult]


class ListedCommands:
    """Which commands sudo's rules let the account run as root, asked of sudo itself.

    Nothing is wrapped in a shell: what runs under sudo is word for word what
    a line of sudoers(5) can list. ``TIMEOUT`` in that line ends a command that
    hangs, since the account may not signal what runs as root.
    """

    def __init__(self, known: MutableMapping[str, str] | None = None) -> None:
        """*known* keeps the answers; they stay true for a connection."""
        self._known: MutableMapping[str, str] = {} if known is None else known

    def as_root(self, argv: Sequence[str], execute: Execute) -> list[str]:
        """Return *argv* under sudo if its rules list it, else as it is."""
        program = argv[0].rpartition("/")[2]
        if self._asked("", execute, "-l") and self._mentions(program):
            question = shlex.join(argv)
            if self._asked(question, execute, "-l", "--", *argv):
                return ["sudo", "-n", "--", *argv]
        return list(argv)

    def _mentions(self, program: str) -> bool:
        rules = self._known[_KNOWN]
        return program in rules or "ALL" in rules.split()

    def _asked(self, question: str, execute: Execute, *arguments: str) -> str:
        key = f"{_KNOWN}{question}"
        if key not in self._known:
            result = execute(["sudo", "-n", *arguments])
            said = result.stdout.decode(errors="replace") if result.exit_code == 0 else ""
            self._known[key] = said
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Sudo:
    """How to become root: without a password, or with one on standard input."""

    password: str = field(default="", repr=False)

    def wrap(
        self, argv: Sequence[str], stdin: bytes, timeout: timedelta
    ) -> tuple[list[str], bytes]:
        """Return the command and the standard input that run *argv* as root."""
        inner = launched(argv, timeout)
        if not self.password:
            return ["sudo", "-n", "--", *inner], stdin
        mark = secrets.token_hex(8)
        script = _SKIP_FIRST_LINE + _LAUNCH
        guarded = ["sh", "-c", script, "sh", mark, *inner[4:]]
        head = f"{self.password}\n{mark}\n".encode()
        return ["sudo", "-S", "-p", "", "--", *guarded], head + stdin

    def probe(self) -> tuple[list[str], bytes]:
        """Return a harmless command that shows whether sudo works.

        A wrong password is tried once only, because input ends after it.
        """
        if not self.password:
            return ["sudo", "-n", "--", "true"], b""
        # -k: a password given a minute ago must not answer for this one.
        return ["sudo", "-k", "-S", "-p", "", "--", "true"], f"{self.password}\n".encode()

    def must_work(self, result: CommandResult, *, host: str) -> None:
        """Check what :meth:`probe` gave.

        Raises:
            AuthenticationFailed: the password is wrong.
            PermissionRefused: sudo is missing, or does not let this account act.
        """
        if result.exit_code == 0:
            return
        said = plain(result.text)[-300:]
        if result.exit_code == 127:
            raise PermissionRefused(
                f"sudo is not installed on {host}",
                remedy="Install sudo there, or log in as root.",
                connector=host,
            )
        if self.password and "incorrect password" in said:
            raise AuthenticationFailed(
                f"sudo on {host} refused the password",
                remedy="Correct `sudo_password` of the connector.",
                connector=host,
            )
        raise PermissionRefused(
            f"sudo on {host} does not let the account act as root: {said}",
            remedy="Add a rule `ACCOUNT ALL=(root) NOPASSWD: ALL` with visudo, set "
            "`sudo_password`, or list single commands there and set `sudo_listed`.",
            connector=host,
        )
