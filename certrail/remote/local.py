"""The machine we run on, as a host: for an agent on the server itself."""

from __future__ import annotations

import errno
import grp
import os
import posixpath
import pwd
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from certrail.connectors import CommandResult, FileInfo, Host
from certrail.log import effect
from certrail.remote.local_process import run_process
from certrail.remote.posix_errors import refusal, unknown_owner
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
from certrail.remote.sudo import ListedCommands, Sudo

_ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def local_host(
    name: str = "localhost",
    *,
    sudo: bool = False,
    sudo_password: str = "",
    sudo_listed: bool = False,
) -> Host:
    """Return this machine; with *sudo* everything is done as root.

    With *sudo_listed* only the commands are that sudo's rules list for the
    account. sudo is left out where we are root already.

    Raises:
        AuthenticationFailed: sudo refused *sudo_password*.
        PermissionRefused: sudo does not let us act as root.
    """
    if sudo and os.geteuid() != 0:
        return SudoLocalHost(name, Sudo(sudo_password))
    host = LocalHost(name)
    if sudo_listed and os.geteuid() != 0:
        host.listed = ListedCommands()
    return host


class LocalHost(PosixHost):
    """This machine with the rights of our own process; files by system calls."""

    way = "files directly"

    def execute(
        self, argv: Sequence[str], *, stdin: bytes, timeout: timedelta, limit: int
    ) -> CommandResult:
        path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        return run_process(
            argv,
            stdin=stdin,
            timeout=timeout,
            limit=limit,
            host=self.name,
            what=argv[0],
            env={**os.environ, "PATH": f"{path}:{_ADMIN_PATH}"},
        )

    def read_file(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        with self._doing("read", checked(path)), open(to_bytes(path), "rb") as file:
            return self._within(file.read(limit + 1), path, limit)

    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        if self.hands_over(owner):
            self._write_and_hand_over(path, content, mode=mode, owner=owner, group=group)
            return
        with self._doing("write", checked_entry(path)):
            old = _lstat(path)
            if old is not None and stat.S_ISDIR(old.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            uid = self._id_of(owner, path, user=True) if owner else old.st_uid if old else -1
            gid = self._id_of(group, path, user=False) if group else old.st_gid if old else -1
            temporary = to_bytes(temporary_beside(path))
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    _give(file.fileno(), uid, gid)
                    os.fchmod(file.fileno(), mode)
                    os.fsync(file.fileno())
                os.rename(temporary, to_bytes(path))
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
            _sync_directory(path)
        effect("file.write", host=self.name, path=readable(path), size=len(content))

    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        with self._doing("make directory", checked(path)):
            _make_directory(path.rstrip("/") or "/", mode)

    def make_link(self, path: str, target: str) -> None:
        temporary = to_bytes(temporary_beside(checked_entry(path)))
        with self._doing("link", path):
            os.symlink(to_bytes(checked_link_target(target)), temporary)
            try:
                os.rename(temporary, to_bytes(path))
            except OSError:
                os.unlink(temporary)
                raise
            _sync_directory(path)
        effect("file.link", host=self.name, path=readable(path), target=readable(target))

    def rename(self, source: str, destination: str) -> None:
        with self._doing("rename", checked_entry(source)):
            os.rename(to_bytes(source), to_bytes(checked_entry(destination)))
            _sync_directory(destination)
        effect("file.rename", host=self.name, path=readable(source), to=readable(destination))

    def remove(self, path: str, *, tree: bool = False) -> None:
        raw = to_bytes(checked_removal(path, tree=tree))
        with self._doing("remove", path), suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISDIR(os.lstat(raw).st_mode):
                os.unlink(raw)
            elif tree:
                shutil.rmtree(raw)
            else:
                os.rmdir(raw)
        effect("file.remove", host=self.name, path=readable(path), tree=tree)

    def info(self, path: str) -> FileInfo | None:
        with self._doing("look at", checked(path)):
            found = _lstat(path)
            if found is None:
                return None
            link = stat.S_ISLNK(found.st_mode)
            return FileInfo(
                path=path,
                kind=kind_of(found.st_mode),
                mode=stat.S_IMODE(found.st_mode),
                owner=_user_name(found.st_uid),
                group=_group_name(found.st_gid),
                size=found.st_size,
                target=to_text(os.readlink(to_bytes(path))) if link else "",
            )

    def list_directory(self, path: str) -> tuple[str, ...]:
        with self._doing("list", checked(path)):
            return tuple(sorted(to_text(name) for name in os.listdir(to_bytes(path))))

    def real_path(self, path: str) -> str:
        with self._doing("resolve", checked(path)):
            return to_text(os.path.realpath(to_bytes(path), strict=True))

    @contextmanager
    def _doing(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise refusal(exc.errno or 0, what, path, host=self.name, detail=_words(exc)) from exc

    def _id_of(self, name: str, path: str, *, user: bool) -> int:
        if name.isdecimal():
            return int(name)
        try:
            return pwd.getpwnam(name).pw_uid if user else grp.getgrnam(name).gr_gid
        except KeyError as exc:
            kind = "user" if user else "group"
            raise unknown_owner(f"no {kind} {name!r}", path, host=self.name) from exc


class SudoLocalHost(PosixHost):
    """This machine as root, through sudo."""

    way = "all through sudo"

    def __init__(self, name: str, sudo: Sudo) -> None:
        super().__init__(name)
        self._sudo = sudo
        argv, stdin = sudo.probe()
        result = run_process(
            argv, stdin=stdin, timeout=timedelta(seconds=30), limit=4096, host=name, what="sudo"
        )
        sudo.must_work(result, host=name)

    def execute(
        self, argv: Sequence[str], *, stdin: bytes, timeout: timedelta, limit: int
    ) -> CommandResult:
        command, whole = self._sudo.wrap(argv, stdin, timeout)
        return run_process(
            command, stdin=whole, timeout=timeout, limit=limit, host=self.name, what=argv[0]
        )


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(to_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _give(descriptor: int, uid: int, gid: int) -> None:
    now = os.fstat(descriptor)
    if uid not in (-1, now.st_uid) or gid not in (-1, now.st_gid):
        os.fchown(descriptor, uid, gid)


def _make_directory(path: str, mode: int) -> None:
    if os.path.isdir(to_bytes(path)):
        return
    parent = posixpath.dirname(path)
    if not os.path.isdir(to_bytes(parent)):
        _make_directory(parent, 0o755)
    try:
        os.mkdir(to_bytes(path), 0o700)
    except FileExistsError:
        # Somebody else made it meanwhile; the mode is theirs.
        if not os.path.isdir(to_bytes(path)):
            raise
        return
    os.chmod(to_bytes(path), mode)


def _sync_directory(path: str) -> None:
    # A rename survives a power cut once its directory is on disk. Directories
    # that cannot be opened or synced (network file systems) are left to the system.
    with suppress(OSError):
        descriptor = os.open(to_bytes(posixpath.dirname(path) or "/"), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _words(exc: OSError) -> str:
    return exc.strerror or str(exc)
