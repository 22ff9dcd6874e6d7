"""A person at a terminal: a program on a pseudo-terminal that asks, and somebody who types.

What the terminal shows is what the program wrote plus what the kernel echoed,
so a secret that is echoed shows up in :attr:`Terminal.shown`.
"""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support.process import die_with_parent

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_UNFINISHED = re.compile(r"\x1b[^A-Za-z]*\Z")
_MOVES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal:
    """One program run; :attr:`shown` is all that stood on the screen so far."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._written = ""
        self.shown = ""

    def expect(self, text: str, *, within: float = 60) -> str:
        """Read until *text* appears after what was expected before; return all in between."""
        deadline = time.monotonic() + within
        while (found := self.shown.find(text, self._read)) < 0:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._descriptor], [], [], left)[0]
            if not ready or not self._fill():
                raise AssertionError(f"{text!r} was not shown:\n{self.shown}")
        between = self.shown[self._read : found]
        self._read = found + len(text)
        return between

    def answer(self, prompt: str, line: str) -> None:
        """Wait for a question and type the answer, with Enter."""
        self.expect(prompt)
        os.write(self._descriptor, f"{line}\n".encode())

    def press(self, key: bytes) -> None:
        """Type one key, such as Ctrl-C."""
        os.write(self._descriptor, key)

    def interrupted(self, *, within: float = 60) -> int:
        """Type Ctrl-C until the program ends; return its exit code.

        Once is not always enough: Python can miss it in the moment before it waits for a line.
        """
        return self.ended(within=within, pressing=b"\x03")

    def ended(self, *, within: float = 60, pressing: bytes = b"") -> int:
        """Read to the end and return the exit code; press a key now and after each silence."""
        deadline = time.monotonic() + within
        ready: list[int] = []
        while (left := deadline - time.monotonic()) > 0:
            if pressing and not ready:
                self.press(pressing)
            ready = select.select([self._descriptor], [], [], min(left, 5))[0]
            if ready and not self._fill():
                _, status = os.waitpid(self._pid, 0)
                self._pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it did not end:\n{self.shown}")

    def screen(self) -> list[str]:
        """Return the lines that stand on the screen now: what was drawn over is gone."""
        lines, row, column = [""], 0, 0
        for count, move, line_end, text in _MOVES.findall(self._written):
            if move == "A":
                row = max(0, row - int(count or 1))
            elif move == "K":
                lines[row] = "" if count == "2" else lines[row][:column]
            elif line_end == "\r":
                column = 0
            elif line_end == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif text:
                before = lines[row][:column].ljust(column)
                lines[row] = before + text + lines[row][column + len(text) :]
                column += len(text)
        return [line.rstrip() for line in lines]

    def close(self) -> None:
        """End the program if it still runs."""
        os.close(self._descriptor)
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _fill(self) -> bool:
        try:
            piece = os.read(self._descriptor, 4096)
        except OSError:
            return False  # the other end is closed
        self._written += self._decoder.decode(piece)
        text = _COLOURS.sub("", _UNFINISHED.sub("", self._written))
        self.shown = text.replace("\r\n", "\n")
        return bool(piece)


@contextmanager
def certrail(*arguments: str, env: Mapping[str, str]) -> Iterator[Terminal]:
    """Type ``certrail …`` at a terminal of 80 columns."""
    pid, descriptor = pty.fork()
    if pid == 0:
        die_with_parent()
        os.chdir("/")
        os.execve(
            sys.executable,
            [sys.executable, "-m", "certrail.cli.main", *arguments],
            {**env, "COLUMNS": "80", "TERM": "xterm"},
        )
    terminal = Terminal(pid, descriptor)
    try:
        yield terminal
    finally:
        terminal.close()
