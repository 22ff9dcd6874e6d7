"""The command line in a process of its own for each call, without importing it anew each time.

``certrail`` needs seconds of CPU to import Prefect. A template process does
that once and forks for each call, also for many at once; the fork runs the
same code as the command and ends with its exit code.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from certrail.heap import keep
from tests.support.process import die_with_parent

_ROOT = Path(__file__).resolve().parents[2]


class ForkedCli:
    """Runs ``certrail`` in one environment; the template starts with the first call."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._end: Callable[[], object] = lambda: None

    def __call__(
        self,
        *arguments: str,
        within: float = 300.0,
        env: Mapping[str, str] | None = None,
        begun: Callable[[int], object] = lambda pid: None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``certrail`` with *arguments*; the caller looks at the result.

        *env* adds variables; not such as say where the installation is, which is known already.
        *begun* is called with the process id while it runs; its exit code is -9 if that kills it.

        Raises:
            subprocess.TimeoutExpired: it took longer than *within* seconds; it is ended.
        """
        home = self._started()
        folder = Path(tempfile.mkdtemp(dir=home))
        with socket.socket(socket.AF_UNIX) as call, call.makefile("r") as answers:
            call.settimeout(within)
            call.connect(str(home / "calls"))
            wanted = {"arguments": arguments, "folder": str(folder), "env": dict(env or {})}
            call.sendall(json.dumps(wanted).encode())
            call.shutdown(socket.SHUT_WR)
            pid = 0
            try:
                pid = int(answers.readline())
                begun(pid)
                code = int(answers.readline() or -signal.SIGKILL)
            except TimeoutError:
                if pid:
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, within) from None
        out, err = ((folder / name).read_text() for name in ("out", "err"))
        shutil.rmtree(folder)
        return subprocess.CompletedProcess(arguments, code, out, err)

    def close(self) -> None:
        """End the template; quiet when it does not run."""
        self._end()

    def _started(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="certrail-cli-"))
                # Calls wait in its queue until the template has imported everything.
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(self._folder / "calls"))
                    listener.listen(100)
                    template = subprocess.Popen(
                        [sys.executable, "-m", "tests.support.forked_cli", str(listener.fileno())],
                        env={**self._env, "PYTHONPATH": str(_ROOT)},
                        cwd="/",
                        stdin=subprocess.DEVNULL,
                        pass_fds=(listener.fileno(),),
                        preexec_fn=die_with_parent,
                    )
                # Whoever forgets to close it does not leave it behind either.
                self._end = weakref.finalize(self, _end, template, self._folder)
            return self._folder


def _end(template: subprocess.Popen[bytes], folder: Path) -> None:
    template.kill()
    template.wait()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def forked_cli(env: Mapping[str, str]) -> Iterator[ForkedCli]:
    """Run ``certrail`` in the environment *env* while the block lasts."""
    forked = ForkedCli(env)
    try:
        yield forked
    finally:
        forked.close()


def _serve(listener: socket.socket) -> None:
    from certrail.cli import _prefect, _prefect_blocks, commands

    # Only modules are loaded here; what they find out is found out anew in each fork.
    for name in commands.COMMANDS:
        commands.cli.get_command(click.Context(commands.cli), name)
    _prefect.installation()
    _prefect_blocks.block_types()
    # A fork that looks for cycles among the modules would copy all of them.
    keep()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        call, _ = listener.accept()
        if os.fork() == 0:
            die_with_parent()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(call)
        call.close()


def _run(call: socket.socket) -> None:
    from certrail.cli import commands

    call.sendall(f"{os.getpid()}\n".encode())
    with call.makefile("rb") as asked:
        wanted = json.load(asked)
    os.environ.update(wanted["env"])
    folder = Path(wanted["folder"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    code = 70
    try:
        code = commands.run(wanted["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        call.sendall(f"{code}\n".encode())
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
