"""Bulk jobs: whole requests with a CA on disk and endpoints that really handshake.

Each endpoint has a server name of its own at one TLS server; its request goes
through all steps, is journaled and recorded, and is verified by a handshake.
Beside it in the same run: Prefect alone in the same shape with empty tasks, on
the same server; and the naive form, on a server with Prefect's defaults.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from benchmarks.measure import Run, in_process
from certrail.settings import read_run_file
from tests.support.bulk import Estate, estate
from tests.support.process import die_with_parent
from tests.support.stack import ROOT, Stack, environment, stack, stop

COUNTS = (100, 1000)
LARGE = (100, 1000, 10_000)
CONCURRENCY = 20
NAIVE_COUNT = 100
_LONGEST = 4 * 3600
_RECORDED_SECONDS = 120


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


def run(counts: Sequence[int] = COUNTS) -> str:
    """Measure and return the chapter for ``benchmarks/results.md``."""
    jobs: list[Job] = []
    bare: dict[int, Run] = {}
    with _world(max(counts)) as (installation, served, folder):
        own = _environment(installation)
        log = folder / "variants.log"
        for count in counts:
            # Beside each other in time: the machine is not always equally fast.
            bare[count] = in_process(
                "bare", CONCURRENCY, min(count, 1000), environment=own, log=log,
                module="benchmarks.bulk_variants",
            )  # fmt: skip
            _say(f"bare x{bare[count].count}: {bare[count].rate:.2f}/s")
            jobs.append(_job(installation, served, folder, count))
            _say(f"job x{count}: {jobs[-1].rate:.2f}/s, {jobs[-1].lost} lost")
    with _defaults() as own:
        naive = in_process(
            "naive", CONCURRENCY, NAIVE_COUNT, environment=own, log=Path(os.devnull),
            module="benchmarks.bulk_variants",
        )  # fmt: skip
        _say(f"naive x{naive.count}: {naive.rate:.2f}/s")
    return _chapter(jobs, bare, naive)


def large() -> str:
    """Measure with 10,000 endpoints too: an hour on a small machine."""
    return run(LARGE)


@contextmanager
def _world(count: int) -> Iterator[tuple[Stack, Estate, Path]]:
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="certrail-bulk-")))
        counting = {
            "PYTHONPATH": os.pathsep.join((str(ROOT / "benchmarks" / "counting"), str(ROOT))),
            "BENCH_COUNT_FILE": str(folder / "calls"),
            "BENCH_COUNT_IN": "deployments.worker",
        }
        served = exits.enter_context(estate(folder / "estate", "bench", count))
        installation = exits.enter_context(stack(extra=counting))
        configuration = served.configuration()
        for number, endpoint in enumerate(configuration["endpoints"]):
            # Each measured job takes as many as it asks for, by a tag.
            endpoint["tags"] = [f"first-{n}" for n in LARGE if number < n]
        _run(installation, "apply", "-f", str(served.write(configuration)))
        with httpx.Client(base_url=installation.api_url, timeout=30) as api:
            for name in (f"ca:{served.prefix}-ca", f"device:{served.prefix}-here"):
                # The folder of a test takes more at a time than a device would.
                made = api.post("/v2/concurrency_limits/", json={"name": name, "limit": 1000})
                made.raise_for_status()
        yield installation, served, folder


def _job(installation: Stack, served: Estate, folder: Path, count: int) -> Job:
    worker = psutil.Process(installation.child("deployments.worker"))
    server = psutil.Process(installation.child("certrail.cli._serve"))
    issued = sum(served.issued().values())
    before = _figures(installation, worker, server, folder)
    name = f"bench-{count}"
    _run(
        installation, "job", "start", name, "--filter", f"tag=first-{count}", "--action",
        "reissue", "--concurrency", str(CONCURRENCY),
    )  # fmt: skip
    shown = _until_over(installation, name)
    over = time.monotonic()
    expected = 5 * count
    while (recorded := _recorded(installation, shown["flow_run_id"])) < expected:
        if time.monotonic() - over > _RECORDED_SECONDS:
            break
        time.sleep(0.2)
    recorded_seconds = time.monotonic() - over
    after = _figures(installation, worker, server, folder)
    return Job(
        count=count,
        workers=1,
        successful=shown["counts"]["successful"],
        seconds=_span(shown["started_at"], shown["ended_at"]),
        recorded_seconds=recorded_seconds,
        lost=expected - recorded,
        doubled=sum(served.issued().values()) - issued - count,
        worker_cpu=after["worker_cpu"] - before["worker_cpu"],
        server_cpu=after["server_cpu"] - before["server_cpu"],
        calls=int(after["calls"] - before["calls"]),
        events=int(after["events"] - before["events"]),
        worker_mb=worker.memory_info().rss / 2**20,
        server_mb=server.memory_info().rss / 2**20,
        prefect_mb=(after["prefect_size"] - before["prefect_size"]) / 2**20,
        inventory_mb=(after["inventory_size"] - before["inventory_size"]) / 2**20,
    )


def _figures(
    installation: Stack, worker: psutil.Process, server: psutil.Process, folder: Path
) -> dict[str, float]:
    prefect = installation.database_url.rpartition("/")[0] + "/prefect"
    with psycopg.connect(prefect) as connection:
        row = connection.execute(
            "select pg_database_size('prefect'), (select count(*) from events)"
        ).fetchone()
    with psycopg.connect(installation.database_url) as connection:
        own = connection.execute("select pg_database_size(current_database())").fetchone()
    assert row is not None
    assert own is not None
    calls = folder / "calls"
    return {
        "worker_cpu": sum(worker.cpu_times()[:2]),
        "server_cpu": sum(server.cpu_times()[:2]),
        "calls": float(calls.read_text()) if calls.exists() else 0.0,
        "prefect_size": row[0],
        "events": row[1],
        "inventory_size": own[0],
    }


def _recorded(installation: Stack, flow_run_id: str) -> int:
    """Count the steps of a job's endpoints that Prefect has in their final state."""
    prefect = installation.database_url.rpartition("/")[0] + "/prefect"
    query = """
      select count(*) from task_run step join flow_run child on child.id = step.flow_run_id
      join task_run tracking on tracking.id = child.parent_task_run_id
      where tracking.flow_run_id = %s and step.state_type = 'COMPLETED'
        and child.state_type = 'COMPLETED' and step.flow_run_id <> %s
    """
    with psycopg.connect(prefect) as connection:
        row = connection.execute(query, [flow_run_id, flow_run_id]).fetchone()
    assert row is not None
    return int(row[0])


def _until_over(installation: Stack, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        shown: dict[str, Any] = json.loads(_run(installation, "job", "show", name, "--json"))
        if shown["status"] not in ("scheduled", "running"):
            return shown
        time.sleep(min(10.0, 1.0 + shown["counts"]["total"] / 200))
    raise SystemExit(f"the job {name} did not end")


@contextmanager
def _defaults() -> Iterator[dict[str, str]]:
    """Run the Prefect server as it is set up by default, on PostgreSQL."""
    program = (
        "import certrail.cli._server as server; server.SERVER_SETTINGS = (); "
        "from certrail.cli.main import main; main()"
    )
    with tempfile.TemporaryDirectory(prefix="certrail-naive-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", program, "up", "--port", "0", "--data-dir", str(data)],
            env=environment(data),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready ")
            found = read_run_file(data)
            assert found is not None
            yield {
                "PREFECT_API_URL": found.api_url,
                "PREFECT_HOME": folder,
                "PREFECT_LOGGING_LEVEL": "INFO",
                "PYTHONPATH": str(ROOT),
            }
        finally:
            stop(process, signal.SIGTERM)


def _environment(installation: Stack) -> dict[str, str]:
    return {
        **installation.env,
        "PREFECT_API_URL": installation.api_url,
        "PREFECT_HOME": str(installation.data_dir / "prefect"),
        "BENCH_COUNT_FILE": "",
    }


def _run(installation: Stack, *arguments: str) -> str:
    done = installation.cli(*arguments, within=1200)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _span(begin: str, end: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def _chapter(jobs: Sequence[Job], bare: dict[int, Run], naive: Run) -> str:
    heads = (
        "endpoints",
        "Certrail",
        "bare Prefect",
        "Certrail to bare",
        "to naive",
        "CPU of an endpoint, worker / server",
        "HTTP calls / events per endpoint",
        "memory, worker / server",
        "database growth per endpoint, Prefect / inventory",
        "all recorded after",
        "lost / doubled",
    )
    lines = [
        "## Bulk jobs",
        "",
        f"{CONCURRENCY} endpoints at a time, one worker, the Prefect server of `certrail up`. The "
        "time of a job is from the beginning of its flow run to its end: shards handed to the "
        "worker, every request with its steps, journal, certificate and handshake, the artifacts. "
        "Bare Prefect: a flow that gathers sub-flows of five empty tasks, same server. Naive: sync "
        "sub-flows of five empty tasks in threads, a server with Prefect's defaults.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(_row(job, bare[job.count], naive) for job in jobs),
    ]
    rates = [job.rate for job in jobs]
    lines += [
        "",
        f"Bare Prefect makes {_calls(bare)} HTTP calls for each child; naive: {naive.rate:.2f}/s. "
        f"Cost per endpoint from {jobs[0].count} to {jobs[-1].count} endpoints: within "
        f"{max(rates) / min(rates):.2f} times. Endpoints that did not succeed in all jobs: "
        f"{sum(job.count - job.successful for job in jobs)}.",
        "",
    ]
    return "\n".join(lines)


def _row(job: Job, beside: Run, naive: Run) -> str:
    cells = (
        f"{job.count}",
        f"{job.rate:.2f}/s",
        f"{beside.rate:.2f}/s",
        f"**{job.rate / beside.rate:.2f}**",
        f"**{job.rate / naive.rate:.1f}**",
        f"{job.worker_cpu / job.count * 1000:.0f} / {job.server_cpu / job.count * 1000:.0f} ms",
        f"{job.calls / job.count:.1f} / {job.events / job.count:.0f}",
        f"{job.worker_mb:.0f} / {job.server_mb:.0f} MB",
        f"{job.prefect_mb / job.count * 1024:.0f} / {job.inventory_mb / job.count * 1024:.0f} kB",
        f"{job.recorded_seconds:.1f} s",
        f"{job.lost} / {job.doubled}",
    )
    return f"| {' | '.join(cells)} |"


def _calls(runs: dict[int, Run]) -> str:
    return f"{sum(r.calls for r in runs.values()) / sum(r.count for r in runs.values()):.1f}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
