"""A request that is killed at any journal row and started again goes on where it was.

Each case runs the real flow in a process of its own, catches it before one row
of the journal is committed, kills it with SIGKILL and runs it again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization

from certrail.settings import read_run_file
from tests.chaos.records import must_be_left_whole, must_be_whole, until_over
from tests.support import kill_points
from tests.support.flow_runner import FlowRunner
from tests.support.kill_points import KillPoint
from tests.support.nginx import TestCa
from tests.support.process import accepts, free_port, wait_for
from tests.support.stack import Stack
from tests.support.world import World, world

# The rows of a clean run, in order; the first test holds the list to be complete.
ACTIONS = (
    "order.open",
    "challenge.publish",
    "challenge.respond",
    "order.finalize",
    "install.stage",
    "install.activate",
)
POINTS = [KillPoint(action, phase) for action in ACTIONS for phase in ("intent", "outcome")]
# Those of a proof that is a file on the web server (http-01) and no record.
BY_FILE = [
    KillPoint(action, phase)
    for action in ("challenge.publish", "challenge.respond")
    for phase in ("intent", "outcome")
]
BEGAN = time.time()
CASES = {
    **{f"k{number}.example.test": point for number, point in enumerate(POINTS)},
    **{f"h{number}.example.test": point for number, point in enumerate(BY_FILE)},
}
NAMES = ["clean.example.test", *CASES]
# And those of an installation that clients refuse, so that the one before is put back.
UNDONE = [KillPoint("install.restore", phase) for phase in ("intent", "outcome")]
REFUSED = [f"u{number}.example.test" for number in range(len(UNDONE))]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory, installation: Stack) -> Iterator[World]:
    folder, port = tmp_path_factory.mktemp("world"), free_port()
    with world(folder, [*NAMES, *REFUSED], http_port=port) as servers:
        webroot_of(servers).mkdir()
        serve_files(servers, port)
        stranger = servers.folder / "stranger.pem"
        stranger.write_bytes(TestCa().root.public_bytes(serialization.Encoding.PEM))
        whole = servers.configuration()
        whole["profiles"].append(servers.profile(name="stranger", trust=str(stranger)))
        by_file = {"method": "http-01", "webroot": str(webroot_of(servers))}
        whole["profiles"].append(servers.profile(name="by-file", validation=by_file))
        for endpoint in whole["endpoints"]:
            (name,) = endpoint["names"]
            if name in REFUSED:
                endpoint["profile"] = "stranger"
            elif is_by_file(name):
                endpoint["profile"] = "by-file"
                servers.dns.add_record(name, "A", "127.0.0.1")
        file = servers.write("certrail.yaml", whole)
        applied = installation.cli("apply", "-f", str(file))
        assert applied.returncode == 0, applied.stderr
        kill_points.install(installation.database_url)
        yield servers
        with pytest.MonkeyPatch.context() as patch:
            for name, value in found(installation).items():
                patch.setenv(name, value)
            must_be_left_whole(installation, [f"{name}:443" for name in NAMES])


def is_by_file(name: str) -> bool:
    """Return whether control of *name* is proven by a file."""
    return name.startswith("h")


def webroot_of(servers: World) -> Path:
    """Return the folder whose files the web server gives to everybody."""
    return servers.folder / "webroot"


def serve_files(servers: World, port: int) -> None:
    """Let nginx give the web root's files to the CA, which asks at *port*."""
    site = f"server {{ listen 127.0.0.1:{port}; root {webroot_of(servers)}; }}\n}}\n"
    before = servers.nginx.config.read_text()
    servers.nginx.write("nginx.conf", before.rstrip().removesuffix("}") + site)
    servers.nginx.reload()
    wait_for(lambda: accepts(port), "nginx serves the port of http-01")


def files_in(folder: Path) -> list[Path]:
    """Return everything that is below *folder*."""
    return list(folder.rglob("*"))


def found(installation: Stack) -> dict[str, str]:
    """Return the variables by which a process finds the installation."""
    running = read_run_file(installation.data_dir)
    assert running is not None
    return running.environment()


def make_request(installation: Stack, name: str) -> str:
    """Store a request that no worker knows of; this test runs it itself."""
    from certrail.model import Action
    from certrail.store import new_requests, plans
    from certrail.store.requests import Reason

    prepared = plans.for_location(f"{name}:443")
    request = new_requests.create(
        prepared.endpoint_id,
        action=Action.ENROLL,
        plan=prepared.plan,
        reason=Reason("requested", "by a test"),
        actor="test",
    )
    return str(request.id)


@pytest.fixture(scope="module")
def runner(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowRunner]:
    # A short lease: what the killed run held is free again at once.
    environment = {**found(installation), "CERTRAIL_LEASE_SECONDS": "1"}
    with FlowRunner(environment, tmp_path_factory.mktemp("runner") / "log") as running:
        yield running


@pytest.fixture(autouse=True)
def _database(installation: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in found(installation).items():
        monkeypatch.setenv(name, value)


def test_the_journal_of_a_clean_run_has_just_these_rows(
    installation: Stack, outside: World, runner: FlowRunner
) -> None:
    """A new effect must get its kill points, or nobody knows what a crash there does."""
    request_id = make_request(installation, "clean.example.test")

    runner.run(request_id)

    with psycopg.connect(installation.database_url) as connection:
        rows = connection.execute(
            "select distinct on (action) action from journal where request_id = %s", [request_id]
        ).fetchall()
    assert {action for (action,) in rows} == set(ACTIONS)
    assert_whole(installation, outside, request_id, "clean.example.test")


@pytest.mark.parametrize(
    ("name", "point"),
    CASES.items(),
    ids=[f"{point}{' by file' if is_by_file(name) else ''}" for name, point in CASES.items()],
)
def test_a_run_killed_here_is_finished_by_the_next(
    installation: Stack, outside: World, runner: FlowRunner, name: str, point: KillPoint
) -> None:
    """One order, one certificate, and a valid pair served throughout."""
    request_id = make_request(installation, name)
    before = outside.ca.order_count()

    with outside.nginx.visitors(name, threads=1, pause=0.01) as visits:
        with kill_points.armed(installation.database_url, point):
            victim = runner.start(request_id)
            kill_points.wait_until_caught(installation.database_url, point)
            # The proof is published then, and whoever is killed leaves it there.
            is_left = is_by_file(name) and point.action == "challenge.respond"
            assert bool(files_in(webroot_of(outside))) is is_left
            runner.kill(victim)
        runner.run(request_id)

    assert_whole(installation, outside, request_id, name)
    assert outside.ca.order_count() - before == 1
    assert not visits.failures


@pytest.mark.parametrize(
    ("number", "point"), list(enumerate(UNDONE)), ids=[str(point) for point in UNDONE]
)
def test_an_undo_killed_here_is_done_by_the_next(
    installation: Stack, outside: World, runner: FlowRunner, number: int, point: KillPoint
) -> None:
    """The certificate before serves in the end; in between a valid pair, one of the two."""
    name = REFUSED[number]
    request_id = make_request(installation, name)
    orders, old = outside.ca.order_count(), outside.nginx.served(name)

    with outside.nginx.visitors(name, threads=1, pause=0.01) as visits:
        with kill_points.armed(installation.database_url, point):
            victim = runner.start(request_id)
            kill_points.wait_until_caught(installation.database_url, point)
            runner.kill(victim)
        runner.run(request_id)
        until_over(installation, request_id)

    with psycopg.connect(installation.database_url) as connection:
        status = connection.execute("select status from requests where id = %s", [request_id])
        assert status.fetchone() == ("automation-failed",)
        failed = connection.execute(
            "select title, cause from steps where request_id = %s and status = 'failed'",
            [request_id],
        ).fetchall()
        undone = connection.execute(
            "select action from journal where request_id = %s and outcome is null", [request_id]
        ).fetchall()
    assert [title for title, _ in failed] == ["Testing installation"]
    assert "put back" in failed[0][1]
    assert undone == []
    assert outside.nginx.served(name) == old
    assert not visits.failures
    assert len(set(visits.seen)) <= 2
    assert outside.ca.order_count() - orders == 1
    left = [path for path in outside.nginx.directory.rglob("*") if ".certrail" in path.name]
    assert left == []


def assert_whole(installation: Stack, outside: World, request_id: str, name: str) -> None:
    """Check all that must hold once the request is through."""
    # Reconciliation may have taken it up first: then the run that we began left it to that one.
    until_over(installation, request_id)
    must_be_whole(installation, [UUID(request_id)], since=BEGAN)
    with psycopg.connect(installation.database_url) as connection:
        row = connection.execute(
            "select r.status, c.fingerprint from requests r"
            " join certificates c on c.id = r.certificate_id where r.id = %s",
            [request_id],
        ).fetchone()
        steps = connection.execute(
            "select status from steps where request_id = %s order by number", [request_id]
        ).fetchall()
        orders = connection.execute(
            "select count(*) from orders where request_id = %s", [request_id]
        ).fetchone()
        leases = connection.execute(
            "select lease_owner from requests where id = %s", [request_id]
        ).fetchone()
    assert row is not None, installation.cli("request", "show", request_id).stdout
    assert row[0] == "automation-successful"
    assert [status for (status,) in steps] == ["completed"] * 5
    assert orders == (1,)
    assert leases == (None,)
    wait_for(lambda: outside.nginx.served(name) == row[1], f"{name} serves the new certificate")
    assert outside.dns.records(f"_acme-challenge.{name}", "TXT") == []
    assert files_in(webroot_of(outside)) == []
    left = [path for path in outside.nginx.directory.rglob("*") if ".certrail" in path.name]
    assert left == []
