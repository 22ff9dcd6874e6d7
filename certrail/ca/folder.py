"""Files of a CA on disk: written whole, private where they must be, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from certrail.errors import (
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    StorageFull,
    Unreachable,
)
from certrail.log import plain

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


class Folder:
    """A folder of this machine, made with mode 0700 at the first write.

    Every method may raise StorageFull, PermissionRefused, NotFound or
    Unreachable, with the path in the message.
    """

    def __init__(self, path: str, label: str) -> None:
        """Use the absolute *path*; *label* is the connector's name, for people.

        Raises:
            InvalidRequest: the path is not absolute.
        """
        self.path = Path(path)
        self.label = label
        if not self.path.is_absolute():
            raise InvalidRequest(
                f"{label}: the folder {plain(path)} is not an absolute path",
                remedy="Give the folder as an absolute path on the worker.",
            )

    def exists(self, name: str) -> bool:
        """Return whether there is something called *name*."""
        with self._errors("look at", name):
            return os.path.lexists(self.path / name)

    def read(self, name: str) -> bytes | None:
        """Return the content of *name*, None if there is no such file."""
        with self._errors("read", name):
            try:
                return (self.path / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes, *, mode: int = 0o644, durable: bool = False) -> None:
        """Replace or make *name*; readers see the old or the new content, never half.

        With *durable* it also outlives a power cut. What is not durable still
        outlives the end of this process.
        """
        target = self.path / name
        beside = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
        with self._errors("write", name):
            try:
                descriptor = self._create(beside, mode)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                os.replace(beside, target)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            if durable:
                _flush_folder(target.parent)

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Folder]:
        """Fill a folder that gets its *name* only when the block ends without an error."""
        unfinished = Folder(str(self.path / f".{name}.{secrets.token_hex(6)}"), self.label)
        yield unfinished
        with self._errors("rename", name):
            os.rename(unfinished.path, self.path / name)
            _flush_folder(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other user of the folder out, in this process and in others."""
        with self._errors("lock", "lock"):
            try:
                descriptor = os.open(
                    self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
            except FileNotFoundError:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(
                    self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
        try:
            with self._errors("lock", "lock"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _create(path: Path, mode: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, mode)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, flags, mode)

    @contextmanager
    def _errors(self, doing: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._error(exc, doing, self.path / name) from exc

    def _error(self, exc: OSError, doing: str, path: Path) -> ConnectorError:
        cause = f"{self.label}: cannot {doing} {plain(path)}: {exc.strerror or exc}"
        if exc.errno in _FULL:
            return StorageFull(
                cause,
                remedy="Free space on the worker's disk, then retry.",
                connector=self.label,
            )
        if exc.errno in _REFUSED:
            return PermissionRefused(
                cause,
                remedy=f"Let the worker's account {doing} the file; the folder belongs to the CA "
                "alone.",
                connector=self.label,
            )
        if exc.errno in _ABSENT:
            return NotFound(cause, connector=self.label)
        return Unreachable(cause, connector=self.label)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
