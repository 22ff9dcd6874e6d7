"""A Prefect server of several processes, whose messages go through a Redis that goes away."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import psycopg
import pytest

from certrail.settings import read_run_file
from tests.chaos.records import must_be_whole_at_last
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, chosen, estate
from tests.support.handshake import fingerprint_at
from tests.support.process import wait_for
from tests.support.redis_broker import PASSWORD, Broker, broker
from tests.support.stack import Stack, stack

FIRST, SECOND = 3, 8


@dataclass(frozen=True)
class Yard:
    """An installation of several processes, its Redis, and endpoints."""

    stack: Stack
    redis: Broker
    served: Estate
    folder: Path

    def processes(self, role: str) -> set[int]:
        """Return those of the server's processes that have a role."""
        found = set()
        for process in psutil.Process(self.stack.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # ended meanwhile, or waits to be noticed
                if process.cmdline()[-2:] == ["certrail.cli._serve", role]:
                    found.add(process.pid)
        return found

    def successful(self) -> list[UUID]:
        """Return the requests of the second job that came through."""
        with psycopg.connect(self.stack.database_url) as connection:
            rows = connection.execute(
                "select r.id from requests r join jobs j on j.id = r.job_id"
                " where j.name = 'restarts' and r.status = 'automation-successful'"
            )
            return [id_ for (id_,) in rows]

    def is_over(self, job: str) -> bool:
        """Whether a job has ended."""
        with psycopg.connect(self.stack.database_url) as connection:
            row = connection.execute("select ended_at from jobs where name = %s", [job]).fetchone()
        return row is not None and row[0] is not None


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("redis")
    with (
        broker(folder) as redis,
        estate(folder / "estate", "redis", FIRST + SECOND) as served,
        stack(
            "--server-processes",
            "2",
            extra={
                "CERTRAIL_REDIS_URL": redis.url,
                "CERTRAIL_LEASE_SECONDS": "5",
                "CERTRAIL_SETTLE_SECONDS": "5",
            },
        ) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        found = read_run_file(running.data_dir)
        assert found is not None
        for name, value in found.environment().items():
            patch.setenv(name, value)
        whole = served.configuration()
        for endpoint in whole["endpoints"][FIRST:]:
            endpoint["server"]["test"] = ["sleep", "0.5"]
        applied = running.cli("apply", "-f", str(served.write(whole)))
        assert applied.returncode == 0, applied.stderr
        yield Yard(running, redis, served, folder)


def test_every_run_is_recorded_and_each_process_that_dies_comes_back(yard: Yard) -> None:
    """What one process is told the others know; the services outlive any of them."""
    told: list[str] = []
    for process in psutil.Process(yard.stack.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a connection of the database that was closed
            told += process.cmdline()
    api, services = yard.processes("api"), yard.processes("services")
    for pid in (min(api), *services):
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: (
            len(yard.processes("api") - {min(api)}) == 2
            and len(yard.processes("services") - services) == 1
        ),
        "both are back",
        within=90,
    )
    some = chosen(yard.served.locations()[:FIRST], yard.folder)
    ran = yard.stack.cli("job", "start", "told", "--locations-file", str(some), "--wait", "--json")
    must_agree(yard.stack, job="told")
    doctor = json.loads(yard.stack.cli("doctor", "--json").stdout)

    assert len(api) == 2
    assert len(services) == 1
    assert json.loads(ran.stdout)["counts"]["successful"] == FIRST
    assert told
    assert not [word for word in told if PASSWORD in word]
    found = [one for one in doctor if one["check"] == "server-settings"]
    assert [one["status"] for one in found] == ["ok"]


def test_redis_is_killed_and_restarted_under_requests(yard: Yard) -> None:
    """All that it carried is lost, twice: nothing of a request is, and no slot stays taken."""
    began = time.time()
    names = yard.served.names[FIRST:]
    (yard.folder / "second").mkdir()
    some = chosen([f"{name}:443" for name in names], yard.folder / "second")
    started = yard.stack.cli(
        "job", "start", "restarts", "--locations-file", str(some), "--concurrency", "2"
    )
    assert started.returncode == 0, started.stderr

    for done, how in ((1, signal.SIGKILL), (SECOND // 2, signal.SIGTERM)):
        wait_for(lambda done=done: len(yard.successful()) >= done, "some are through", within=90)  # type: ignore[misc]
        assert not yard.is_over("restarts"), "there is nothing left to break"
        yard.redis.restart(how)
    wait_for(lambda: yard.is_over("restarts"), "the job ends", within=120)

    ids = yard.successful()
    assert len(ids) == SECOND
    must_agree(yard.stack, job="restarts", within=180)
    must_be_whole_at_last(yard.stack, ids, since=began, logs=yard.folder.glob("*.log"))
    issued = yard.served.issued()
    assert [issued[name] for name in names] == [1] * SECOND
    with psycopg.connect(yard.stack.database_url) as connection:
        rows = connection.execute(
            "select e.location, c.fingerprint from requests r"
            " join endpoints e on e.id = r.endpoint_id"
            " join certificates c on c.id = r.certificate_id where r.id = any(%s)",
            [ids],
        ).fetchall()
    for location, fingerprint in rows:
        assert fingerprint_at(yard.served.port, location.partition(":")[0]) == fingerprint
