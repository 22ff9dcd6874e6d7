"""The worker's process: ``python -m deployments.worker --pool agents --name NAME``.

Prefect's connection settings come from the environment. The event loop runs
beside the main thread: Prefect's engine puts a SIGTERM handler into the main
thread for each run, and with many runs in one loop they would replace each
other's; here the main thread only waits for the signal to stop.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.events.worker import EventsWorker
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL

from certrail.cli import _timezones
from certrail.cli._server import POOLS, api_trust
from certrail.errors import CertrailError, Unreachable
from certrail.heap import give_back_regularly, keep, without_core_files
from certrail.wait import Pending, until
from deployments.engine import install
from deployments.heartbeat import Heartbeat, make_queues, serving
from deployments.in_process import InProcessWorker, Watch
from deployments.logs import simplify

_API = timedelta(seconds=120)
_FLUSH_SECONDS = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    options = _parser().parse_args(argv)
    without_core_files()
    setup_logging()
    simplify()
    logging.getLogger("certrail").setLevel(os.environ.get("CERTRAIL_LOG_LEVEL", "INFO"))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    give_back_regularly()
    try:
        _wait_for_api(stop)
    except CertrailError as exc:
        sys.stderr.write(f"{exc}\n{exc.remedy}\n")
        return 3
    done: Future[None] = Future()
    loop_thread = threading.Thread(target=_in_loop, args=(options, stop, done), daemon=True)
    loop_thread.start()
    # Polled rather than joined, so that signals are handled meanwhile.
    while not done.done():
        stop.wait(0.2) if not stop.is_set() else loop_thread.join(0.2)
    error = done.exception()
    if error is not None:
        logging.getLogger("certrail").error("the worker ends", exc_info=error)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that still hang in a remote call must not hold up the exit; their
    # runs were handed back.
    os._exit(0 if error is None else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="certrail worker")
    parser.add_argument("--pool", action="append", choices=POOLS, required=True)
    parser.add_argument("--name", default=socket.gethostname())
    parser.add_argument("--queue", action="append", default=None)
    parser.add_argument("--limit", type=int, default=50, help="runs at a time, per pool")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds for runs at the end")
    parser.add_argument("--bootstrap", action="store_true", help="set the server up first")
    parser.add_argument("--ready-fd", type=int, default=-1, help="gets a line when work begins")
    return parser


def _wait_for_api(stop: threading.Event) -> None:
    url = PREFECT_API_URL.value()
    if not url:
        raise Unreachable("PREFECT_API_URL is not set", remedy="Set it to the server's address.")

    trust = api_trust()

    def attempt() -> bool | Pending:
        if stop.is_set():
            return True
        try:
            # Ready means its database answers too, without which nothing can be set up.
            return httpx.get(f"{url}/ready", timeout=5, verify=trust).is_success or Pending()
        except httpx.TransportError:
            return Pending()

    until(
        attempt,
        timeout=_API,
        interval=timedelta(milliseconds=100),
        slowest=timedelta(milliseconds=500),
        late=lambda: Unreachable(f"the Prefect server at {url} does not answer"),
    )


def _in_loop(options: argparse.Namespace, stop: threading.Event, done: Future[None]) -> None:
    try:
        asyncio.run(_work(options, stop))
    except BaseException as exc:  # noqa: BLE001 - carried over to the main thread
        done.set_exception(exc)
    else:
        done.set_result(None)


async def _work(options: argparse.Namespace, stop: threading.Event) -> None:
    install()
    _timezones.remember()
    async with AsyncExitStack() as stack:
        # One client of each kind for everything. They must be made without settings of
        # their own: Prefect makes a new one, 25 ms of CPU, wherever they would differ.
        await stack.enter_async_context(AsyncClientContext())
        stack.enter_context(SyncClientContext())
        if options.bootstrap:
            from deployments.bootstrap import bootstrap, drop_missed
            from deployments.upcoming import keep_scheduled

            await bootstrap()
            await drop_missed()
            keeping = asyncio.create_task(keep_scheduled())
            stack.callback(keeping.cancel)
        queues = serving(options.name, options.queue)
        for pool in options.pool:
            await make_queues(pool, queues)
        watch = await stack.enter_async_context(Watch())
        workers = [
            InProcessWorker(
                work_pool_name=pool,
                name=options.name,
                work_queues=queues,
                limit=options.limit,
                create_pool_if_not_found=True,
                watch=watch,
            )
            for pool in options.pool
        ]
        loops = [asyncio.create_task(worker.start(printer=_quiet)) for worker in workers]
        listening = [asyncio.create_task(worker.listen()) for worker in workers]
        beats = [Heartbeat(pool, options.name, queues) for pool in options.pool]
        for beat in beats:
            stack.callback(beat.stop)
            beat.start()
        logging.getLogger("certrail").info(
            "worker %r takes runs of %s", options.name, ", ".join(options.pool)
        )
        keep()
        _tell_ready(options.ready_fd)
        await _until_stopped(stop, loops)
        await asyncio.gather(*(worker.drain(options.grace) for worker in workers))
        for task in (*loops, *listening):
            task.cancel()
        await asyncio.wait(loops, timeout=_FLUSH_SECONDS)
        await _flush()
        for loop in loops:
            if loop.done() and not loop.cancelled() and (error := loop.exception()):
                raise error


async def _until_stopped(stop: threading.Event, loops: Sequence[asyncio.Task[None]]) -> None:
    # A worker's loop ends by itself only when it fails for good.
    while not stop.is_set() and not any(loop.done() for loop in loops):
        await asyncio.wait(loops, timeout=0.1)


async def _flush() -> None:
    """Send what is queued: states of task runs go as events, logs in batches."""
    await APILogHandler.aflush()
    drained: Any = EventsWorker.drain_all(timeout=_FLUSH_SECONDS)
    if asyncio.iscoroutine(drained):
        await drained


def _tell_ready(descriptor: int) -> None:
    if descriptor >= 0:
        os.write(descriptor, b"ready\n")
        os.close(descriptor)


def _quiet(*_: object) -> None:
    """Prefect's notes to a terminal; ours are in the log."""


if __name__ == "__main__":
    sys.exit(main())
