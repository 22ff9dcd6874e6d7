"""Run a real server for a test and never leave it behind."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_PATIENCE = 4.0
_RESERVED = Path("/tmp/certrail-test-ports")
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class _Ports:
    """Ports that belong to this process until it ends; no other test process gets them.

    They lie outside of the range from which the kernel serves outgoing
    connections and listeners on port 0: a port from there can be gone before
    the server that it was meant for has started. Byte *n* of one file is
    locked for port *n*; the kernel drops the locks with the process.
    """

    def __init__(self) -> None:
        first, last = (int(word) for word in _EPHEMERAL.read_text().split())
        outside = [*range(10_000, first), *range(last + 1, 65_536)]
        # Where the kernel's range is nearly all there is, a collision is only unlikely.
        self._range: Sequence[int] = (
            outside if len(outside) > 2_000 else list(range(10_000, 65_536))
        )
        self._ours: set[int] = set()
        self._lock = threading.Lock()
        # Closing any descriptor of the file would drop all locks: it stays open.
        try:
            self._file = os.open(_RESERVED, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._file = os.open(_RESERVED, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o666)
            _RESERVED.chmod(0o666)

    def reserve(self, hosts: Sequence[str]) -> int:
        # Not the generator that pytest-randomly sets to the same start in each process.
        for port in random.SystemRandom().sample(self._range, len(self._range)):
            with self._lock:
                if port in self._ours or not self._locked(port):
                    continue
                self._ours.add(port)
            if _unused(port, hosts):
                return port
        raise AssertionError("all ports outside of the kernel's range are taken")

    def _locked(self, port: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError as exc:
            if exc.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True


_PORTS = _Ports()


def free_port(*hosts: str) -> int:
    """Return a port, for TCP and UDP, that is this process's until it ends.

    Nobody uses it at any of *hosts* (127.0.0.1) now, and nobody is given it later.
    """
    return _PORTS.reserve(hosts or ("127.0.0.1",))


def _unused(port: int, hosts: Sequence[str]) -> bool:
    with ExitStack() as held:
        for host in hosts:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                probe = held.enter_context(socket.socket(socket.AF_INET, kind))
                try:
                    probe.bind((host, port))
                except OSError as exc:
                    if exc.errno == errno.EADDRINUSE:
                        return False
                    raise
    return True


def let_in(folder: Path) -> None:
    """Let other accounts reach *folder*: servers drop to one of their own."""
    temporary = Path(tempfile.gettempdir())
    for each in (folder, *folder.parents):
        if temporary not in each.parents:
            return
        each.chmod(0o755)


def binary(name: str, package: str) -> str:
    """Return the path of a program; its absence is a failure that names the Debian package."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise AssertionError(f"{name} is missing: apt-get install {package}")
    return path


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether something takes TCP connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0


def wait_for(condition: Callable[[], bool], what: str, *, within: float = 15.0) -> None:
    """Poll until *condition* holds; fail with *what* when it does not in time.

    *within* is for a machine that does nothing else; a busy one gets several times that.
    """
    began = time.monotonic()
    deadline = began + within * _PATIENCE
    while True:
        looked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {within * _PATIENCE:.0f} s: {what}")
        time.sleep(pause(now - looked, now - began))


def pause(looking: float, waited: float) -> float:
    """Return how long to wait until the next look, in seconds; by what the last one took.

    Who looks takes the processors from those who are waited for, so the more a look costs
    and the longer it has been in vain, the more seldom it is.
    """
    return max(0.02, min(waited / 20, 0.1), min(4 * looking, 0.5))


def die_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def running(
    argv: Sequence[str],
    *,
    log: Path,
    port: int | None = None,
    ready: Callable[[], bool] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    within: float = 15.0,
    stop_signal: int = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start *argv*, yield once *port* accepts (or *ready* says so), stop it whatever happens."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            argv,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            preexec_fn=die_with_parent,
        )
    try:
        deadline = time.monotonic() + within * _PATIENCE
        while not (ready() if ready else port is None or accepts(port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{argv[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.03)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop_signal)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
