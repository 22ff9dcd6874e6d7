"""The machine itself: what the contract over all hosts does not show."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from certrail.errors import Unreachable
from certrail.remote.local import LocalHost, SudoLocalHost, local_host
from certrail.remote.local_process import Capture
from certrail.remote.sudo import Sudo
from tests.support.process import wait_for


def test_a_command_that_ignores_term_is_ended_with_its_children(tmp_path: Path) -> None:
    """The whole group goes, whatever it thinks of that."""
    script = f"trap '' TERM; sleep 3601 & echo $! > {tmp_path}/pid; wait; wait; sleep 3602"

    with pytest.raises(Unreachable):
        LocalHost("here").run(["sh", "-c", script], timeout=timedelta(seconds=0.5))

    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(child), "the child was ended")


def test_a_command_runs_in_a_group_of_its_own() -> None:
    """A signal to the worker's group must not tear a reload apart."""
    result = LocalHost("here").run(["sh", "-c", "ps -o pgid= -p $$"])

    assert int(result.stdout) != os.getpgrp()


def test_a_command_ended_by_a_signal_is_a_result() -> None:
    """The caller sees that it did not end well."""
    result = LocalHost("here").run(["sh", "-c", "kill -KILL $$"])

    assert result.exit_code == -signal.SIGKILL


def test_root_needs_no_sudo() -> None:
    """An agent that runs as root works on machines without sudo."""
    assert type(local_host(sudo=True)) is LocalHost


def test_the_sudo_password_is_hidden() -> None:
    """Objects end up in tracebacks."""
    sudo = Sudo("the password")

    assert "the password" not in repr(sudo)
    assert "the password" not in repr(SudoLocalHost("here", sudo).__dict__)
    assert "the password" not in " ".join(sudo.wrap(["true"], b"", timedelta(seconds=1))[0])


def test_a_capture_keeps_the_beginning() -> None:
    """The first lines of a failure say most."""
    capture = Capture(5)
    for piece in (b"abc", b"def", b"ghi"):
        capture.add(piece)

    assert capture.bytes() == b"abcde"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
