"""The variants of the web-server benchmark, each run in a process of its own.

    python -m benchmarks.variants certrail|plain|empty|acme|certbot CONCURRENCY COUNT

Prints its figures as one line of JSON. What it works on comes by
``BENCH_*`` variables from :mod:`benchmarks.web_server`.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import Run, counted_calls

_WARM_UP = 2


def main() -> None:
    """Run the variant named on the command line."""
    variant, concurrency, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    run = {
        "certrail": _certrail,
        "plain": _plain,
        "empty": _empty,
        "acme": _acme,
        "certbot": _certbot,
    }[variant](concurrency, count)
    sys.stdout.write(json.dumps(asdict(run)) + "\n")


def _certrail(concurrency: int, count: int) -> Run:
    """Whole requests: the flow as the worker runs it, steps, tracker and all."""
    from certrail.model import Action
    from certrail.store import new_requests, plans
    from certrail.store.requests import Reason
    from deployments.engine import install
    from deployments.lean import without_results
    from flows.web_server_request import request_web_server_certificate

    install()  # as in the worker
    run = without_results(request_web_server_certificate)

    names = os.environ["BENCH_NAMES"].split()[: count + _WARM_UP]
    ids = []
    for name in names:
        prepared = plans.for_location(f"{name}:443")
        request = new_requests.create(
            prepared.endpoint_id,
            action=Action.RENEW if prepared.certificate_id else Action.ENROLL,
            plan=prepared.plan,
            reason=Reason("requested", "by the benchmark"),
            actor="benchmark",
            previous_certificate_id=prepared.certificate_id,
        )
        ids.append(str(request.id))

    async def one(request_id: str) -> bool:
        state = await run(request_id, return_state=True)
        return bool(state.is_completed())

    return asyncio.run(_flows("certrail", one, ids, concurrency))


def _plain(concurrency: int, count: int) -> Run:
    """Prefect alone: a flow of five tasks that do nothing, written without any option."""
    from prefect import flow, task

    calls = counted_calls()

    @task
    async def step(_: str) -> None:
        return None

    @flow
    async def plain(request_id: str) -> None:
        for _ in range(5):
            await step(request_id)

    async def one(request_id: str) -> bool:
        state = await plain(request_id, return_state=True)
        return bool(state.is_completed())

    ids = [str(number) for number in range(count + _WARM_UP)]
    return asyncio.run(_measured("plain", one, ids, concurrency, calls))


def _empty(concurrency: int, count: int) -> Run:
    """The same with all that costs switched off: same options, same shape, one client."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    titles = [f"{number}. empty" for number in range(1, 6)]

    def make(title: str) -> Callable[[str], Awaitable[None]]:
        @task(name=title, task_run_name=title, cache_policy=NO_CACHE, persist_result=False)
        async def step(_: str) -> None:
            return None

        return step

    steps = [make(title) for title in titles]

    @flow(name="empty", validate_parameters=False, persist_result=False)
    async def empty(request_id: str) -> None:
        for step in steps:
            await step(request_id)

    async def one(request_id: str) -> bool:
        state = await empty(request_id, return_state=True)
        return bool(state.is_completed())

    return asyncio.run(_flows("empty", one, [str(n) for n in range(count + _WARM_UP)], concurrency))


async def _flows(
    variant: str,
    one: Callable[[str], Awaitable[bool]],
    ids: Sequence[str],
    concurrency: int,
) -> Run:
    from prefect.context import AsyncClientContext, SyncClientContext

    calls = counted_calls()
    # One client each for the process, as the worker has them.
    with SyncClientContext():
        async with AsyncClientContext.get_or_create():
            return await _measured(variant, one, ids, concurrency, calls)


async def _measured(
    variant: str,
    one: Callable[[str], Awaitable[bool]],
    ids: Sequence[str],
    concurrency: int,
    calls: list[int],
) -> Run:
    places = asyncio.Semaphore(concurrency)

    async def placed(request_id: str) -> bool:
        async with places:
            return await one(request_id)

    for request_id in ids[:_WARM_UP]:
        await one(request_id)
    calls[0], rss, cpu, start = 0, _rss_mb(), time.process_time(), time.monotonic()
    results = await asyncio.gather(*(placed(request_id) for request_id in ids[_WARM_UP:]))
    seconds = time.monotonic() - start
    cpu = time.process_time() - cpu
    return Run(
        variant=variant,
        concurrency=concurrency,
        count=len(ids) - _WARM_UP,
        failed=results.count(False),
        seconds=seconds,
        cpu_seconds=cpu,
        calls=calls[0],
        rss_growth_mb=_rss_mb() - rss,
    )


def _acme(concurrency: int, count: int) -> Run:
    """The same orders by certbot's ``acme`` library alone, polled every 20 ms, in threads."""
    from benchmarks.bare_acme import Orders

    orders = Orders(os.environ["BENCH_DIRECTORY"], os.environ["BENCH_CA_BUNDLE"])
    names = os.environ["BENCH_NAMES"].split()
    for name in names[:_WARM_UP]:
        orders.one(name)
    cpu, start = time.process_time(), time.monotonic()
    with ThreadPoolExecutor(concurrency) as pool:
        results = list(pool.map(orders.one, names[_WARM_UP : _WARM_UP + count]))
    return Run(
        variant="acme",
        concurrency=concurrency,
        count=count,
        failed=results.count(False),
        seconds=time.monotonic() - start,
        cpu_seconds=time.process_time() - cpu,
        calls=0,
        rss_growth_mb=0.0,
    )


def _certbot(concurrency: int, count: int) -> Run:
    """certbot, one certificate after the other, as its timer does it."""
    assert concurrency == 1
    names = os.environ["BENCH_NAMES"].split()[:count]
    failed = 0
    with tempfile.TemporaryDirectory() as home:
        common = ["--config-dir", f"{home}/etc", "--work-dir", f"{home}/work"]
        common += ["--logs-dir", f"{home}/log", "--non-interactive", "--agree-tos"]
        common += ["--register-unsafely-without-email", "--key-type", "ecdsa"]
        common += ["--server", os.environ["BENCH_DIRECTORY"], "--webroot", "-w", home]
        before, start = _children_cpu(), time.monotonic()
        for name in names:
            argv = [str(Path(sys.executable).with_name("certbot")), "certonly", *common, "-d", name]
            done = subprocess.run(
                argv,
                env={**os.environ, "REQUESTS_CA_BUNDLE": os.environ["BENCH_CA_BUNDLE"]},
                stdout=sys.stderr,
                check=False,
            )
            failed += done.returncode != 0
    return Run(
        variant="certbot",
        concurrency=1,
        count=count,
        failed=failed,
        seconds=time.monotonic() - start,
        cpu_seconds=_children_cpu() - before,
        calls=0,
        rss_growth_mb=0.0,
    )


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
