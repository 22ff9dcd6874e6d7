"""Start the servers of the demo; none of them outlives it."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from certrail.account import child_setup
from certrail.ports import keep_port, number
from deployments.demo.screen import DemoError

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_SHOWN = 1500
_kept = ExitStack()
atexit.register(_kept.close)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is kept for the demo's servers until it ends."""
    return number(_kept.enter_context(keep_port("127.0.0.1")))


def accepts(port: int) -> bool:
    """Return whether something takes TCP connections on *port*."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the context lasts.

    Raises:
        DemoError: it ended at once, or was not *ready* in time; with the end of its log.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            preexec_fn=child_setup(signal.SIGKILL),
        )
    try:
        wait_until(ready, process, name, log)
        yield process
    finally:
        stop(process)


def wait_until(
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    name: str,
    log: Path,
    *,
    within: float = _START_SECONDS,
) -> None:
    """Return once *ready* says so.

    Raises:
        DemoError: *process* ended, or time is up.
    """
    deadline = time.monotonic() + within
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-_SHOWN:].strip() or "(it said nothing)"
            state = "ended" if process.poll() is not None else f"was not ready in {within:.0f} s"
            raise DemoError(f"{name} {state}. The end of its log:\n{said}")
        time.sleep(_LOOK_SECONDS)


def stop(process: subprocess.Popen[bytes], *, within: float = _STOP_SECONDS) -> None:
    """End a process: asked first, then killed."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
