"""What we ask of a machine whose files and commands we may use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from certrail.connectors.base import Connector
from certrail.errors import PermissionRefused


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command on a host ended. Output is bytes, cut at a limit the host states."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard error and output together, decoded leniently, for messages."""
        return (self.stderr + self.stdout).decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is at a path on a host; *mode* is the permission bits only."""

    path: str
    kind: str
    """``file``, ``directory``, ``link`` or ``other``."""
    mode: int
    owner: str
    group: str
    size: int
    target: str = ""
    """Where a link points, as written in it."""


class Host(Connector):
    """A machine whose files and commands we may use: local, or over SSH.

    Paths are absolute POSIX paths. A method that takes *path* never passes it
    through a shell unquoted.

    Attributes:
        name: the connector's name, for people and for locks.
    """

    name: str

    @abstractmethod
    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: timedelta | None = None
    ) -> CommandResult:
        """Run one command and wait for it, 60 seconds unless told.

        A non-zero exit code is a result, not an error.

        Raises:
            Unreachable: the deadline passed or the connection broke; the
                command was told to end.
        """

    @abstractmethod
    def read_file(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        """Return the content.

        Raises:
            NotFound: nothing there.
            PermissionRefused: not allowed to read it.
        """

    def hands_over(self, owner: str) -> bool:
        """Return whether only :meth:`hand_over` can give a file of the account to *owner*."""
        return False

    def hand_over(self, path: str, owner: str) -> None:
        """Give the file *path*, which is the account's own, to *owner*.

        Raises:
            PermissionRefused: not allowed.
        """
        raise PermissionRefused(
            f"{path} on {self.name} cannot be given to {owner}",
            remedy="Set `sudo: true` for the host.",
            connector=self.name,
        )

    @abstractmethod
    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        """Replace or create *path* in one step; readers see old or new, never half.

        The content is never readable by more than *mode* allows, not even for
        a moment. *owner* and *group* "" keep those of the file replaced, or
        the account's own for a new one.

        Raises:
            StorageFull: no room; the old file is untouched, no leftover stays.
            PermissionRefused: not allowed.
        """

    @abstractmethod
    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        """Make *path* and its missing parents; existing is quiet."""

    @abstractmethod
    def make_link(self, path: str, target: str) -> None:
        """Make or replace the symbolic link *path* in one step so that it points to *target*."""

    @abstractmethod
    def rename(self, source: str, destination: str) -> None:
        """Rename, replacing *destination* in one step."""

    @abstractmethod
    def remove(self, path: str, *, tree: bool = False) -> None:
        """Remove a file, link or (with *tree*) a directory with all in it. Absent is quiet.

        A link is removed, never followed.
        """

    @abstractmethod
    def info(self, path: str) -> FileInfo | None:
        """Return what is at *path* (links are not followed), None if nothing."""

    @abstractmethod
    def list_directory(self, path: str) -> tuple[str, ...]:
        """Return the names in *path*, sorted. Absent: NotFound."""

    @abstractmethod
    def real_path(self, path: str) -> str:
        """Return *path* with every link followed; NotFound if it dangles."""

    @abstractmethod
    def glob(self, pattern: str) -> tuple[str, ...]:
        """Return existing paths that match a shell pattern (``*``, ``?``, ``[]``), sorted."""
