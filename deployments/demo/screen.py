"""What the demo says, apart from what the commands it runs say themselves."""

from __future__ import annotations

import sys
import time
from pathlib import Path

_BOLD, _DIM, _GREEN, _RED, _OFF = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"


class DemoError(Exception):
    """The demo cannot go on; the message says why.

    Attributes:
        remedy: what to do about it.
        exit_code: 1 for something that went wrong, 3 for something that is missing.
    """

    def __init__(self, message: str, *, remedy: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.exit_code = exit_code


class Screen:
    """Lines on standard output; styled where it is a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._styled = sys.stdout.isatty()
        self._chapters = 0

    def chapter(self, title: str, *lines: str) -> None:
        """Begin the next chapter."""
        self._chapters += 1
        self._heading(f"{self._chapters}. {title}")
        for line in lines:
            self._print(line)
        self._print()

    def end(self) -> None:
        """Begin what comes after the last chapter."""
        self._heading("The end")
        self._print()

    def _heading(self, title: str) -> None:
        self._print()
        self._print(self._style(_BOLD, f"── {title} {'─' * max(4, 68 - len(title))}"))

    def note(self, line: str) -> None:
        """Say what happens, with the time since the start."""
        stamp = self._style(_DIM, f"[{time.monotonic() - self._began:5.1f} s]")
        self._print(f"{stamp} {line}")

    def proof(self, line: str) -> None:
        """Say what was seen with our own eyes."""
        self._print(f"{self._style(_GREEN, '✔')} {line}")

    def command(self, words: str) -> None:
        """Show a command before it runs."""
        self._print(self._style(_BOLD, f"$ {words}"))

    def file(self, path: Path) -> None:
        """Show a file's text."""
        self._print(self._style(_DIM, f"# {path}"))
        for line in path.read_text().splitlines():
            self._print(f"  {line}")
        self._print()

    def plain(self, line: str = "") -> None:
        """Print a line as it is."""
        self._print(line)

    def failure(self, error: DemoError) -> None:
        """Say on standard error why the demo ends."""
        sys.stdout.flush()
        sys.stderr.write(f"{self._style(_RED, 'The demo failed')}: {error}\n")
        if error.remedy:
            sys.stderr.write(f"{error.remedy}\n")
        sys.stderr.flush()

    def _style(self, code: str, text: str) -> str:
        return f"{code}{text}{_OFF}" if self._styled else text

    def _print(self, line: str = "") -> None:
        # Commands write to the same place, so nothing may wait in our buffer.
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
