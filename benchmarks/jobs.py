"""Bulk jobs as the benchmarks measure them: an installation with its workers, and one job on it.

Each endpoint has a server name of its own at one TLS server; its request goes
through all steps, is journaled and recorded, and is verified by a handshake.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from tests.support.bulk import Estate, estate
from tests.support.process import running
from tests.support.redis_broker import broker
from tests.support.stack import ROOT, Stack, stack

CONCURRENCY = 20
_LONGEST = 4 * 3600
_RECORDED_SECONDS = 120
_WORKER = "deployments.worker"
_LARGEST_SHARD = 500


@dataclass(frozen=True)
class Job:
    """One measured job.

    Attributes:
        seconds: from its beginning to its end.
        recorded_seconds: until Prefect had every run and task run in its final state.
        lost: task runs that Prefect never recorded.
        doubled: certificates issued beyond one for each endpoint.
    """

    count: int
    workers: int
    successful: int
    seconds: float
    recorded_seconds: float
    lost: int
    doubled: int
    worker_cpu: float
    server_cpu: float
    calls: int
    events: int
    worker_mb: float
    server_mb: float
    prefect_mb: float
    inventory_mb: float

    @property
    def rate(self) -> float:
        """Endpoints in a second."""
        return self.count / self.seconds

    @property
    def server_share(self) -> float:
        """The Prefect server's part of the CPU that the job took."""
        return self.server_cpu / (self.worker_cpu + self.server_cpu)


@dataclass(frozen=True)
class World:
    """An installation with its workers, and the endpoints of its jobs.

    Attributes:
        folder: for files of the benchmark.
        extra: process ids of the workers beside the one of ``certrail up``.
    """

    installation: Stack
    served: Estate
    folder: Path
    extra: tuple[int, ...] = ()

    def run(self, *arguments: str) -> str:
        """Run ``certrail`` and return what it printed."""
        done = self.installation.cli(*arguments, within=1800)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stdout}\n{done.stderr}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run ``certrail … --json`` and return what it printed."""
        return json.loads(self.run(*arguments, "--json"))

    def workers(self) -> list[psutil.Process]:
        """Return the workers' processes."""
        own = self.installation.child(_WORKER)
        return [psutil.Process(pid) for pid in (own, *self.extra)]

    def servers(self) -> list[psutil.Process]:
        """Return the processes of the Prefect server."""
        children = psutil.Process(self.installation.process.pid).children()
        return [one for one in children if "certrail.cli._serve" in one.cmdline()]

    def prefect(self) -> psycopg.Connection[Any]:
        """Return a connection to Prefect's database."""
        return psycopg.connect(self.installation.database_url.rpartition("/")[0] + "/prefect")


@contextmanager
def world(
    counts: Sequence[int],
    *,
    workers: int = 1,
    processes: int = 1,
    redis: bool = False,
) -> Iterator[World]:
    """Run an installation whose endpoints have a tag ``first-N`` for each of *counts*.

    Args:
        workers: of the pool ``agents``, the one of ``certrail up`` included.
        processes: of the Prefect server.
        redis: whether its messages go through Redis.
    """
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="certrail-bulk-")))
        extra = {
            "PYTHONPATH": os.pathsep.join((str(ROOT / "benchmarks" / "counting"), str(ROOT))),
            "BENCH_COUNT_FILE": str(folder / "calls"),
            "BENCH_COUNT_IN": _WORKER,
            "CERTRAIL_SERVER_PROCESSES": str(processes),
        }
        if redis:
            extra["CERTRAIL_REDIS_URL"] = exits.enter_context(broker(folder)).url
        served = exits.enter_context(estate(folder / "estate", "bench", max(counts)))
        installation = exits.enter_context(stack(extra=extra))
        configuration = served.configuration()
        for number, endpoint in enumerate(configuration["endpoints"]):
            # Each measured job takes as many as it asks for, by a tag.
            endpoint["tags"] = [f"first-{n}" for n in counts if number < n]
        more = [
            exits.enter_context(_worker(installation, folder, n)) for n in range(2, workers + 1)
        ]
        made = World(installation, served, folder, tuple(more))
        made.run("apply", "-f", str(served.write(configuration)))
        lift_limits(installation, (f"ca:{served.prefix}-ca", f"device:{served.prefix}-here"))
        yield made


def lift_limits(installation: Stack, names: Iterable[str]) -> None:
    """Let budgets hold up nobody: the folder of a test takes more at a time than a device."""
    with httpx.Client(base_url=installation.api_url, timeout=30) as api:
        for name in names:
            made = api.post("/v2/concurrency_limits/", json={"name": name, "limit": 1000})
            made.raise_for_status()


@contextmanager
def _worker(installation: Stack, folder: Path, number: int) -> Iterator[int]:
    name = f"bench-{number}"
    argv = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]
    with running(
        [*argv, "--name", name, "--queue", "default"],
        log=folder / f"{name}.log",
        env=installation.env,
        ready=lambda: name in installation.cli("executor", "list").stdout,
        within=90,
    ) as process:
        yield process.pid


def shard_of(count: int, workers: int) -> int:
    """Return a size of shards with which all workers have work nearly to the end."""
    return min(_LARGEST_SHARD, max(1, ceil(count / workers / 2)))


def measured(world: World, name: str, count: int, *options: str) -> Job:
    """Run a job over the first *count* endpoints and return its figures."""
    workers, servers = world.workers(), world.servers()
    issued = world.served.issued()
    before = _figures(world, workers, servers)
    world.run(
        "job", "start", name, "--filter", f"tag=first-{count}", "--action", "reissue",
        "--concurrency", str(CONCURRENCY), *options,
    )  # fmt: skip
    shown = until_over(world, name)
    over = time.monotonic()
    expected = 5 * count
    while (recorded := _recorded(world, shown["flow_run_id"])) < expected:
        if time.monotonic() - over > _RECORDED_SECONDS:
            break
        time.sleep(0.2)
    recorded_seconds = time.monotonic() - over
    after = _figures(world, workers, servers)
    return Job(
        count=count,
        workers=len(workers),
        successful=shown["counts"]["successful"],
        seconds=span(shown["started_at"], shown["ended_at"]),
        recorded_seconds=recorded_seconds,
        lost=expected - recorded,
        doubled=_doubled(world, issued),
        worker_cpu=after["worker_cpu"] - before["worker_cpu"],
        server_cpu=after["server_cpu"] - before["server_cpu"],
        calls=int(after["calls"] - before["calls"]),
        events=int(after["events"] - before["events"]),
        worker_mb=sum(one.memory_info().rss for one in workers) / 2**20,
        server_mb=sum(one.memory_info().rss for one in servers) / 2**20,
        prefect_mb=(after["prefect_size"] - before["prefect_size"]) / 2**20,
        inventory_mb=(after["inventory_size"] - before["inventory_size"]) / 2**20,
    )


def _figures(
    world: World, workers: Sequence[psutil.Process], servers: Sequence[psutil.Process]
) -> dict[str, float]:
    with world.prefect() as connection:
        row = connection.execute(
            "select pg_database_size('prefect'), (select count(*) from events)"
        ).fetchone()
    with psycopg.connect(world.installation.database_url) as connection:
        own = connection.execute("select pg_database_size(current_database())").fetchone()
    assert row is not None
    assert own is not None
    return {
        "worker_cpu": sum(sum(one.cpu_times()[:2]) for one in workers),
        "server_cpu": sum(sum(one.cpu_times()[:2]) for one in servers),
        "calls": sum(float(file.read_text()) for file in world.folder.glob("calls.*[0-9]")),
        "prefect_size": row[0],
        "events": row[1],
        "inventory_size": own[0],
    }


def _doubled(world: World, before: Mapping[str, int]) -> int:
    """Count the certificates issued since *before* beyond one for each name."""
    now = world.served.issued()
    return sum(max(0, number - before.get(name, 0) - 1) for name, number in now.items())


def _recorded(world: World, flow_run_id: str) -> int:
    """Count the steps of a job's endpoints that Prefect has in their final state."""
    query = """
      select count(*) from task_run step join flow_run child on child.id = step.flow_run_id
      join task_run tracking on tracking.id = child.parent_task_run_id
      where tracking.flow_run_id = %s and step.state_type = 'COMPLETED'
        and child.state_type = 'COMPLETED' and step.flow_run_id <> %s
    """
    with world.prefect() as connection:
        row = connection.execute(query, [flow_run_id, flow_run_id]).fetchone()
    assert row is not None
    return int(row[0])


def until_over(world: World, name: str) -> dict[str, Any]:
    """Wait for the end of a job and return what is shown of it."""
    deadline = time.monotonic() + _LONGEST
    with psycopg.connect(world.installation.database_url, autocommit=True) as connection:
        while status_of(connection, name) in ("scheduled", "running"):
            if time.monotonic() > deadline:
                raise SystemExit(f"the job {name} did not end")
            time.sleep(0.5)
    shown: dict[str, Any] = world.json("job", "show", name)
    return shown


def status_of(connection: psycopg.Connection[Any], name: str) -> str:
    """Read how far a job is.

    From its row: each ``certrail job show`` takes a second of a core from what is measured.
    """
    row = connection.execute("select status from jobs where name = %s", [name]).fetchone()
    assert row is not None
    return str(row[0])


def span(begin: str, end: str) -> float:
    """Return the seconds between two moments of a JSON object."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def say(text: str) -> None:
    """Tell whoever watches how far it is."""
    sys.stderr.write(f"{text}\n")
