"""A web-server request from the command line to the handshake, and what the trackers show of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from certrail.postgres import program
from tests.support import kill_points
from tests.support.hurry import hurried
from tests.support.kill_points import KillPoint
from tests.support.nginx import Nginx
from tests.support.prefect_api import FINAL, PrefectApi
from tests.support.process import accepts, free_port, wait_for
from tests.support.stack import Stack
from tests.support.world import World, world

# One name for each test: authorizations are reused, so a second order differs from the first.
NAMES = [
    f"{name}.example.test"
    for name in (
        "steps",
        "webroot",
        "listener",
        "killed",
        "cancelled",
        "redeploy",
        "rollback",
        "twice",
        "proven",
        "added",
    )
]
LISTENER = free_port()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory, installation: Stack) -> Iterator[World]:
    # What is proven stays proven, so that it is known which steps are skipped.
    options = {"http_port": LISTENER, "authz_reuse": 100}
    with world(tmp_path_factory.mktemp("request"), NAMES, **options) as servers:
        configuration = servers.configuration(
            profiles=[
                servers.profile(),
                servers.profile(
                    name="by-listener",
                    validation={"method": "http-01", "listen": f"127.0.0.1:{LISTENER}"},
                ),
                servers.profile(name="key-stays", key={"location": "host"}),
            ]
        )
        configuration["endpoints"][2]["profile"] = "by-listener"
        configuration["endpoints"][3]["profile"] = "key-stays"
        done = installation.cli("apply", "-f", str(servers.write("certrail.yaml", configuration)))
        assert done.returncode == 0, done.stderr
        kill_points.install(installation.database_url)
        servers.dns.add_record("listener.example.test", "A", "127.0.0.1")
        servers.dns.add_record("webroot.example.test", "A", "127.0.0.1")
        yield servers


@pytest.fixture
def api(installation: Stack) -> Iterator[PrefectApi]:
    found = PrefectApi(installation.api_url)
    yield found
    found.close()


def shown(installation: Stack, name: str) -> dict[str, Any]:
    done = installation.cli("request", "show", f"{name}:443", "--json")
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def started(installation: Stack, name: str, *options: str) -> dict[str, Any]:
    done = installation.cli("request", "start", f"{name}:443", "--wait", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return shown(installation, name)


def test_both_trackers_show_the_five_steps(
    installation: Stack, outside: World, api: PrefectApi
) -> None:
    """The command line and Prefect's pages read one record, so they must agree word for word."""
    first = started(installation, "steps.example.test")
    second = started(installation, "steps.example.test")

    assert [step["title"] for step in first["steps"]] == [
        "ACME account created",
        "Domain validated",
        "Certificate issued",
        "Certificate installed",
        "Testing installation",
    ]
    assert {"completed"} == {step["status"] for step in first["steps"]}
    assert outside.nginx.served("steps.example.test") == second["certificate"]["fingerprint"]
    for request in (first, second):
        run = api.wait(request["flow_run_id"], "COMPLETED")
        assert run["name"] == f"{request['action']} steps.example.test:443"
        assert run["parameters"] == {"request_id": request["request_id"]}
        tasks = wait_for_tasks(api, request["flow_run_id"], 5)
        assert [task["name"] for task in tasks] == [
            f"{step['number']}. {step['title']}" for step in request["steps"]
        ]
        assert [task["state"]["message"] for task in tasks] == [
            step["detail"] for step in request["steps"]
        ]


def wait_for_tasks(api: PrefectApi, flow_run_id: str, count: int) -> list[dict[str, Any]]:
    """Return the run's task runs by name once all are recorded in a final state."""
    found: list[dict[str, Any]] = []

    def recorded() -> bool:
        found[:] = api.post("/task_runs/filter", flow_runs={"id": {"any_": [flow_run_id]}})
        return len(found) == count and all(task["state_type"] in FINAL for task in found)

    wait_for(recorded, "Prefect records all steps", within=30)
    return sorted(found, key=lambda task: str(task["name"]))


def test_a_step_that_was_not_needed_is_skipped_in_prefect_too(
    installation: Stack, outside: World, api: PrefectApi
) -> None:
    """A redeploy orders nothing; completed without a word would be a lie."""
    started(installation, "redeploy.example.test")

    request = started(installation, "redeploy.example.test", "--action", "redeploy")

    skipped = [step for step in request["steps"] if step["status"] == "skipped"]
    assert [step["number"] for step in skipped] == [1, 2, 3]
    assert all("nothing is ordered" in step["detail"] for step in skipped)
    tasks = wait_for_tasks(api, request["flow_run_id"], 5)
    assert [task["state"]["name"] for task in tasks] == ["Skipped"] * 3 + ["Completed"] * 2


def test_names_that_are_proven_already_are_skipped(
    installation: Stack, outside: World, api: PrefectApi
) -> None:
    """Which, and until when, is told: of all of them the step is skipped, of some it says so."""
    name, added = "proven.example.test", "added.example.test"
    first = started(installation, name)
    second = started(installation, name)
    configuration = outside.configuration(
        endpoints=[outside.endpoint(name, names=[name, added])],
        profiles=[outside.profile()],
    )
    file = outside.write("added.yaml", configuration)
    assert installation.cli("apply", "-f", str(file)).returncode == 0

    third = started(installation, name)

    one, two, three = (request["steps"][1] for request in (first, second, third))
    assert (one["status"], one["detail"]) == ("completed", "1 name by dns-01 through ns")
    assert two["status"] == "skipped"
    assert re.fullmatch(rf"{name} still valid until \S.*", two["detail"])
    assert three["status"] == "completed"
    assert three["detail"] == f"1 name by dns-01 through ns; {two['detail']}, skipped"
    tasks = wait_for_tasks(api, second["flow_run_id"], 5)
    assert [task["state"]["name"] for task in tasks] == ["Completed", "Skipped", *["Completed"] * 3]
    assert tasks[1]["state"]["message"] == two["detail"]
    account = second["steps"][0]["detail"]
    assert account == first["steps"][0]["detail"].replace("created", "found and verified")


def test_rollback_puts_back_what_was_there_before(
    installation: Stack, outside: World, api: PrefectApi
) -> None:
    """One command brings the morning back, in both trackers, and says so when there is no way."""
    name = "rollback.example.test"
    first = started(installation, name)
    assert outside.nginx.served(name) == first["certificate"]["fingerprint"]

    done = installation.cli("request", "rollback", first["request_id"], "--wait")

    assert done.returncode == 0, done.stdout + done.stderr
    request = shown(installation, name)
    assert request["action"] == "rollback"
    assert outside.nginx.served(name) == outside.nginx.old.chain.fingerprint
    tasks = wait_for_tasks(api, request["flow_run_id"], 5)
    assert [task["state"]["name"] for task in tasks] == ["Skipped"] * 3 + ["Completed"] * 2
    again = installation.cli("request", "rollback", first["request_id"])
    assert again.returncode == 2
    assert "was replaced since" in again.stderr


def test_what_sudo_has_to_list_is_printed(installation: Stack, outside: World) -> None:
    """Sites of one server share their two lines."""
    done = installation.cli("connector", "sudoers", "web01", "--account", "deploy")

    assert done.returncode == 0, done.stderr
    own = f"-p {outside.nginx.directory} -c {outside.nginx.config}"
    # Sites of other tests may be reached by a connector of that name too.
    assert [line for line in done.stdout.splitlines() if own in line] == [
        f"deploy ALL=(root) TIMEOUT=70 NOPASSWD: /usr/sbin/nginx {own} -t",
        f"deploy ALL=(root) TIMEOUT=40 NOPASSWD: /usr/sbin/nginx {own} -s reload",
    ]
    assert installation.cli("connector", "sudoers", "pebble").returncode == 2


def test_http_01_is_answered_by_the_built_in_responder(installation: Stack, outside: World) -> None:
    """Where nothing listens on port 80, Certrail answers for the time of the validation."""
    request = started(installation, "listener.example.test")

    assert request["steps"][1]["detail"] == f"1 name by http-01 through 127.0.0.1:{LISTENER}"


def test_http_01_is_placed_on_the_target(installation: Stack, outside: World) -> None:
    """The host connector that installs also puts the file into the web server's folder."""
    webroot = outside.folder / "webroot"
    webroot.mkdir(mode=0o755)
    configuration = outside.configuration(
        profiles=[
            outside.profile(
                name="by-webroot", validation={"method": "http-01", "webroot": str(webroot)}
            )
        ],
        endpoints=[outside.endpoint("webroot.example.test", profile="by-webroot")],
    )
    file = outside.write("webroot.yaml", configuration)
    assert installation.cli("apply", "-f", str(file)).returncode == 0

    with on_the_http_port(outside.nginx, f"server_name webroot.example.test; root {webroot};"):
        request = started(installation, "webroot.example.test")

    assert request["steps"][1]["detail"] == f"1 name by http-01 through {webroot}"
    assert list(webroot.rglob("*")) == []


@contextmanager
def on_the_http_port(nginx: Nginx, site: str) -> Iterator[None]:
    """Serve *site* where the CA asks, and leave the port to others afterwards."""
    before = nginx.config.read_text()
    there = f"server {{ listen 127.0.0.1:{LISTENER}; {site} }}\n}}\n"
    nginx.write("nginx.conf", before.rstrip().removesuffix("}") + there)
    nginx.reload()
    wait_for(lambda: accepts(LISTENER), "nginx serves the port")
    yield
    now = nginx.config.read_text()
    nginx.write("nginx.conf", now.replace(there, "}\n"))
    nginx.reload()
    wait_for(lambda: not accepts(LISTENER), "nginx has left the port")


def test_what_a_killed_worker_left_is_finished_by_the_next(
    installation: Stack, outside: World, api: PrefectApi, tmp_path: Path
) -> None:
    """The key that it made on the host is the one that goes on, and it is nowhere else."""
    point = KillPoint("csr.generate", "outcome")
    orders = outside.ca.order_count()
    with kill_points.armed(installation.database_url, point):
        done = installation.cli("request", "start", "killed.example.test:443", "--json")
        assert done.returncode == 0, done.stderr
        kill_points.wait_until_caught(installation.database_url, point)
        (key,) = (outside.nginx.directory / "certrail" / "killed.example.test").glob("keys/*.pem")
        made = key.read_bytes()
        os.kill(installation.child("deployments.worker"), signal.SIGKILL)

    with hurried(api, "reconcile"):
        wait_for(
            lambda: shown(installation, "killed.example.test")["status"] == "automation-successful",
            "the request is finished by another worker",
            within=180,
        )
    request = shown(installation, "killed.example.test")
    assert outside.ca.order_count() - orders == 1
    assert outside.nginx.served("killed.example.test") == request["certificate"]["fingerprint"]
    # Prefect hears of the end a moment after our own record.
    api.wait(request["flow_run_id"], "COMPLETED")
    assert [key] == list(key.parent.iterdir())
    assert made == key.read_bytes()
    secret = made.splitlines()[1].decode()
    for name in ("prefect", "certrail"):
        dump = dumped(installation, name, tmp_path)
        assert "killed.example.test" in dump
        assert secret not in dump
    for log in (installation.data_dir / "logs").glob("*.log*"):
        assert secret not in log.read_text(errors="replace")


def dumped(installation: Stack, name: str, folder: Path) -> str:
    """Return the whole database of that *name* as text."""
    out = folder / f"{name}.sql"
    url = installation.database_url.rpartition("/")[0] + f"/{name}"
    subprocess.run([str(program("pg_dump")), f"--file={out}", f"--dbname={url}"], check=True)
    return out.read_text()


def test_a_running_request_stops_at_the_end_of_its_step(
    installation: Stack, outside: World, api: PrefectApi
) -> None:
    """Cancelling never leaves a step half done; what was obtained is kept."""
    point = KillPoint("order.finalize", "intent")
    name = "cancelled.example.test"
    with kill_points.armed(installation.database_url, point):
        assert installation.cli("request", "start", f"{name}:443").returncode == 0
        kill_points.wait_until_caught(installation.database_url, point)
        asked = installation.cli("request", "cancel", f"{name}:443")
        assert asked.returncode == 0, asked.stderr

    wait_for(
        lambda: shown(installation, name)["status"] == "cancelled", "it is cancelled", within=60
    )
    request = shown(installation, name)
    assert [step["status"] for step in request["steps"]][3:] == ["cancelled", "cancelled"]
    assert outside.nginx.served(name) == outside.nginx.old.chain.fingerprint
    wait_for(
        lambda: api.read(request["flow_run_id"])["state"]["type"] == "CANCELLED",
        "Prefect says so too",
        within=30,
    )


def test_two_starts_at_once_make_one_request(installation: Stack, outside: World) -> None:
    """A click and a schedule at the same moment must not order twice."""
    codes: list[int] = []

    def go() -> None:
        codes.append(installation.cli("request", "start", "twice.example.test:443").returncode)

    # Held at its order, so that it is still active when the last of them asks.
    with kill_points.armed(installation.database_url, KillPoint("order.open", "intent")):
        threads = [threading.Thread(target=go) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(codes) == [0, 2, 2]
    with psycopg.connect(installation.database_url) as connection:
        row = connection.execute(
            "select count(*) from requests r join endpoints e on e.id = r.endpoint_id"
            " where e.location = 'twice.example.test:443'"
            " and r.status in ('automation-requested', 'in-progress')"
        ).fetchone()
    assert row in {(0,), (1,)}
    wait_for(
        lambda: shown(installation, "twice.example.test")["status"] == "automation-successful",
        "the one request ends",
        within=60,
    )
