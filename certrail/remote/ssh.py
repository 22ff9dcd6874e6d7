"""A machine behind SSH, as a host."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import paramiko
from paramiko.sftp import SFTPError

from certrail.connectors import CommandResult, FileInfo
from certrail.errors import ConnectorError, UnexpectedReply, Unreachable
from certrail.log import effect, plain
from certrail.remote.posix_errors import number_of, refusal, unknown_owner
from certrail.remote.posix_host import PosixHost, checked_link_target, kind_of
from certrail.remote.posix_paths import (
    checked,
    checked_entry,
    checked_removal,
    readable,
    temporary_beside,
    to_bytes,
    to_text,
)
from certrail.remote.sftp_files import Attributes, SftpFiles
from certrail.remote.ssh_pool import POOL, SshPool
from certrail.remote.ssh_session import SshSession
from certrail.remote.ssh_settings import SshSettings
from certrail.remote.sudo import ListedCommands, Sudo, launched

_PROBE_TIMEOUT = timedelta(seconds=30)


@contextmanager
def ssh_host(
    settings: SshSettings,
    *,
    name: str = "",
    sudo: bool = False,
    sudo_password: str = "",
    sudo_listed: bool = False,
    pool: SshPool = POOL,
) -> Iterator[PosixHost]:
    """Open a machine over SSH; with *sudo* everything is done there as root.

    With *sudo_listed* only the commands are that sudo's rules list for the account.

    The connection comes from *pool* and goes back to it. Files go over SFTP
    where the server has it and no sudo is needed, else through commands.

    Raises:
        HostKeyMismatch: the server is not the one that was pinned.
        AuthenticationFailed: it refused every credential, or sudo the password.
        PermissionRefused: sudo does not let the account act as root.
        Unreachable: no connection, or no answer in time.
    """
    name = name or settings.address
    with pool.lease(settings, name) as session:
        if sudo:
            host = SshHost(session, name, Sudo(sudo_password))
            host.prove_sudo()
            host.remove_left()
            yield host
            return
        client = session.sftp(name)
        found = SshHost(session, name) if client is None else SftpHost(session, name, client)
        found.remove_left()
        if sudo_listed:
            found.listed = ListedCommands(session.notes)
        yield found


class SshHost(PosixHost):
    """A machine on which everything, files too, goes through commands."""

    def __init__(self, session: SshSession, name: str, sudo: Sudo | None = None) -> None:
        super().__init__(name)
        self._session = session
        self._sudo = sudo
        if sudo is not None:
            self.way = "all through sudo"

    def execute(
        self, argv: Sequence[str], *, stdin: bytes, timeout: timedelta, limit: int
    ) -> CommandResult:
        if self._sudo is None:
            command, whole = launched(argv, timeout), stdin
        else:
            command, whole = self._sudo.wrap(argv, stdin, timeout)
        return self._session.execute(
            command, stdin=whole, timeout=timeout, limit=limit, name=self.name, what=argv[0]
        )

    def prove_sudo(self) -> None:
        """Check once for each connection that sudo works, before anything depends on it."""
        if self._sudo is None or self._session.proven == self._sudo:
            return
        argv, stdin = self._sudo.probe()
        result = self._session.execute(
            argv, stdin=stdin, timeout=_PROBE_TIMEOUT, limit=4096, name=self.name, what="sudo"
        )
        self._sudo.must_work(result, host=self.name)
        self._session.proven = self._sudo

    def remove_left(self) -> None:
        """Remove what earlier connections could not.

        Raises:
            Unreachable: this one breaks as well; the next one goes on.
        """
        left = self._session.left
        while left:
            try:
                self.remove(left[-1])
            except Unreachable:
                raise
            except ConnectorError as exc:
                # It must not hold up what is to be done.
                effect("file.left", host=self.name, path=readable(left[-1]), why=plain(exc))
            left.pop()

    @contextmanager
    def _noting(self, temporary: str) -> Iterator[None]:
        try:
            yield
        except Unreachable:
            self._session.left.append(temporary)
            raise

    def _remove_beside(self, path: str) -> None:
        try:
            self.remove(path)
        except ConnectorError:
            self._session.left.append(path)


class SftpHost(SshHost):
    """A machine whose files are reached over SFTP, with the account's own rights."""

    way = "files over SFTP"

    def __init__(self, session: SshSession, name: str, client: paramiko.SFTPClient) -> None:
        super().__init__(session, name)
        self._files = SftpFiles(client)

    def read_file(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        with self._doing("read", checked(path)):
            return self._within(self._files.read(to_bytes(path), limit + 1), path, limit)

    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        if self.hands_over(owner):
            self._write_and_hand_over(path, content, mode=mode, owner=owner, group=group)
            return
        raw, temporary = to_bytes(checked_entry(path)), to_bytes(temporary_beside(path))
        with self._doing("write", path, size=len(content)):
            old = self._files.lstat(raw)
            if old is not None and stat.S_ISDIR(old.mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            uid = self._id_of("passwd", owner, path) if owner else old.uid if old else None
            gid = self._id_of("group", group, path) if group else old.gid if old else None
            try:
                self._files.create(temporary, content)
                self._give(temporary, uid, gid)
                self._files.chmod(temporary, mode)
                self._files.rename(temporary, raw)
            except BaseException as exc:
                self._drop(temporary, exc)
                raise
        effect("file.write", host=self.name, path=readable(path), size=len(content))

    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        with self._doing("make directory", checked(path)):
            self._make_directory(path.rstrip("/") or "/", mode)

    def make_link(self, path: str, target: str) -> None:
        raw, temporary = to_bytes(checked_entry(path)), to_bytes(temporary_beside(path))
        pointed = to_bytes(checked_link_target(target))
        with self._doing("link", path):
            self._refuse_directory(raw)
            try:
                self._files.symlink(temporary, pointed)
                self._files.rename(temporary, raw)
            except BaseException as exc:
                self._drop(temporary, exc)
                raise
        effect("file.link", host=self.name, path=readable(path), target=readable(target))

    def rename(self, source: str, destination: str) -> None:
        raw, new = to_bytes(checked_entry(source)), to_bytes(checked_entry(destination))
        with self._doing("rename", source):
            try:
                self._files.rename(raw, new)
            except OSError as exc:
                if self._files.closed or exc.errno is not None:
                    raise
                if self._files.lstat(raw) is not None:
                    raise OSError(
                        errno.EEXIST,
                        "the destination is a directory or on another file system",
                    ) from exc
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from exc
        effect("file.rename", host=self.name, path=readable(source), to=readable(destination))

    def remove(self, path: str, *, tree: bool = False) -> None:
        raw = to_bytes(checked_removal(path, tree=tree))
        with self._doing("remove", path), suppress(FileNotFoundError):
            found = self._files.lstat(raw)
            if found is None:
                return
            if stat.S_ISDIR(found.mode):
                self._remove_directory(raw, tree=tree)
            else:
                self._files.unlink(raw)
        effect("file.remove", host=self.name, path=readable(path), tree=tree)

    def info(self, path: str) -> FileInfo | None:
        raw = to_bytes(checked(path))
        with self._doing("look at", path):
            found = self._files.lstat(raw)
            if found is None:
                return None
            link = stat.S_ISLNK(found.mode)
            return FileInfo(
                path=path,
                kind=kind_of(found.mode),
                mode=stat.S_IMODE(found.mode),
                owner=self._name_of("passwd", found.uid),
                group=self._name_of("group", found.gid),
                size=found.size,
                target=to_text(self._files.readlink(raw)) if link else "",
            )

    def list_directory(self, path: str) -> tuple[str, ...]:
        with self._doing("list", checked(path)):
            if not stat.S_ISDIR(self._files.stat(to_bytes(path)).mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return tuple(sorted(to_text(name) for name in self._files.listdir(to_bytes(path))))

    def real_path(self, path: str) -> str:
        with self._doing("resolve", checked(path)):
            self._files.stat(to_bytes(path))
            return to_text(self._files.realpath(to_bytes(path)))

    def _make_directory(self, path: str, mode: int) -> None:
        raw = to_bytes(path)
        if self._is_directory(raw):
            return
        if self._files.lstat(raw) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        parent = posixpath.dirname(path)
        if not self._is_directory(to_bytes(parent)):
            self._make_directory(parent, 0o755)
        try:
            self._files.mkdir(raw)
        except OSError:
            # Somebody else made it meanwhile; the mode is theirs.
            if not self._is_directory(raw):
                raise
            return
        self._files.chmod(raw, mode)

    def _is_directory(self, raw: bytes) -> bool:
        try:
            return stat.S_ISDIR(self._files.stat(raw).mode)
        except FileNotFoundError:
            return False

    def _refuse_directory(self, raw: bytes) -> None:
        found = self._files.lstat(raw)
        if found is not None and stat.S_ISDIR(found.mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

    def _remove_directory(self, raw: bytes, *, tree: bool) -> None:
        names = self._files.listdir(raw)
        if names and not tree:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        for name in names:
            entry = raw + b"/" + name
            found = self._files.lstat(entry)
            if found is None:
                continue
            if stat.S_ISDIR(found.mode):
                self._remove_directory(entry, tree=True)
            else:
                self._files.unlink(entry)
        self._files.rmdir(raw)

    def _give(self, raw: bytes, uid: int | None, gid: int | None) -> None:
        now = self._files.lstat(raw) or Attributes(0, -1, -1, 0)
        uid = now.uid if uid is None else uid
        gid = now.gid if gid is None else gid
        if (uid, gid) != (now.uid, now.gid):
            self._files.give(raw, uid, gid)

    def _drop(self, temporary: bytes, cause: BaseException) -> None:
        """Remove what a failed write left; the cause stays what is reported.

        If that cannot be done now, the next connection to the host does it.
        """
        if self._files.closed:
            self._session.left.append(to_text(temporary))
            return
        try:
            self._files.unlink(temporary)
        except FileNotFoundError:
            return
        except (OSError, EOFError, SFTPError, paramiko.SSHException) as exc:
            self._session.left.append(to_text(temporary))
            cause.add_note(f"{readable(to_text(temporary))} could not be removed: {plain(exc)}")

    def _id_of(self, table: str, name: str, path: str) -> int:
        if name.isdecimal():
            return int(name)
        fields = self._look_up(table, name)
        if fields is None:
            kind = "user" if table == "passwd" else "group"
            raise unknown_owner(f"no {kind} {name!r}", path, host=self.name)
        return int(fields[2])

    def _name_of(self, table: str, number: int) -> str:
        fields = self._look_up(table, str(number))
        return fields[0] if fields else str(number)

    def _look_up(self, table: str, key: str) -> list[str] | None:
        """Return the line of a user or group; asked for once in a connection."""
        known = self._session.notes.get(f"{table} {key}")
        if known is None:
            known = self._getent(table, key)
            self._session.notes[f"{table} {key}"] = known
        fields = known.split(":")
        return fields if len(fields) >= 3 and fields[2].isdecimal() else None

    def _getent(self, table: str, key: str) -> str:
        result = self._plainly(["getent", "--", table, key])
        lines = result.stdout.decode(errors="replace").splitlines()
        if result.exit_code == 0 and lines:
            return lines[-1]
        if result.exit_code == 2:
            return ""
        # No getent, or no commands at all: the files tell of local accounts.
        try:
            text = self.read_file(f"/etc/{table}").decode(errors="replace")
        except ConnectorError:
            return ""
        for line in text.splitlines():
            fields = line.split(":")
            if len(fields) >= 3 and key in (fields[0], fields[2]):
                return line
        return ""

    @contextmanager
    def _doing(self, what: str, path: str, *, size: int = 0) -> Iterator[None]:
        """Turn what SFTP answers into our errors."""
        try:
            with self._session.watched(self.name):
                yield
        except OSError as exc:
            number, detail = exc.errno, exc.strerror or ""
            if number is None:
                number = number_of(str(exc).encode()) or self._trouble(path, size)
                detail = "" if number else f"the server only says {plain(exc)!r}"
            raise refusal(number, what, path, host=self.name, detail=detail) from exc
        except SFTPError as exc:
            raise UnexpectedReply(
                f"{self.name} broke the SFTP protocol: {plain(exc)}", connector=self.name
            ) from exc

    def _trouble(self, path: str, size: int) -> int:
        try:
            with self._session.watched(self.name):
                return self._files.trouble(to_bytes(posixpath.dirname(path) or "/"), size)
        except OSError:
            return 0
