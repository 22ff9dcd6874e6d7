"""Bulk jobs by several workers, with the server's messages in its one process or through Redis.

A job is cut into shards small enough that all workers have some to the end.
With Redis the Prefect server has two API processes and one for its services.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.jobs import CONCURRENCY, Job, measured, say, shard_of, world
from benchmarks.options import Options
from benchmarks.results import rows_of, with_rows

NAME = "bulk-workers"
API_PROCESSES = 2
_HEADS = (
    "endpoints",
    "workers",
    "messages",
    "rate",
    "CPU of an endpoint, workers / server",
    "HTTP calls / events per endpoint",
    "memory, workers / server",
    "database growth per endpoint, Prefect / inventory",
    "all recorded after",
    "successful",
    "lost / doubled",
)


def run(options: Options) -> str:
    """Measure what *options* ask for and return the chapter; rows measured before are kept."""
    made: list[Sequence[str]] = []
    for redis in options.redis:
        for workers in options.workers:
            processes = API_PROCESSES if redis else 1
            with world(options.sizes, workers=workers, processes=processes, redis=redis) as there:
                for count in options.sizes:
                    shard = ("--shard", str(shard_of(count, workers))) if workers > 1 else ()
                    job = measured(there, f"bench-{count}", count, *shard)
                    say(
                        f"{count} endpoints, {workers} workers, redis {redis}: {job.rate:.2f}/s, "
                        f"{job.lost} lost, {job.doubled} doubled"
                    )
                    made.append(_row(job, workers, "Redis" if redis else "in the process"))
    text = (
        f"## Bulk jobs by several workers\n\n{(__doc__ or '').partition(chr(10))[2].strip()} "
        f"{CONCURRENCY} endpoints at a time in all. Memory and CPU are those of all workers and of "
        "all processes of the server.\n\n"
    )
    return text + with_rows(_HEADS, rows_of(options.before, NAME), made, key=3)


def _row(job: Job, workers: int, messages: str) -> tuple[str, ...]:
    return (
        f"{job.count}",
        f"{workers}",
        messages,
        f"{job.rate:.2f}/s",
        f"{job.worker_cpu / job.count * 1000:.0f} / {job.server_cpu / job.count * 1000:.0f} ms",
        f"{job.calls / job.count:.1f} / {job.events / job.count:.0f}",
        f"{job.worker_mb:.0f} / {job.server_mb:.0f} MB",
        f"{job.prefect_mb / job.count * 1024:.0f} / {job.inventory_mb / job.count * 1024:.0f} kB",
        f"{job.recorded_seconds:.1f} s",
        f"{job.successful}",
        f"{job.lost} / {job.doubled}",
    )
