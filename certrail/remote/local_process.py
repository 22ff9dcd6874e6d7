"""Run a command on this machine with a deadline and a limit on its output."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import IO

from certrail.connectors import CommandResult
from certrail.errors import Unreachable
from certrail.log import plain

_CHUNK = 65536
_END_GRACE = 2.0
_LINGER = 0.5
"""Seconds given to a pipe that a daemon left behind by the command keeps open."""


class Capture:
    """Keeps the first *limit* bytes of an output; the rest is counted off and dropped."""

    __slots__ = ("_kept", "_limit")

    def __init__(self, limit: int) -> None:
        self._kept = bytearray()
        self._limit = limit

    def add(self, data: bytes) -> None:
        """Take the next piece."""
        self._kept += data[: self._limit - len(self._kept)]

    def bytes(self) -> bytes:
        """Return what was kept."""
        return bytes(self._kept)


def run_process(
    argv: Sequence[str],
    *,
    stdin: bytes,
    timeout: timedelta,
    limit: int,
    host: str,
    what: str,
    env: Mapping[str, str] | None = None,
) -> CommandResult:
    """Run *argv* in a process group of its own, without a shell.

    *what* names the command in messages. A program that is missing or may not
    be executed gives exit code 127 or 126, as in a shell.

    Raises:
        Unreachable: the deadline passed; the whole group was ended.
    """
    started = time.monotonic()
    command = [os.fsencode(part) for part in argv]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=dict(env) if env is not None else None,
        )
    except OSError as exc:
        # As a shell would tell it, so that all hosts give the same result.
        code = 127 if exc.errno in (errno.ENOENT, errno.ENOTDIR) else 126
        said = f"{argv[0]}: {exc.strerror}\n".encode("utf-8", "surrogateescape")
        return CommandResult(code, b"", said, time.monotonic() - started)
    try:
        stdout, stderr = _exchange(process, stdin, started + timeout.total_seconds(), limit)
    except TimeoutError as exc:
        _end(process)
        raise Unreachable(
            f"{plain(what)} on {host} did not finish within {timeout.total_seconds():g} s",
            remedy="Look at why the command hangs on the host, then retry.",
            connector=host,
        ) from exc
    except BaseException:
        _end(process)
        raise
    finally:
        _let_go(process)
    return CommandResult(process.returncode, stdout, stderr, time.monotonic() - started)


def _exchange(
    process: subprocess.Popen[bytes], stdin: bytes, deadline: float, limit: int
) -> tuple[bytes, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    kept, complaints = Capture(limit), Capture(limit)
    pending = memoryview(stdin)
    ended: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, kept)
        selector.register(process.stderr, selectors.EVENT_READ, complaints)
        os.set_blocking(process.stdin.fileno(), False)
        if pending:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while selector.get_map():
            now = time.monotonic()
            if now >= deadline:
                raise TimeoutError
            if ended is not None and now >= ended + _LINGER:
                break
            for key, _ in selector.select(min(0.1, deadline - now)):
                if key.fileobj is process.stdin:
                    pending = _feed(process.stdin, pending)
                    if not pending:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                data = os.read(key.fd, _CHUNK)
                if data:
                    key.data.add(data)
                else:
                    selector.unregister(key.fileobj)
            if ended is None and process.poll() is not None:
                ended = time.monotonic()
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError from exc
    return kept.bytes(), complaints.bytes()


def _feed(pipe: IO[bytes], pending: memoryview) -> memoryview:
    try:
        return pending[os.write(pipe.fileno(), pending[:_CHUNK]) :]
    except BrokenPipeError:
        # The command did not want all of its input; its exit code says more.
        return pending[:0]
    except BlockingIOError:
        return pending


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close our ends. What runs as root and cannot be ended is waited for by nobody here."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    if process.poll() is None:
        threading.Thread(target=process.wait, name="reaper", daemon=True).start()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group: politely, then for certain."""
    for number, grace in ((signal.SIGTERM, _END_GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        except PermissionError:
            # Through sudo it is root's; sudo's own timeout ends it.
            break
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            continue
