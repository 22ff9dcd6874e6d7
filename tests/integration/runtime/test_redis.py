"""``certrail up`` with a Prefect server of several processes, whose messages go through Redis."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.agreement import must_agree
from tests.support.bulk import estate
from tests.support.process import wait_for
from tests.support.redis_broker import PASSWORD, broker
from tests.support.stack import Stack, cli, environment, stack


def _processes(installation: Stack, role: str) -> set[int]:
    """Return those of the server's processes that have a role."""
    found = set()
    for process in psutil.Process(installation.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # ended meanwhile, or waits to be noticed
            if process.cmdline()[-2:] == ["certrail.cli._serve", role]:
                found.add(process.pid)
    return found


def test_every_run_is_recorded_and_each_process_that_dies_comes_back(tmp_path: Path) -> None:
    """What one process is told the others know; the services outlive any of them."""
    with (
        broker(tmp_path) as url,
        estate(tmp_path / "estate", "redis", 3) as served,
        stack("--server-processes", "2", extra={"CERTRAIL_REDIS_URL": url}) as installation,
    ):
        tree = psutil.Process(installation.process.pid).children(recursive=True)
        told = [word for process in tree for word in process.cmdline()]
        api, services = _processes(installation, "api"), _processes(installation, "services")
        for pid in (min(api), *services):
            os.kill(pid, signal.SIGKILL)
        applied = installation.cli("apply", "-f", str(served.write()))
        assert applied.returncode == 0, applied.stderr
        wait_for(
            lambda: (
                len(_processes(installation, "api") - {min(api)}) == 2
                and len(_processes(installation, "services") - services) == 1
            ),
            "both are back",
            within=90,
        )
        ran = installation.cli(
            "job", "start", "told", "--filter", f"tag={served.prefix}", "--wait", "--json"
        )
        must_agree(installation, job="told")
        doctor = json.loads(installation.cli("doctor", "--json").stdout)

    assert len(api) == 2
    assert len(services) == 1
    assert json.loads(ran.stdout)["counts"]["successful"] == 3
    assert not [word for word in told if PASSWORD in word]
    found = [one for one in doctor if one["check"] == "server-settings"]
    assert [one["status"] for one in found] == ["ok"]


def test_several_processes_without_redis_are_refused(tmp_path: Path) -> None:
    """Each would record its own half."""
    done = cli("up", "--port", "0", "--server-processes", "2", env=environment(tmp_path))

    assert done.returncode == 2
    assert "need a Redis" in done.stderr
    assert "--redis" in done.stderr
