"""Both databases fail over under requests, the disk of ours or of all is full, its clock steps.

In the last two the inventory is one of the test's own, beside a Prefect server that has
another: what that server shows of runs that were killed is compared in the other modules.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import text

from certrail.cli import _starting
from certrail.errors import Unreachable
from certrail.model import Action
from certrail.postgres import EmbeddedPostgres
from certrail.settings import read_run_file
from certrail.store import database, new_requests, plans, requests
from certrail.store.requests import Reason, Request
from tests.chaos.leaks import must_not_leak
from tests.chaos.records import audit_trail_is_whole, must_be_whole, nothing_is_held
from tests.support import kill_points
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, estate
from tests.support.flow_runner import FlowRunner
from tests.support.handshake import fingerprint_at
from tests.support.kill_points import KillPoint
from tests.support.machine_clock import MachineClock
from tests.support.machine_clock import postgres as stepped_postgres
from tests.support.postgres_pair import postgres_pair
from tests.support.process import let_in, wait_for
from tests.support.stack import Stack, cli, environment, stack, start

ACTIVE = ("automation-requested", "in-progress")
_MUCH = "create table much as select md5(n::text) from generate_series(1, 300000) n"


@pytest.fixture
def prefect(installation: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process use the installation's Prefect server, and no inventory yet."""
    running = read_run_file(installation.data_dir)
    assert running is not None
    found = {
        **running.environment(),
        "CERTRAIL_DATA_DIR": str(tmp_path / "data"),
        "CERTRAIL_LEASE_SECONDS": "1",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: installation.api_url}):
        yield


@contextmanager
def inventory(url: str, folder: Path, prefix: str, count: int) -> Iterator[Estate]:
    """Fill the database at *url* with endpoints that are served."""
    with pytest.MonkeyPatch.context() as patch, estate(folder / "estate", prefix, count) as made:
        patch.setenv("CERTRAIL_DATABASE_URL", url)
        database.migrate(url)
        kill_points.install(url)
        applied = cli("apply", "-f", str(made.write()), env=environment(folder / "data", found()))
        assert applied.returncode == 0, applied.stderr
        yield made


def found() -> dict[str, str]:
    """Return the variables by which a process finds the database and the Prefect server."""
    return {k: v for k, v in os.environ.items() if k.startswith(("CERTRAIL_", "PREFECT_"))}


def make_request(location: str) -> str:
    """Store a request that no worker knows of; this test runs it itself."""
    prepared = plans.for_location(location)
    made = new_requests.create(
        prepared.endpoint_id,
        action=Action.ENROLL,
        plan=prepared.plan,
        reason=Reason("requested", "by a test"),
        actor="test",
    )
    return str(made.id)


def test_a_failover_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Of our database and Prefect's at once; requests had just got certificates, unrecorded."""
    point = KillPoint("order.finalize", "outcome")
    began = time.time()
    with postgres_pair(tmp_path) as pair, ExitStack() as on:
        found = {
            "CERTRAIL_DATABASE_URL": pair.url,
            "CERTRAIL_PREFECT_DATABASE_URL": pair.prefect_url,
            "CERTRAIL_LEASE_SECONDS": "5",
            "CERTRAIL_RETRY_SECONDS": "0.2",
            "CERTRAIL_SETTLE_SECONDS": "5",
        }
        running = on.enter_context(stack(extra=found))
        served = on.enter_context(estate(tmp_path / "estate", "fo", 3))
        run_file = read_run_file(running.data_dir)
        assert run_file is not None
        patch = on.enter_context(pytest.MonkeyPatch.context())
        for name, value in run_file.environment().items():
            patch.setenv(name, value)
        kill_points.install(pair.url)
        applied = running.cli("apply", "-f", str(served.write()))
        assert applied.returncode == 0, applied.stderr

        # What holds the runs there dies with the primary.
        with suppress(psycopg.OperationalError), kill_points.armed(pair.url, point):
            for location in served.locations():
                started = running.cli("request", "start", location)
                assert started.returncode == 0, started.stderr
            kill_points.wait_until_caught(pair.url, point)
            pair.fail_over()
        ids = the_end(running, len(served.names))

        must_be_served(pair.url, served)
        must_agree(running, locations=served.locations(), within=180)
        must_be_whole(running, ids, since=began)
        nothing_is_held(running, ids)
        audit_trail_is_whole(running)
        must_not_leak(running, ids)


def the_end(running: Stack, count: int) -> list[UUID]:
    """Wait until *count* requests are through, retrying what failed as an operator would."""
    tries = Counter[UUID]()
    found: dict[UUID, str] = {}

    def over() -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(running.database_url) as database:
            found.update(database.execute("select id, status from requests").fetchall())
        for request_id, status in found.items():
            if status == "automation-failed" and tries[request_id] < 5:
                done = running.cli("request", "retry", str(request_id))
                tries[request_id] += done.returncode == 0
        return list(found.values()) == ["automation-successful"] * count

    # A run whose worker lost the database is taken up by the repair of every minute.
    wait_for(over, "all requests are through", within=180)

    def at_rest() -> bool:
        with psycopg.connect(running.database_url) as database:
            row = database.execute("select count(*) from steps where status = 'running'")
            return row.fetchone() == (0,)

    # A run that lost its lease to another one, and lives, looks once more at what that one did.
    wait_for(at_rest, "no run is left", within=60)
    return list(found)


def test_the_disk_of_the_data_directory_is_full(tmp_path: Path) -> None:
    """Databases, logs and leases are on it: what is asked meanwhile is told why it cannot be.

    With room again everything goes on by itself, or after a retry.
    """
    began = time.time()
    point = KillPoint("order.finalize", "intent")
    with (
        small_disk(tmp_path / "disk", "400m") as disk,
        estate(tmp_path / "estate", "dd", 3) as served,
        whole_on(disk / "data") as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        run_file = read_run_file(running.data_dir)
        assert run_file is not None
        for name, value in run_file.environment().items():
            patch.setenv(name, value)
        kill_points.install(running.database_url)
        applied = running.cli("apply", "-f", str(served.write()))
        assert applied.returncode == 0, applied.stderr

        # The lock goes with its connection where the row cannot be removed.
        with (
            suppress(psycopg.OperationalError),
            kill_points.armed(running.database_url, point),
        ):
            for location in served.locations():
                started = running.cli("request", "start", location)
                assert started.returncode == 0, started.stderr
            kill_points.wait_until_caught(running.database_url, point)
            fill(disk)
        told = until_refused(running, served.locations()[0])
        (disk / "filler").unlink()
        ids = the_end(running, len(served.names))

        # After a panic there is no server that could say why.
        assert "no room left" in told or "does not answer" in told, told
        assert "defect" not in told
        must_be_served(running.database_url, served)
        must_agree(running, locations=served.locations(), within=180)
        must_be_whole(running, ids, since=began)
        nothing_is_held(running, ids)
        audit_trail_is_whole(running)
        must_not_leak(running, ids)


@contextmanager
def whole_on(data_dir: Path) -> Iterator[Stack]:
    """Run a whole installation that has its data there."""
    extra = {
        "CERTRAIL_LEASE_SECONDS": "5",
        "CERTRAIL_RETRY_SECONDS": "0.2",
        "CERTRAIL_SETTLE_SECONDS": "5",
    }
    running = start(data_dir, extra=extra)
    try:
        yield running
    finally:
        running.stop()


def until_refused(running: Stack, location: str) -> str:
    """Change an endpoint again and again until that cannot be written; returns what was said."""
    said: list[str] = []

    def refused() -> bool:
        wanted = "on" if len(said) % 2 else "off"
        done = running.cli("endpoint", "auto-renew", location, wanted)
        said.append(done.stdout + done.stderr)
        return done.returncode != 0

    wait_for(refused, "the full disk is noticed", within=60)
    return said[-1]


@pytest.mark.usefixtures("prefect")
def test_the_disk_of_the_database_is_full(installation: Stack, tmp_path: Path) -> None:
    """Nothing can be recorded between order and certificate; with room again it goes on."""
    began = time.time()
    point = KillPoint("order.finalize", "intent")
    with small_disk(tmp_path / "disk") as disk:
        server = EmbeddedPostgres(disk / "postgres", durable=False)
        server.start()
        try:
            with (
                inventory(server.url("certrail"), tmp_path, "df", 1) as served,
                FlowRunner(found(), tmp_path / "runner.log") as runner,
            ):
                url = server.url("certrail")
                (request_id,) = [make_request(location) for location in served.locations()]
                with kill_points.armed(url, point):
                    run = runner.start(request_id)
                    kill_points.wait_until_caught(url, point)
                    fill(disk)
                    with (
                        pytest.raises(Unreachable, match="no room left") as caught,
                        database.transaction() as connection,
                    ):
                        connection.execute(text(_MUCH))
                    assert "Make room" in caught.value.remedy
                runner.wait(run)
                assert request(request_id).certificate_id is None
                (disk / "filler").unlink()
                if server.process is None or server.process.poll() is not None:
                    server.start()
                to_the_end(runner, request_id)

                must_be_whole_there(installation, url, served, began, tmp_path)
        finally:
            server.stop()


@pytest.mark.usefixtures("prefect")
def test_the_clock_of_the_database_is_stepped(
    installation: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By three hours to and fro, which leases are measured by; one worker dies each time.

    Forward, the other one's lease seems to be over while it lives, and a second worker takes
    its request too; back, the dead one's would last for three hours, and nobody waits for it.
    """
    began = time.time()
    monkeypatch.setenv("CERTRAIL_LEASE_SECONDS", "60")
    point = KillPoint("order.finalize", "intent")
    clock = MachineClock.made(tmp_path / "clock")
    with (
        stepped_postgres(tmp_path / "pg", clock) as server,
        inventory(server.url("certrail"), tmp_path, "sc", 4) as served,
        FlowRunner(found(), tmp_path / "runner.log") as runner,
    ):
        url = server.url("certrail")
        ids = [make_request(location) for location in served.locations()]
        for hours, (dies, lives) in ((3, ids[:2]), (0, ids[2:])):
            with kill_points.armed(url, point):
                runs = [runner.start(dies), runner.start(lives)]
                kill_points.wait_until_caught(url, point, number=2)
                clock.step(hours=hours)
                runner.kill(runs[0])
                runs = [runs[1], runner.start(lives), runner.start(dies)]
            for run in runs:
                runner.wait(run)
            for request_id in (dies, lives):
                to_the_end(runner, request_id)

        must_be_whole_there(installation, url, served, began, tmp_path)


@contextmanager
def small_disk(folder: Path, size: str = "200m") -> Iterator[Path]:
    """Mount a file system with room for a new cluster and little more."""
    folder.mkdir()
    let_in(folder)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no block free."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass


def must_be_whole_there(
    beside: Stack, url: str, served: Estate, began: float, folder: Path
) -> None:
    """All that must hold of the inventory at *url*, whose runs were shown by another's server."""
    must_be_served(url, served)
    with psycopg.connect(url) as connection:
        ids = [id_ for (id_,) in connection.execute("select id from requests")]
    here = replace(beside, database_url=url)
    must_be_whole(here, ids, since=began)
    must_not_leak(here, ids, logs=[folder / "runner.log"])


def must_be_served(url: str, served: Estate) -> None:
    """One order and one certificate for each endpoint; served, told once, held by nobody."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select r.status, r.lease_owner, c.fingerprint, e.location,"
            " (select count(*) from orders o where o.request_id = r.id),"
            " (select count(*) from outbox o where o.request_id = r.id"
            "   and o.event = 'certrail.request.completed')"
            " from requests r join endpoints e on e.id = r.endpoint_id"
            " left join certificates c on c.id = r.certificate_id"
        ).fetchall()
        steps = connection.execute("select distinct status from steps").fetchall()
    assert len(rows) == len(served.names)
    for status, owner, fingerprint, location, orders, told in rows:
        assert (status, owner, orders, told) == ("automation-successful", None, 1, 1)
        assert fingerprint_at(served.port, location.partition(":")[0]) == fingerprint
    assert {status for (status,) in steps} <= {"completed", "skipped"}
    assert served.issued() == dict.fromkeys(served.names, 1)


def request(request_id: str) -> Request:
    """Return the request."""
    return requests.get(UUID(request_id))


def to_the_end(runner: FlowRunner, request_id: str) -> None:
    """Run a request again until it is through, as repair and operator do."""
    for _ in range(5):
        present = request(request_id)
        if present.status not in (*ACTIVE, "automation-failed"):
            return
        if present.status == "automation-failed":
            _starting.reopen(present, "test")
        runner.run(request_id)
    raise AssertionError(f"{request_id} does not end")
