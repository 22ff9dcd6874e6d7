"""A host whose files are reached through its own commands.

Used where nothing better is at hand: an account that acts through sudo, or a
server without SFTP. GNU coreutils and findutils or BusyBox are enough. Each
file operation is one constant script for ``sh``; whatever comes from outside
is an argument to it or its standard input, never part of it.
"""

from __future__ import annotations

import posixpath
import secrets
import stat
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property

from certrail.connectors import CommandResult, FileInfo, Host
from certrail.errors import (
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import effect, plain
from certrail.remote.posix_errors import refusal_in_words
from certrail.remote.posix_paths import (
    checked,
    checked_entry,
    checked_removal,
    expand,
    readable,
    temporary_beside,
    to_bytes,
    to_text,
)
from certrail.remote.sudo import ListedCommands, handing_over

DEFAULT_TIMEOUT = timedelta(seconds=60)
OUTPUT_LIMIT = 1024 * 1024
"""Bytes kept of each of a command's two outputs; the rest is read and dropped."""

# The scripts are single lines without "!" and backslash, which even csh and
# fish leave alone between quotes when one of them is the login shell.
_CUT_SHORT = 75
_NOT_A_DIRECTORY_THERE = (
    'if [ -h "$1" ]; then :; elif [ -d "$1" ]; then echo "Is a directory" >&2; exit 1; fi; '
)
_CLEAN_UP = """trap 'rm -f -- "$t"' EXIT; trap 'exit 1' HUP INT TERM PIPE; """
_WRITE = (
    "m=$2 o=$3 g=$4 n=$5 t=$6; umask 077; set -C; "
    + _NOT_A_DIRECTORY_THERE
    + _CLEAN_UP
    + 'cat > "$t" || exit 1; '
    # A broken connection looks like the end of the content.
    + f'[ "$(wc -c < "$t")" -eq "$n" ] || exit {_CUT_SHORT}; '
    + 'old=$(stat -c %u:%g -- "$1" 2>/dev/null) || old=""; '
    + 'o=${o:-${old%%:*}}; g=${g:-${old##*:}}; now=$(stat -c %u:%g -- "$t") || exit 1; '
    + 'if [ -z "$o$g" ] || [ "$o:$g" = "$now" ]; then :; '
    + 'else chown -- "$o${g:+:$g}" "$t" || exit 1; fi; '
    + 'chmod -- "$m" "$t" || exit 1; sync "$t" 2>/dev/null || :; '
    + 'mv -fT -- "$t" "$1" || exit 1; sync "$7" 2>/dev/null || :'
)
_READ = 'if [ -d "$1" ]; then echo "Is a directory" >&2; exit 1; fi; exec head -c "$2" -- "$1"'
_INFO = (
    "stat -c '%f %u %g %s:%U:%G' -- \"$1\" || exit 1; "
    'if [ -h "$1" ]; then exec readlink -n -- "$1"; fi'
)
_LIST = '[ -d "$1" ] || exec ls -d -- "$1/."; exec find -H "$1" -mindepth 1 -maxdepth 1 -print0'
_REAL_PATH = '[ -e "$1" ] || exec ls -dL -- "$1"; exec readlink -nf -- "$1"'
_MAKE_DIRECTORY = 'umask 022; [ -d "$1" ] || exec mkdir -p -m "$2" -- "$1"'
_MAKE_LINK = (
    "t=$3; "
    + _NOT_A_DIRECTORY_THERE
    + _CLEAN_UP
    + 'ln -s -- "$2" "$t" || exit 1; mv -fT -- "$t" "$1" || exit 1'
)
# mv would copy between file systems, which is not one step.
_RENAME = (
    'a=$(stat -c %d -- "$1") || exit 1; b=$(stat -c %d -- "$3") || exit 1; '
    'if [ "$a" = "$b" ]; then exec mv -fT -- "$1" "$2"; fi; '
    'echo "Invalid cross-device link" >&2; exit 1'
)
_REMOVE = 'if [ -h "$1" ]; then :; elif [ -d "$1" ]; then exec rmdir -- "$1"; fi; rm -f -- "$1"'
_REMOVE_TREE = 'rm -rf -- "$1"'

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def kind_of(mode: int) -> str:
    """Return ``file``, ``directory``, ``link`` or ``other`` for a raw ``st_mode``."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


def checked_command(argv: Sequence[str]) -> list[str]:
    """Return *argv* as a list.

    Raises:
        InvalidRequest: it is empty, or an argument holds a NUL.
    """
    wrong = isinstance(argv, str) or not argv or not argv[0]
    if wrong or any("\0" in part or not _encodable(part) for part in argv):
        raise InvalidRequest(
            "not a command: it needs a program, and arguments without NUL bytes",
            remedy="Give the command as a list of program and arguments.",
        )
    return list(argv)


def _encodable(text: str) -> bool:
    try:
        to_bytes(text)
    except UnicodeEncodeError:
        return False
    return True


class PosixHost(Host):
    """A host on which everything goes through :meth:`execute`.

    The files are those the executing account sees. ``remove`` without *tree*
    also removes a directory that is empty; ``make_directory`` gives *mode* to
    the last component and 0755 to parents it has to make; ``write_file``
    replaces a link itself and never writes through it.
    """

    way = "files through commands"
    """How the files are reached, for people."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listed: ListedCommands | None = None
        """Commands that run as root although files are reached as the account."""

    @abstractmethod
    def execute(
        self, argv: Sequence[str], *, stdin: bytes, timeout: timedelta, limit: int
    ) -> CommandResult:
        """Run *argv*, keeping up to *limit* bytes of each output."""

    def check(self) -> str:
        """Say which account acts there, on what system, and how its files are reached."""
        output = self._script("id -un && uname -sr", "ask", "/")
        account, _, system = output.decode(errors="replace").strip().partition("\n")
        return f"{plain(account)} on {plain(system)}, {self.way}"

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: timedelta | None = None
    ) -> CommandResult:
        command = checked_command(argv)
        if self.listed is not None:
            command = self.listed.as_root(command, self._plainly)
        return self.execute(
            command, stdin=stdin, timeout=timeout or DEFAULT_TIMEOUT, limit=OUTPUT_LIMIT
        )

    def _plainly(self, argv: Sequence[str]) -> CommandResult:
        return self.execute(argv, stdin=b"", timeout=DEFAULT_TIMEOUT, limit=OUTPUT_LIMIT)

    def hands_over(self, owner: str) -> bool:
        return bool(self.listed and owner and owner != self._account)

    @cached_property
    def _account(self) -> str:
        return self._plainly(["id", "-un"]).stdout.decode(errors="replace").strip()

    def _write_and_hand_over(
        self, path: str, content: bytes, *, mode: int, owner: str, group: str
    ) -> None:
        """Write a file beside *path*, have it given to *owner*, and put it in its place.

        Raises:
            PermissionRefused: sudo's rules do not list it.
        """
        beside = temporary_beside(checked_entry(path))
        try:
            self.write_file(beside, content, mode=mode, group=group)
            self._hand_over(beside, owner, path)
            self.rename(beside, path)
        except BaseException:
            self._remove_beside(beside)
            raise

    @contextmanager
    def _noting(self, temporary: str) -> Iterator[None]:
        """Note *temporary* for later where the connection may break before it is removed."""
        yield

    def _remove_beside(self, path: str) -> None:
        """Remove what a failed write left; that this fails too must not hide why."""
        with suppress(ConnectorError):
            self.remove(path)

    def hand_over(self, path: str, owner: str) -> None:
        self._hand_over(checked_entry(path), owner, path)

    def _hand_over(self, path: str, owner: str, named: str) -> None:
        result = self.run(handing_over(self._account, owner, path))
        if result.exit_code != 0:
            raise PermissionRefused(
                f"{self._account} may not give {readable(named)} on {self.name} to {owner}: "
                f"{plain(result.text)[-200:]}",
                remedy="Put the lines into sudoers that `certrail connector sudoers` prints, "
                "or set `sudo: true` for the host.",
                connector=self.name,
            )

    def read_file(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        content = self._script(_READ, "read", checked(path), str(limit + 1), limit=limit + 1)
        return self._within(content, path, limit)

    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        if self.hands_over(owner):
            self._write_and_hand_over(path, content, mode=mode, owner=owner, group=group)
            return
        temporary, directory = temporary_beside(path), posixpath.dirname(checked_entry(path))
        arguments = (f"{mode:o}", owner, group, str(len(content)), temporary, directory)
        with self._noting(temporary):
            self._script(_WRITE, "write", path, *arguments, stdin=content)
        effect("file.write", host=self.name, path=readable(path), size=len(content))

    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        self._script(_MAKE_DIRECTORY, "make directory", checked(path), f"{mode:o}")

    def make_link(self, path: str, target: str) -> None:
        checked_link_target(target)
        temporary = temporary_beside(checked_entry(path))
        with self._noting(temporary):
            self._script(_MAKE_LINK, "link", path, target, temporary)
        effect("file.link", host=self.name, path=readable(path), target=readable(target))

    def rename(self, source: str, destination: str) -> None:
        parent = posixpath.dirname(checked_entry(destination))
        self._script(_RENAME, "rename", checked_entry(source), destination, parent)
        effect("file.rename", host=self.name, path=readable(source), to=readable(destination))

    def remove(self, path: str, *, tree: bool = False) -> None:
        checked_removal(path, tree=tree)
        self._script(_REMOVE_TREE if tree else _REMOVE, "remove", path)
        effect("file.remove", host=self.name, path=readable(path), tree=tree)

    def info(self, path: str) -> FileInfo | None:
        try:
            output = self._script(_INFO, "look at", checked(path))
        except NotFound:
            return None
        facts, _, target = output.partition(b"\n")
        try:
            numbers, owner, group = facts.decode(errors="replace").split(":")
            mode, uid, gid, length = numbers.split(" ")
            raw, size = int(mode, 16), int(length)
        except ValueError as exc:
            raise UnexpectedReply(
                f"{self.name} tells of {readable(path)} in words that are not those of stat",
                remedy="Install GNU coreutils or busybox there, or let files go by SFTP.",
                connector=self.name,
            ) from exc
        return FileInfo(
            path=path,
            kind=kind_of(raw),
            mode=stat.S_IMODE(raw),
            owner=uid if owner == "UNKNOWN" else owner,
            group=gid if group == "UNKNOWN" else group,
            size=size,
            target=to_text(target),
        )

    def list_directory(self, path: str) -> tuple[str, ...]:
        output = self._script(_LIST, "list", checked(path), limit=16 * OUTPUT_LIMIT)
        entries = output.split(b"\0")[:-1]
        names = (to_text(entry.rpartition(b"/")[2]) for entry in entries)
        return tuple(sorted(name for name in names if name))

    def real_path(self, path: str) -> str:
        return to_text(self._script(_REAL_PATH, "resolve", checked(path)))

    def glob(self, pattern: str) -> tuple[str, ...]:
        return expand(pattern, self._names, lambda path: self.info(path) is not None)

    def _names(self, path: str) -> tuple[str, ...]:
        # What cannot be listed matches nothing, as in a shell.
        try:
            return self.list_directory(path)
        except (NotFound, PermissionRefused):
            return ()

    def _within(self, content: bytes, path: str, limit: int) -> bytes:
        if len(content) > limit:
            raise Conflict(
                f"{readable(path)} on {self.name} is larger than {limit} bytes",
                remedy="Check that the path names the file that was meant.",
                connector=self.name,
            )
        return content

    def _script(
        self,
        script: str,
        doing: str,
        path: str,
        *arguments: str,
        stdin: bytes = b"",
        limit: int = OUTPUT_LIMIT,
    ) -> bytes:
        # Start-up files of the login shell may print something before us.
        mark = f"certrail-{secrets.token_hex(8)}"
        prologue = f"LC_ALL=C; export LC_ALL; echo {mark}; "
        argv = ["sh", "-c", prologue + script, "certrail", path, *arguments]
        result = self.execute(argv, stdin=stdin, timeout=DEFAULT_TIMEOUT, limit=limit + 64 * 1024)
        _, found, output = result.stdout.partition(f"{mark}\n".encode())
        if not found:
            raise PermissionRefused(
                f"commands cannot be run on {self.name}: {plain(result.text)[-300:]}",
                remedy="Give the account a login shell, or SFTP without sudo.",
                connector=self.name,
            )
        if result.exit_code == _CUT_SHORT:
            raise Unreachable(
                f"the content of {readable(path)} did not arrive whole on {self.name}",
                connector=self.name,
            )
        if result.exit_code != 0:
            raise refusal_in_words(result.stderr, doing, path, host=self.name)
        if len(output) > limit:
            raise UnexpectedReply(
                f"{self.name} answered more than {limit} bytes to {doing} {readable(path)}",
                remedy="Check that the path names what was meant.",
                connector=self.name,
            )
        return output


def checked_link_target(target: str) -> str:
    """Return *target* if a link can point to it.

    Raises:
        InvalidRequest: it is empty or holds a NUL.
    """
    if not target or "\0" in target:
        raise InvalidRequest(
            f"no link can point to {readable(target)!r}", remedy="Give a path as the target."
        )
    return target
