"""What a process has freed goes back to the machine."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certrail.heap import give_back, keep
from tests.support.process import wait_for

BLOCK = 32 * 1024
COUNT = 2000
MIB = COUNT * BLOCK / 2**20


def test_free_memory_below_what_is_in_use_goes_back() -> None:
    """The C library keeps it: at its end is a block in use."""
    with _free_memory():
        before = _resident()

        given = give_back()

        assert given
        assert before - _resident() > MIB / 2


def test_it_goes_back_by_itself() -> None:
    """As the server and the worker do it."""
    code = """
import time
from certrail.heap import give_back_regularly
from tests.unit.runtime.test_heap import _free_memory, _resident
with _free_memory():
    print(_resident(), flush=True)
    give_back_regularly(0.05)
    time.sleep(600)
"""
    argv = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            before = float(process.stdout.readline())
            wait_for(lambda: before - _resident(process.pid) > MIB / 2, "memory goes back")
        finally:
            process.kill()


def test_what_stays_is_not_looked_through_again() -> None:
    """A look through all of a server's objects takes a tenth of its time under load."""
    before = gc.get_threshold()
    kept = [[number] for number in range(1000)]
    try:
        keep()

        assert gc.get_freeze_count() > len(kept)
        assert len(gc.get_objects()) < len(kept)
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


COMMAND = "from certrail.cli.commands import run; run(['--version'])"
# It ends at once: nobody has told it where the server is.
WORKER = "from deployments.worker import main; main(['--pool', 'agents'])"


@pytest.mark.parametrize("code", [COMMAND, WORKER])
def test_a_crash_leaves_no_copy_of_the_memory(code: str) -> None:
    """There are keys in it. Whoever started it may have asked for such copies."""
    code = f"""
import resource
_, most = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
print(most)
{code}
print(*resource.getrlimit(resource.RLIMIT_CORE))
"""
    root = Path(__file__).resolve().parents[3]
    environment = {key: value for key, value in os.environ.items() if "PREFECT" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    most, *_, left = done.stdout.splitlines()
    assert most != "0", "this machine allows no core files, so that nothing is seen here"
    assert left == f"0 {most}"


@contextmanager
def _free_memory() -> Iterator[None]:
    """Have free blocks below one in use, while the block runs."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    blocks = [ctypes.c_void_p(libc.malloc(BLOCK)) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    last = blocks.pop()
    for block in blocks:
        libc.free(block)
    try:
        yield
    finally:
        libc.free(last)


def _resident(pid: int | str = "self") -> float:
    """Return the MiB of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
