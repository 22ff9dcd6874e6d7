"""The processes that ``certrail up`` keeps running."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from certrail.account import child_setup
from certrail.errors import Unreachable
from certrail.log import plain

_LARGEST_LOG = 20_000_000
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0


class Part(Protocol):
    """Something that runs until it is stopped."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def start(self) -> None:
        """Start it, or start it again."""
        ...

    def ended(self) -> int | None:
        """Return how it ended, or None while it runs."""
        ...

    def stop(self) -> None:
        """Stop it; quiet when it does not run."""
        ...


class Child:
    """A Python process of ours: own log file, dies with us, never holds our terminal.

    Attributes:
        name: what it is called in messages.
        log: where its output goes; the last two files are kept.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: Path,
        stop_seconds: float,
        tells_ready: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._stop_seconds = stop_seconds
        self._tells_ready = tells_ready
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = -1

    @property
    def pid(self) -> int:
        """Its process id; 0 before the start."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the process. Must be called in the main thread, whose end ends the child."""
        self._close_ready()
        if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        command = self._command
        passed: tuple[int, ...] = ()
        if self._tells_ready:
            self._ready, theirs = os.pipe()
            command, passed = [*command, f"--ready-fd={theirs}"], (theirs,)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=passed,
                preexec_fn=child_setup(signal.SIGKILL),
            )
        finally:
            os.close(descriptor)
            for other in passed:
                os.close(other)

    def ended(self) -> int | None:
        """Return the exit code (negative: the signal), or None while it runs."""
        return self._process.poll() if self._process else None

    def is_ready(self) -> bool:
        """Return whether the process has said that it works.

        Raises:
            Unreachable: it ended instead; the message has the end of its log.
        """
        if self._ready < 0:
            return True
        readable, _, _ = select.select([self._ready], [], [], 0)
        if readable and os.read(self._ready, 16):
            self._close_ready()
            return True
        if (code := self.ended()) is not None:
            raise self.failure(code)
        return False

    def failure(self, code: int) -> Unreachable:
        """Return the error that tells how the process ended."""
        return Unreachable(
            f"{self.name} {describe(code)}: {self._last_line()}", remedy=f"Look at {self.log}."
        )

    def stop(self) -> None:
        """Ask it to end, and end it when it does not in time."""
        self.ask_to_stop()
        if self._process is not None:
            try:
                self._process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close_ready()

    def ask_to_stop(self) -> None:
        """Send SIGTERM and do not wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _close_ready(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return plain(next((line for line in reversed(lines) if line.strip()), "it said nothing"))


class Keeper:
    """Starts parts again when they end; after each quick end the pause doubles.

    Attributes:
        tell: gets one line for each thing that happens.
    """

    def __init__(self, parts: Sequence[Part], tell: Callable[[str], None]) -> None:
        self._parts = list(parts)
        self._tell = tell
        self._since = {part.name: time.monotonic() for part in parts}
        self._pause = {part.name: 1.0 for part in parts}
        self._again: dict[str, float] = {}

    def look(self) -> None:
        """Look at each part once, and start again what has ended and waited long enough."""
        now = time.monotonic()
        for part in self._parts:
            if part.name in self._again:
                if now >= self._again[part.name]:
                    self._start(part)
            elif (code := part.ended()) is not None:
                self._plan(part, code, now)

    def _plan(self, part: Part, code: int, now: float) -> None:
        if now - self._since[part.name] > _STEADY_SECONDS:
            self._pause[part.name] = 1.0
        pause = self._pause[part.name]
        self._tell(f"{part.name} {describe(code)}; starting it again in {pause:.0f} s")
        self._again[part.name] = now + pause
        self._pause[part.name] = min(pause * 2, _LONGEST_PAUSE)

    def _start(self, part: Part) -> None:
        del self._again[part.name]
        self._since[part.name] = time.monotonic()
        try:
            part.start()
        except (Unreachable, OSError) as exc:
            self._tell(f"{part.name} does not start: {exc}")
            self._again[part.name] = time.monotonic() + self._pause[part.name]
            self._pause[part.name] = min(self._pause[part.name] * 2, _LONGEST_PAUSE)
        else:
            self._tell(f"{part.name} runs again")


def describe(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
