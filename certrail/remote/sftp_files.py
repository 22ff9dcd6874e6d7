"""SFTP requests (draft-ietf-secsh-filexfer-02) with paths as bytes and errors as errno.

paramiko decodes names as UTF-8 and gives up on others, so the requests that
answer with names are made here. OpenSSH's extensions are described in its
file PROTOCOL.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from typing import Any, cast

import paramiko
from paramiko.message import Message
from paramiko.sftp import (
    CMD_CLOSE,
    CMD_EXTENDED,
    CMD_EXTENDED_REPLY,
    CMD_HANDLE,
    CMD_NAME,
    CMD_OPENDIR,
    CMD_READDIR,
    CMD_READLINK,
    CMD_REALPATH,
    CMD_SYMLINK,
    SFTPError,
)

_READ_ONLY = 1
_CHUNK = 32768


@dataclass(frozen=True, slots=True)
class Attributes:
    """What lstat tells over SFTP."""

    mode: int
    uid: int
    gid: int
    size: int


class SftpFiles:
    """Single requests on an SFTP channel.

    Every method raises ``OSError``: with errno where the protocol tells it
    (ENOENT, EACCES), without for its catch-all "Failure".
    """

    def __init__(self, client: paramiko.SFTPClient) -> None:
        self._client = client

    @property
    def closed(self) -> bool:
        """Whether the channel is gone."""
        channel = self._client.get_channel()
        return channel is None or channel.closed

    def lstat(self, path: bytes) -> Attributes | None:
        """Return what is at *path* itself, None if nothing."""
        try:
            found = self._client.lstat(path)
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                return None
            raise
        return Attributes(
            found.st_mode or 0, found.st_uid or 0, found.st_gid or 0, found.st_size or 0
        )

    def stat(self, path: bytes) -> Attributes:
        """Return what *path* leads to."""
        found = self._client.stat(path)
        return Attributes(
            found.st_mode or 0, found.st_uid or 0, found.st_gid or 0, found.st_size or 0
        )

    def read(self, path: bytes, limit: int) -> bytes:
        """Return up to *limit* bytes."""
        if stat.S_ISDIR(self.stat(path).mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        content = bytearray()
        with self._client.open(path, "r") as file:
            while len(content) < limit:
                piece = file.read(min(_CHUNK, limit - len(content)))
                if not piece:
                    break
                content += piece
        return bytes(content)

    def create(self, path: bytes, content: bytes) -> None:
        """Write a new file, mode 0600 before the first byte, and have it on disk."""
        with self._client.open(path, "wx") as file:
            file.chmod(0o600)
            for start in range(0, len(content), _CHUNK):
                file.write(content[start : start + _CHUNK])
            file.flush()
            if file.stat().st_size != len(content):
                raise OSError(errno.EIO, "not everything was written")
            self._extended("fsync@openssh.com", cast(bytes, file.handle), optional=True)

    def give(self, path: bytes, uid: int, gid: int) -> None:
        """Set owner and group."""
        self._client.chown(path, uid, gid)

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the permission bits."""
        self._client.chmod(path, mode)

    def rename(self, source: bytes, destination: bytes) -> None:
        """Rename in one step, replacing *destination*."""
        self._client.posix_rename(source, destination)

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make the link *path*."""
        # OpenSSH takes target and link in this order, against the draft (its file PROTOCOL, 4.1).
        self._request(CMD_SYMLINK, target, path)

    def mkdir(self, path: bytes) -> None:
        """Make a directory for its owner only."""
        self._client.mkdir(path, 0o700)

    def unlink(self, path: bytes) -> None:
        """Remove a file or link."""
        self._client.remove(path)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        self._client.rmdir(path)

    def readlink(self, path: bytes) -> bytes:
        """Return where a link points."""
        return self._name(CMD_READLINK, path)

    def realpath(self, path: bytes) -> bytes:
        """Return *path* with links followed; the last component need not exist."""
        return self._name(CMD_REALPATH, path)

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in a directory."""
        kind, message = self._request(CMD_OPENDIR, path)
        if kind != CMD_HANDLE:
            raise SFTPError("no handle for a directory")
        handle = message.get_string()
        names: list[bytes] = []
        try:
            while True:
                try:
                    kind, message = self._request(CMD_READDIR, handle)
                except EOFError:
                    break
                for _ in range(message.get_int()):
                    names.append(message.get_string())
                    message.get_string()
                    paramiko.SFTPAttributes._from_msg(message)  # type: ignore[attr-defined]
        finally:
            self._request(CMD_CLOSE, handle)
        return [name for name in names if name not in (b".", b"..")]

    def trouble(self, directory: bytes, size: int) -> int:
        """Return the errno that explains a bare "Failure" in *directory*, 0 if it is not known."""
        message = self._extended("statvfs@openssh.com", directory, optional=True)
        if message is None:
            return 0
        block, fragment = message.get_int64(), message.get_int64()
        _, _, available = message.get_int64(), message.get_int64(), message.get_int64()
        _, _, free_inodes = message.get_int64(), message.get_int64(), message.get_int64()
        _, flags = message.get_int64(), message.get_int64()
        if flags & _READ_ONLY:
            return errno.EROFS
        # Somebody else may have freed some of it meanwhile: a little room counts as none.
        if available * (fragment or block) <= size + 4 * block or free_inodes == 0:
            return errno.ENOSPC
        return 0

    def _name(self, command: int, path: bytes) -> bytes:
        kind, message = self._request(command, path)
        if kind != CMD_NAME or message.get_int() != 1:
            raise SFTPError("no name in the answer")
        return bytes(message.get_string())

    def _extended(self, name: str, *arguments: bytes, optional: bool) -> Message | None:
        try:
            kind, message = self._request(CMD_EXTENDED, name, *arguments)
        except OSError:
            if optional and not self.closed:
                return None
            raise
        return message if kind == CMD_EXTENDED_REPLY else None

    def _request(self, command: int, *arguments: Any) -> tuple[int, Message]:
        kind, message = self._client._request(command, *arguments)  # type: ignore[attr-defined]
        return kind, message
