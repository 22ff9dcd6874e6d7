"""A whole installation for a test: ``certrail up`` in a temporary folder.

    with stack() as installation:
        done = installation.cli("endpoint", "list", "--json")

It takes ten seconds to start, so share one over many tests: the fixture
``installation`` (:mod:`tests.support.installation`) is session-wide.
The database does not wait for the disk; everything ends with the block, also
when the test process is killed.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.settings import Installation, read_run_file
from tests.support.forked_cli import ForkedCli
from tests.support.process import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
# Guards against a hang only: on a loaded machine a start takes minutes.
_START_SECONDS = 500.0
_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Stack:
    """A running installation.

    Attributes:
        api_url: Prefect's API, ending in ``/api``.
        ui_url: Prefect's pages, as the ready line names them.
        database_url: the inventory database.
        data_dir: its data directory.
        env: environment in which ``certrail`` and the library find it.
        process: ``certrail up`` itself.
        forked: runs the command line, without an interpreter for each call.
    """

    api_url: str
    ui_url: str
    database_url: str
    data_dir: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes]
    forked: ForkedCli

    def cli(
        self, *arguments: str, within: float = 300.0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``certrail`` with *arguments* from another shell; the caller looks at the result.

        *env* adds variables; not such as say where the installation is (:func:`cli` takes those).
        """
        return self.forked(*arguments, within=within, env=env)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to ``certrail up``, wait for its end and return its exit code."""
        self.forked.close()
        return stop(self.process, number)

    def said(self) -> str:
        """What ``certrail up`` has said on standard error so far."""
        return (self.data_dir / "up.log").read_text(errors="replace")

    def child(self, marker: str) -> int:
        """Return the process id of the child of ``certrail up`` whose command has *marker*."""
        for pid in children(self.process.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if marker in command:
                return pid
        raise AssertionError(f"certrail up has no child with {marker!r}")


def cli(
    *arguments: str, env: Mapping[str, str], within: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run ``certrail`` as its users do, as a new process, in the environment *env*."""
    return subprocess.run(
        [sys.executable, "-m", "certrail.cli.main", *arguments],
        env=dict(env),
        cwd="/",
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=within,
        check=False,
        preexec_fn=die_with_parent,
    )


def environment(data_dir: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment that knows nothing but the data directory (and *extra*)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CERTRAIL_", "PREFECT_"))}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "CERTRAIL_DATA_DIR": str(data_dir),
        "CERTRAIL_DURABLE": "false",
        "DO_NOT_TRACK": "1",
        **(extra or {}),
    }


def children(pid: int) -> list[int]:
    """Return the ids of the direct children of *pid*."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def start(data_dir: Path, *options: str, extra: Mapping[str, str] | None = None) -> Stack:
    """Start ``certrail up`` in *data_dir* and wait for its ready line."""
    env = environment(data_dir, extra)
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "certrail.cli.main", "up", "--port", "0", *options],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent,
        )
    line = _ready_line(process)
    if not line.startswith("ready "):
        stop(process)
        logs = [data_dir / "up.log", *sorted((data_dir / "logs").glob("*.log"))]
        tails = "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-2000:]}" for p in logs)
        raise AssertionError(f"certrail up did not become ready, said {line!r}\n{tails}")
    found = read_run_file(data_dir)
    assert isinstance(found, Installation)
    return Stack(
        api_url=found.api_url,
        ui_url=line.removeprefix("ready ").strip(),
        database_url=found.database_url,
        data_dir=data_dir,
        env=env,
        process=process,
        forked=ForkedCli(env),
    )


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """Send a signal to ``certrail up``, wait for its end and return its exit code."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        code = process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError("certrail up did not stop") from None
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return code


@contextmanager
def stack(*options: str, extra: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Run a whole installation; *options* go to ``certrail up``, *extra* into its environment."""
    folder = Path(tempfile.mkdtemp(prefix="certrail-"))
    try:
        running = start(folder / "data", *options, extra=extra)
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connect_anew() -> None:
    """Give up this process's connections to a database that was started again.

    Each would be found broken by the next test that gets it.
    """
    from certrail.store import database

    for engine in list(database._engines.values()):
        engine.dispose()


def _ready_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_SECONDS
    said = b""
    while b"\n" not in said and (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([process.stdout], [], [], left)
        if readable:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                break
            said += piece
    return said.decode(errors="replace")
