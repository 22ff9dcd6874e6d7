"""Bulk jobs: whole requests with a CA on disk and endpoints that really handshake.

Each endpoint has a server name of its own at one TLS server; its request goes
through all steps, is journaled and recorded, and is verified by a handshake.
Beside it in the same run: Prefect alone in the same shape with empty tasks, on
the same server; and the naive form with Prefect's defaults: on the server that
``prefect server start`` gives, which keeps its records in SQLite, and on
PostgreSQL.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.jobs import CONCURRENCY, Job, measured, say, world
from benchmarks.measure import Run, in_process
from benchmarks.options import Options
from benchmarks.results import rows_of, with_rows
from certrail.settings import read_run_file
from tests.support.process import die_with_parent, free_port, running
from tests.support.stack import ROOT, Stack, environment, stop

NAME = "bulk"
NAIVE_COUNT = 50
# It would take as long as the job itself.
MOST_BARE = 1000


def run(options: Options) -> str:
    """Measure what *options* ask for and return the chapter; rows measured before are kept."""
    counts = options.sizes
    jobs: list[Job] = []
    bare: dict[int, Run] = {}
    with world(counts) as made:
        own = _environment(made.installation)
        log = made.folder / "variants.log"
        after: Run | None = None
        for count in counts:
            # On both sides of the job: the machine is not always equally fast.
            if after and after.count == min(count, MOST_BARE):
                before = after
            else:
                before = _bare(count, own, log)
            jobs.append(measured(made, f"bench-{count}", count))
            say(f"job x{count}: {jobs[-1].rate:.2f}/s, {jobs[-1].lost} lost")
            after = _bare(count, own, log)
            bare[count] = _together(before, after)
    naive = _naive("SQLite", _as_it_comes), _naive("PostgreSQL", _defaults)
    return _chapter(jobs, bare, *naive, before=rows_of(options.before, NAME))


def _bare(count: int, own: dict[str, str], log: Path) -> Run:
    run = in_process(
        "bare", CONCURRENCY, min(count, MOST_BARE), environment=own, log=log,
        module="benchmarks.bulk_variants",
    )  # fmt: skip
    say(f"bare x{run.count}: {run.rate:.2f}/s")
    return run


def _together(before: Run, after: Run) -> Run:
    return dataclasses.replace(
        before,
        count=before.count + after.count,
        failed=before.failed + after.failed,
        seconds=before.seconds + after.seconds,
        calls=before.calls + after.calls,
    )


def _naive(name: str, server: Callable[[], AbstractContextManager[dict[str, str]]]) -> Run:
    with server() as own:
        run = in_process(
            "naive", CONCURRENCY, NAIVE_COUNT, environment=own, log=Path(os.devnull),
            module="benchmarks.bulk_variants",
        )  # fmt: skip
    say(f"naive, {name}, x{run.count}: {run.rate:.2f}/s, {run.failed} failed")
    return run


@contextmanager
def _as_it_comes() -> Iterator[dict[str, str]]:
    """Run ``prefect server start`` and nothing else."""
    with tempfile.TemporaryDirectory(prefix="certrail-naive-") as folder:
        port = free_port()
        own = {
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_HOME": folder,
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # there may be no network
            "PYTHONPATH": str(ROOT),
        }
        argv = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        with running(argv, log=Path(folder, "server.log"), port=port, env=own, within=120):
            yield own


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


def _chapter(
    jobs: Sequence[Job],
    bare: dict[int, Run],
    as_it_comes: Run,
    postgresql: Run,
    *,
    before: Sequence[Sequence[str]],
) -> str:
    heads = (
        "endpoints",
        "Certrail",
        "bare Prefect",
        "Certrail to bare",
        "to naive, as Prefect comes",
        "to naive, PostgreSQL",
        "engine share",
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
        f"Bare Prefect: a flow that gathers sub-flows of five empty tasks ({MOST_BARE} at most), "
        "same server, once before and once after the job. Naive: sync "
        "sub-flows of five empty tasks in threads with Prefect's defaults, on `prefect server "
        "start` as it comes (SQLite) and on a server with PostgreSQL. Engine share: of what an "
        "endpoint costs, the part that is Prefect's; at least the server's part of the CPU, at "
        "most the time that a child of bare Prefect takes, which makes more calls.",
        "",
        with_rows(
            heads,
            before,
            [_row(job, bare[job.count], as_it_comes, postgresql) for job in jobs],
            key=1,
        ).rstrip(),
    ]
    rates = [job.rate for job in jobs]
    lines += [
        "",
        f"Bare Prefect makes {_calls(bare)} HTTP calls for each child. "
        f"{_told(as_it_comes, 'SQLite')}; {_told(postgresql, 'PostgreSQL')}. "
        f"Cost per endpoint from {jobs[0].count} to {jobs[-1].count} endpoints: within "
        f"{max(rates) / min(rates):.2f} times. Endpoints that did not succeed in all jobs: "
        f"{sum(job.count - job.successful for job in jobs)}.",
        "",
    ]
    return "\n".join(lines)


def _told(naive: Run, database: str) -> str:
    failed = f", {naive.failed} of {naive.count} failed" if naive.failed else ""
    return f"Naive on {database}: {_successes(naive):.2f}/s{failed}"


def _successes(run: Run) -> float:
    return (run.count - run.failed) / run.seconds


def _row(job: Job, beside: Run, *naive: Run) -> tuple[str, ...]:
    return (
        f"{job.count}",
        f"{job.rate:.2f}/s",
        f"{beside.rate:.2f}/s",
        f"**{job.rate / beside.rate:.2f}**",
        *(f"**{job.rate / _successes(run):.1f}**" for run in naive),
        f"{job.server_share:.0%} to {min(1.0, job.rate / beside.rate):.0%}",
        f"{job.worker_cpu / job.count * 1000:.0f} / {job.server_cpu / job.count * 1000:.0f} ms",
        f"{job.calls / job.count:.1f} / {job.events / job.count:.0f}",
        f"{job.worker_mb:.0f} / {job.server_mb:.0f} MB",
        f"{job.prefect_mb / job.count * 1024:.0f} / {job.inventory_mb / job.count * 1024:.0f} kB",
        f"{job.recorded_seconds:.1f} s",
        f"{job.lost} / {job.doubled}",
    )


def _calls(runs: dict[int, Run]) -> str:
    return f"{sum(r.calls for r in runs.values()) / sum(r.count for r in runs.values()):.1f}"
