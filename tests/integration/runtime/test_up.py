"""``certrail up``: one at a time, nothing left behind, everything found again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from certrail.account import Account, can_enter, child_setup
from certrail.cli._server_polls import EVERY
from certrail.heap import THREAD
from certrail.postgres import EmbeddedPostgres
from tests.support.prefect_api import PrefectApi
from tests.support.process import running as running_process
from tests.support.process import wait_for
from tests.support.stack import ROOT, Stack, cli, connect_anew, environment, stack, start

TOYS = "tests.support.toy_flows"


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_the_ready_line_is_the_address_of_the_ui(installation: Stack) -> None:
    """Scripts wait for it and open what it names."""
    assert installation.ui_url.startswith("http://127.0.0.1:")
    assert installation.api_url == f"{installation.ui_url}/api"


def test_files_with_secrets_are_private(installation: Stack) -> None:
    """Database password, sealing key, block key: any account could read them otherwise."""
    names = ("run.json", "certrail.key", "prefect.key", "postgres.json")

    modes = {name: stat.S_IMODE((installation.data_dir / name).stat().st_mode) for name in names}

    assert modes == dict.fromkeys(names, 0o600)


def test_no_secret_is_in_any_command_line(installation: Stack) -> None:
    """Every account may read the process list."""
    with psycopg.connect(installation.database_url) as connection:
        password = connection.info.password
    key = (installation.data_dir / "certrail.key").read_text().strip()

    lines = []
    for process in _tree(installation.process.pid):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            lines.append(" ".join(process.cmdline()))

    assert len(lines) > 2
    assert not [line for line in lines if password in line or key in line]


def test_the_server_writes_down_once_in_a_while_that_it_was_polled(installation: Stack) -> None:
    """A worker polls each second; the queues of a pool are not written as often."""
    seen: set[str] = set()
    began = time.monotonic()
    with closing(PrefectApi(installation.api_url)) as api:
        for _ in range(20):
            api.post("/work_pools/agents/get_scheduled_flow_runs", work_queue_names=["default"])
            time.sleep(0.1)
            seen.add(api.get("/work_pools/agents/queues/default")["last_polled"])

    # Of the test's polls and of the worker's, whose set of queues is the same, one in ten seconds.
    assert 1 <= len(seen) <= 2 + (time.monotonic() - began) / EVERY


def test_server_and_worker_give_back_memory(installation: Stack) -> None:
    """They run for months, and what they need for a large job is not needed after it."""
    for marker in ("certrail.cli._serve", "deployments.worker"):
        threads = Path(f"/proc/{installation.child(marker)}/task").glob("*/comm")

        assert [one for one in threads if one.read_text().strip() == THREAD] != [], marker


def test_a_second_one_on_the_same_data_is_refused(installation: Stack) -> None:
    """Two servers on one cluster would destroy it."""
    done = cli("up", "--port", "0", env=installation.env)

    assert done.returncode == 3
    assert "another `certrail up` uses" in done.stderr
    assert done.stdout == ""


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The usual first failure of an installation."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        done = cli("up", "--port", str(port), env=environment(tmp_path))

    assert done.returncode == 3
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It opens every private key in the database."""
    key = tmp_path / "key"
    key.write_text("A" * 43 + "=\n")
    key.chmod(0o644)

    done = cli("up", "--port", "0", env=environment(tmp_path, {"CERTRAIL_KEY_FILE": str(key)}))

    assert done.returncode == 3
    assert "readable by others" in done.stderr


def test_each_part_that_dies_is_started_again(installation: Stack) -> None:
    """One bad hour of memory must not stop renewals for good."""
    api = PrefectApi(installation.api_url)
    for marker, name in (("pginstall", "PostgreSQL"), ("cli._serve", "the Prefect server")):
        before, again = installation.child(marker), f"{name} runs again"
        said = installation.said().count(again)

        os.kill(before, signal.SIGKILL)

        wait_for(partial(_said_more, installation, again, said), again, within=60)
        assert installation.child(marker) != before
    connect_anew()
    wait_for(lambda: _healthy(api), "the API answers", within=60)
    run = api.run(api.deploy("toy", f"{TOYS}.five_steps"))
    assert api.wait(run)["state_type"] == "COMPLETED"
    api.close()


def test_a_stop_hands_runs_back_and_leaves_no_process(tmp_path: Path) -> None:
    """An upgrade in the middle of a request must cost neither the request nor an order."""
    with stack() as first:
        api = PrefectApi(first.api_url)
        run = api.run(api.deploy("toy-waiting", f"{TOYS}.wait_for_file"), path=str(tmp_path / "go"))
        api.wait(run, "RUNNING")
        api.close()
        processes = _tree(first.process.pid)

        code = first.stop()

        assert code == 0
        assert _all_gone(processes)
        assert not (first.data_dir / "run.json").exists()
        (tmp_path / "go").touch()
        second = start(first.data_dir)
        try:
            api = PrefectApi(second.api_url)
            assert api.wait(run, "COMPLETED", runs=2)["run_count"] == 2
            api.close()
        finally:
            second.stop()


def test_after_kill_9_nothing_is_left_and_the_data_is_good() -> None:
    """The kernel's out-of-memory killer does not ask."""
    with stack() as first:
        with psycopg.connect(first.database_url) as connection:
            connection.execute("create table kept as select 42 as answer")
        processes = _tree(first.process.pid)

        assert first.stop(signal.SIGKILL) == -signal.SIGKILL

        wait_for(lambda: _all_gone(processes), "all processes end", within=20)
        done = cli("doctor", env=first.env)
        assert done.returncode == 3
        second = start(first.data_dir)
        try:
            with psycopg.connect(second.database_url) as connection:
                assert connection.execute("select answer from kept").fetchone() == (42,)
        finally:
            second.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that plays the user's own."""
    server = EmbeddedPostgres(tmp_path / "theirs" / "postgres", durable=False)
    server.start()
    yield server
    server.stop()


def test_a_database_of_the_users_own_is_used(server: EmbeddedPostgres) -> None:
    """Backups and high availability of a site are its database team's."""
    with stack(extra={"CERTRAIL_DATABASE_URL": server.url("certrail")}) as running:
        api = PrefectApi(running.api_url)
        run = api.run(api.deploy("toy", f"{TOYS}.five_steps"))

        assert api.wait(run)["state_type"] == "COMPLETED"
        assert not (running.data_dir / "postgres").exists()
        assert running.database_url == server.url("certrail")
        api.close()


def test_open_to_others_it_asks_for_a_password(tmp_path: Path) -> None:
    """Whoever reaches Prefect's API can read and start everything."""
    with stack("--host", "0.0.0.0") as running:
        code = httpx.get(f"{running.api_url}/admin/version", trust_env=False).status_code
        user, _, password = (running.data_dir / "api-auth").read_text().strip().partition(":")
        api = PrefectApi(running.api_url, (user, password))
        run = api.run(api.deploy("toy", f"{TOYS}.five_steps"))

        assert code == 401
        assert str(running.data_dir / "api-auth") in running.said()
        assert password not in running.said()
        assert api.wait(run)["state_type"] == "COMPLETED"
        assert running.cli("doctor").returncode == 0
        api.close()


def test_a_sensor_beside_it_takes_runs_of_its_queue(installation: Stack, tmp_path: Path) -> None:
    """A sensor stands inside one network and reaches only what is there."""
    api = PrefectApi(installation.api_url)
    api.post("/work_pools/sensors/queues", name="dmz")
    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "sensors"]

    def known() -> dict[str, str]:
        found = api.post("/work_pools/sensors/workers/filter")
        return {worker["name"]: worker["status"] for worker in found}

    with running_process(
        [*command, "--name", "dmz-1", "--queue", "dmz"],
        log=tmp_path / "sensor.log",
        env=installation.env,
        ready=lambda: known().get("dmz-1") == "ONLINE",
        within=60,
    ) as sensor:
        deployment = api.deploy("toy-sensor", f"{TOYS}.wait_for_file", pool="sensors", queue="dmz")
        go = tmp_path / "go"
        runs = [api.run(deployment, path=str(go)) for _ in range(3)]
        for run in runs:
            api.wait(run, "RUNNING")
        go.touch()
        for run in runs:
            api.wait(run, "COMPLETED")
        by = set((tmp_path / "go.pids").read_text().split())

    # `certrail up` takes nothing from a queue that is somebody else's.
    assert by == {str(sensor.pid)}
    assert sensor.returncode == 0
    # Else the shared installation would go on missing it.
    forgotten = installation.cli("executor", "forget", "dmz-1")
    assert forgotten.returncode == 0, forgotten.stderr
    api.close()


def test_an_ordinary_account_can_run_it(tmp_path: Path) -> None:
    """Nothing here needs root."""
    if os.geteuid() != 0:
        # We are one: the other tests have shown it.
        return
    entry = pwd.getpwnam("nobody")
    nobody = Account(entry.pw_uid, entry.pw_gid)
    data_dir = Path(tempfile.mkdtemp(prefix="certrail-nobody-"))
    nobody.owns(data_dir)
    env = environment(data_dir / "data", {"HOME": str(data_dir)})
    code = "import sys; from certrail.cli.commands import run; sys.exit(run(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "up", "--port", "0"],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The interpreter may lie in root's home, which nobody may not enter.
        preexec_fn=child_setup(
            signal.SIGKILL,
            nobody,
            search_everywhere=not can_enter(nobody, Path(sys.executable).resolve().parent),
        ),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        owners = {p.uids().effective for p in _tree(process.pid)}
    finally:
        process.terminate()
        _, said = process.communicate(timeout=40)
        shutil.rmtree(data_dir)

    assert line.startswith("ready "), said.decode()
    assert owners == {nobody.uid}
    assert process.returncode == 0


def _said_more(installation: Stack, words: str, times: int) -> bool:
    return installation.said().count(words) > times


def _healthy(api: PrefectApi) -> bool:
    try:
        return bool(api.get("/health"))
    except httpx.HTTPError:
        return False
