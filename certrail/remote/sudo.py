"""Acting as root through sudo, without a terminal and without a question left open."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
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


def launched(argv: Sequence[str], timeout: timedelta) -> list[str]:
    """Return *argv* wrapped so that the host ends it soon after *timeout* by itself."""
    seconds = f"{(timeout + _GRACE).total_seconds():.0f}"
    return ["sh", "-c", _LAUNCH, "sh", seconds, *argv]


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
            remedy="Add a rule `ACCOUNT ALL=(root) NOPASSWD: ALL` with visudo, "
            "or set `sudo_password`.",
            connector=host,
        )
