"""A Prefect server of several processes: one dies, their Redis goes away, their clock steps."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import psycopg
import pytest

from certrail.settings import read_run_file
from tests.chaos.leaks import must_not_leak
from tests.chaos.records import (
    audit_trail_is_whole,
    no_core_files,
    nothing_is_held,
    rows_are_whole,
)
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, chosen, estate
from tests.support.handshake import fingerprint_at
from tests.support.machine_clock import MachineClock
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.redis_broker import PASSWORD, Broker, broker
from tests.support.stack import Stack, stack

FIRST, SECOND, THIRD = 3, 8, 8


@dataclass(frozen=True)
class Yard:
    """An installation of several processes, its Redis, and endpoints."""

    stack: Stack
    redis: Broker
    served: Estate
    folder: Path
    clock: MachineClock

    def processes(self, role: str) -> set[int]:
        """Return those of the server's processes that have a role."""
        found = set()
        for process in psutil.Process(self.stack.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # ended meanwhile, or waits to be noticed
                if process.cmdline()[-2:] == ["certrail.cli._serve", role]:
                    found.add(process.pid)
        return found

    def successful(self, job: str) -> list[UUID]:
        """Return the requests of a job that came through."""
        with psycopg.connect(self.stack.database_url) as connection:
            rows = connection.execute(
                "select r.id from requests r join jobs j on j.id = r.job_id"
                " where j.name = %s and r.status = 'automation-successful'",
                [job],
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
    clock = MachineClock.made(folder / "clock")
    with (
        broker(folder) as redis,
        estate(folder / "estate", "redis", FIRST + SECOND + THIRD + 1) as served,
        stack(
            "--server-processes",
            "2",
            extra={
                "CERTRAIL_REDIS_URL": redis.url,
                "CERTRAIL_LEASE_SECONDS": "5",
                "CERTRAIL_SETTLE_SECONDS": "5",
                **clock.environment(of="certrail.cli._serve"),
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
        yield Yard(running, redis, served, folder, clock)


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
    job = start(yard, "restarts", yard.served.names[FIRST : FIRST + SECOND])

    for done, how in ((1, signal.SIGKILL), (SECOND // 2, signal.SIGTERM)):
        under_way(yard, job, done)
        yard.redis.restart(how)

    must_end_well(yard, job, SECOND, began)


def test_the_clock_of_the_server_is_stepped_under_requests(yard: Yard) -> None:
    """By three hours forth, six back, and right again; renewals are decided meanwhile."""
    began = time.time()
    job = start(yard, "clocks", yard.served.names[FIRST + SECOND : -1])

    with closing(PrefectApi(yard.stack.api_url)) as api:
        sweep = api.get("/deployments/name/renewal-sweep/every-minute")["id"]
        for done, hours in ((1, 3), (3, -3), (5, 0)):
            under_way(yard, job, done)
            yard.clock.step(hours=hours)
            swept = api.run(sweep)
            if hours < 0:
                # Its run is of the future, says the server, until its clock is right.
                single = start(yard, "future", yard.served.names[-1:])
        wait_for(lambda: api.read(swept)["state"]["type"] == "COMPLETED", "a sweep", within=120)

    must_end_well(yard, job, THIRD, began)
    must_end_well(yard, single, 1, began)


def start(yard: Yard, job: str, names: Sequence[str]) -> str:
    """Start a job of some endpoints, two at a time; returns its name."""
    folder = yard.folder / job
    folder.mkdir()
    some = chosen([f"{name}:443" for name in names], folder)
    done = yard.stack.cli("job", "start", job, "--locations-file", str(some), "--concurrency", "2")
    assert done.returncode == 0, done.stderr
    return job


def under_way(yard: Yard, job: str, done: int) -> None:
    """Wait until so many requests are through; others are not."""
    wait_for(lambda: len(yard.successful(job)) >= done, "some are through", within=90)
    assert not yard.is_over(job), "there is nothing left to break"


def must_end_well(yard: Yard, job: str, count: int, began: float) -> None:
    """All that must hold of a job's requests, once it is over."""
    wait_for(lambda: yard.is_over(job), "the job ends", within=120)

    ids = yard.successful(job)
    assert len(ids) == count
    must_agree(yard.stack, job=job, within=180)
    rows_are_whole(yard.stack, ids)
    nothing_is_held(yard.stack, ids)
    audit_trail_is_whole(yard.stack)
    no_core_files(yard.stack, since=began)
    must_not_leak(yard.stack, ids, logs=yard.folder.glob("*.log"))
    issued = yard.served.issued()
    with psycopg.connect(yard.stack.database_url) as connection:
        rows = connection.execute(
            "select e.location, c.fingerprint from requests r"
            " join endpoints e on e.id = r.endpoint_id"
            " join certificates c on c.id = r.certificate_id where r.id = any(%s)",
            [ids],
        ).fetchall()
    assert len(rows) == count
    for location, fingerprint in rows:
        name = location.partition(":")[0]
        assert issued[name] == 1
        assert fingerprint_at(yard.served.port, name) == fingerprint
