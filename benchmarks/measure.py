"""Figures of one measured run, and how runs are compared."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True)
class Run:
    """One variant, run once.

    Attributes:
        variant: its name.
        concurrency: how many at a time.
        count: how many were done.
        failed: how many of them did not succeed.
        seconds: wall time for all.
        cpu_seconds: CPU of the measured process.
        calls: HTTP calls to the Prefect server.
        rss_growth_mb: growth of the process from its warm state to the end.
    """

    variant: str
    concurrency: int
    count: int
    failed: int
    seconds: float
    cpu_seconds: float
    calls: int
    rss_growth_mb: float

    @property
    def rate(self) -> float:
        """How many in a second."""
        return self.count / self.seconds


def in_process(
    variant: str,
    *arguments: object,
    environment: Mapping[str, str],
    log: Path,
    module: str = "benchmarks.variants",
) -> Run:
    """Run *module* in a process of its own and read its figures."""
    argv = [sys.executable, "-m", module, variant, *map(str, arguments)]
    with log.open("a") as sink:
        done = subprocess.run(
            argv,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=sink,
            check=True,
        )
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def counted_calls() -> list[int]:
    """Count from now on the calls of every httpx client of this process, which are Prefect's.

    Returns the count as the only item of a list, which goes on growing.
    """
    calls = [0]
    for kind in (httpx.AsyncClient, httpx.Client):
        _count(kind, calls)
    return calls


def _count(kind: Any, calls: list[int]) -> None:
    send: Callable[..., Any] = kind.send

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return send(self, *args, **kwargs)

    kind.send = counted


def median_rate(runs: Sequence[Run]) -> float:
    """Return the median of the rates."""
    return statistics.median(run.rate for run in runs)


def machine() -> str:
    """Return one line about where this was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
