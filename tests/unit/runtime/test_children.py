"""Keeping processes running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from certrail.cli._children import Child, Keeper, describe
from certrail.errors import Unreachable
from tests.support.process import wait_for
from tests.support.stack import ROOT

SLEEPS = [sys.executable, "-c", "import signal; signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal,sys,os\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "os.write(int(sys.argv[1].split('=')[1]), b'ready\\n')\nwhile True: signal.pause()",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a child writes."""
    return tmp_path / "child.log"


@pytest.fixture
def sleeper(log: Path) -> Iterator[Child]:
    """A child that runs until it is stopped."""
    child = Child("the sleeper", SLEEPS, os.environ, log=log, stop_seconds=5)
    child.start()
    yield child
    child.stop()


def test_what_died_is_started_again_and_said(sleeper: Child) -> None:
    """Renewals must go on at night."""
    lines: list[str] = []
    keeper = Keeper([sleeper], lines.append)
    before = sleeper.pid
    os.kill(before, signal.SIGKILL)

    def runs_again() -> bool:
        keeper.look()
        return sleeper.pid != before

    wait_for(runs_again, "the child runs again")

    assert lines == [
        "the sleeper was ended by SIGKILL; starting it again in 1 s",
        "the sleeper runs again",
    ]


def test_the_pause_grows_while_it_does_not_hold(log: Path) -> None:
    """A program that cannot start must not take a whole core to say so."""
    lines: list[str] = []
    child = Child("it", [sys.executable, "-c", ""], os.environ, log=log, stop_seconds=1)
    child.start()
    keeper = Keeper([child], lines.append)

    def twice() -> bool:
        keeper.look()
        return sum("starting it again" in line for line in lines) == 2

    wait_for(twice, "two restarts are planned")

    assert [line[-3:] for line in lines if "again in" in line] == ["1 s", "2 s"]


def test_a_child_that_does_not_listen_is_ended(log: Path) -> None:
    """`certrail up` ends within seconds, whatever a child does."""
    child = Child("it", STUBBORN, os.environ, log=log, stop_seconds=0.2, tells_ready=True)
    child.start()
    wait_for(child.is_ready, "it is ready")

    child.stop()

    assert child.ended() == -signal.SIGKILL


def test_a_child_that_never_became_ready_tells_its_last_line(log: Path) -> None:
    """`Look at the log` alone sends people away for nothing."""
    code = "import sys; sys.exit('no such module: \\x1b[31mx')"
    child = Child(
        "it", [sys.executable, "-c", code], os.environ, log=log, stop_seconds=1, tells_ready=True
    )
    child.start()

    with pytest.raises(Unreachable, match=r"exit code 1: no such module: \\x1b\[31mx"):
        wait_for(child.is_ready, "it is ready")


def test_a_child_dies_with_its_parent(log: Path) -> None:
    """An orphan would hold the port and the database."""
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from certrail.cli._children import Child;"
        "command = [sys.executable, '-c', 'import signal; signal.pause()'];"
        "child = Child('it', command, os.environ, log=Path(sys.argv[1]), stop_seconds=1);"
        "child.start(); print(child.pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(log)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    parent.kill()
    parent.communicate()

    wait_for(lambda: not psutil.pid_exists(pid), "the child ends")


def test_ends_in_words() -> None:
    """Signals have names."""
    assert describe(-9) == "was ended by SIGKILL"
    assert describe(3) == "ended with exit code 3"
