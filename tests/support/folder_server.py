"""What real servers under a temporary folder have in common: files, ports, what a client sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from certrail.model import Bundle, Fingerprint
from tests.support.handshake import fingerprint_at
from tests.support.process import wait_for

if TYPE_CHECKING:
    from tests.support.nginx import TestCa


@dataclass
class FolderServer:
    """A running server: *port* is the one with TLS, *plain* a second one, *old* what it serves."""

    __test__ = False

    main: ClassVar[str]
    """Name of its main configuration file."""
    pid_file: ClassVar[str]

    directory: Path
    port: int
    plain: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """The main configuration file."""
        return self.directory / self.main

    @property
    def master(self) -> int:
        """Process id of the first process."""
        file = self.directory / self.pid_file
        # It is there a moment before it is written.
        wait_for(lambda: bool(file.read_text()), f"{file} is written")
        return int(file.read_text())

    @property
    def error_log(self) -> str:
        """What the server wrote about itself."""
        return (self.directory / "error.log").read_text(errors="replace")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the configuration, place holders replaced."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.filled(text).encode("utf-8", "surrogateescape"))
        return path

    def filled(self, text: str) -> str:
        """Replace the place holders."""
        values = {"@port@": self.port, "@plain@": self.plain, "@dir@": self.directory}
        for name, value in values.items():
            text = text.replace(name, str(value))
        return text

    def served(self, name: str, *, port: int = 0, rsa_only: bool = False) -> Fingerprint:
        """Return the fingerprint that a client asking for *name* sees."""
        return fingerprint_at(port or self.port, name, rsa_only=rsa_only)
