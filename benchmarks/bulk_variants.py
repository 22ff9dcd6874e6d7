"""What a bulk job is measured against, each in a process of its own.

    python -m benchmarks.bulk_variants bare|naive CONCURRENCY COUNT

``bare``: a flow that gathers sub-flows of five empty async tasks in one event
loop, as Prefect offers it. ``naive``: sync sub-flows of five empty tasks in
threads. Prints its figures as one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import httpx
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException

from benchmarks.measure import Run, counted_calls

_TASKS = 5


def main() -> None:
    """Run the variant named on the command line."""
    variant, concurrency, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    calls = counted_calls()
    started, cpu = time.monotonic(), time.process_time()
    failed = _VARIANTS[variant](concurrency, count)
    run = Run(
        variant=variant,
        concurrency=concurrency,
        count=count,
        failed=failed,
        seconds=time.monotonic() - started,
        cpu_seconds=time.process_time() - cpu,
        calls=calls[0],
        rss_growth_mb=0.0,
    )
    sys.stdout.write(json.dumps(asdict(run)) + "\n")


def _bare(concurrency: int, count: int) -> int:
    def make(title: str) -> Any:
        @task(name=title, task_run_name=title, cache_policy=NO_CACHE, persist_result=False)
        async def step(_: int) -> None:
            return None

        return step

    steps = [make(f"{number}. empty") for number in range(1, _TASKS + 1)]

    @flow(name="bare-child", validate_parameters=False, persist_result=False)
    async def child(number: int) -> None:
        for step in steps:
            await step(number)

    @flow(name="bare", validate_parameters=False, persist_result=False)
    async def parent() -> int:
        places = asyncio.Semaphore(concurrency)

        async def one(number: int) -> bool:
            async with places:
                state = await child(number, return_state=True)
                return bool(state.is_completed())

        return (await asyncio.gather(*(one(number) for number in range(count)))).count(False)

    return asyncio.run(parent())


def _naive(concurrency: int, count: int) -> int:
    def make(title: str) -> Any:
        @task(name=title)
        def step(_: int) -> None:
            return None

        return step

    steps = [make(f"{number}. empty") for number in range(1, _TASKS + 1)]

    @flow(name="naive-child")
    def child(number: int) -> None:
        for step in steps:
            step(number)

    @flow(name="naive")
    def parent() -> int:
        def one(number: int) -> bool:
            try:
                return bool(child(number, return_state=True).is_completed())
            except (PrefectException, httpx.HTTPError):  # the server gave up on it
                return False

        with ThreadPoolExecutor(concurrency) as pool:
            ran = [
                pool.submit(contextvars.copy_context().run, one, number) for number in range(count)
            ]
            return [each.result() for each in ran].count(False)

    return parent()


_VARIANTS = {"bare": _bare, "naive": _naive}


if __name__ == "__main__":
    main()
