"""The Prefect server's process: ``python -m certrail.cli._serve [api|services]``.

What ``prefect server start`` does, with six differences. Prefect is imported
(seconds of CPU) while the database is still starting, open browser pages do
not hold up the shutdown, of several processes each is a child of
``certrail up``, which none of them outlives, it reads fewer rows for each run
(:mod:`certrail.cli._server_lean`), slots that a crash has left without a lease
are given back (:mod:`certrail.cli._lost_slots`), and its memory is tended
(:mod:`certrail.heap`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from datetime import timedelta

import psycopg
import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from certrail.cli import _lost_slots, _server_lean
from certrail.errors import CertrailError, Unreachable
from certrail.heap import give_back_regularly, keep
from certrail.log import plain
from certrail.wait import Pending, until

_DATABASE = timedelta(seconds=90)
_STOP_SECONDS = 3


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    give_back_regularly()
    try:
        _wait_for_database(os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"])
    except CertrailError as exc:
        sys.stderr.write(f"{exc}\n")
        return 3
    _server_lean.install()
    _lost_slots.install()
    if role == "services":
        asyncio.run(_services())
    else:
        _serve(is_one_of_several=role == "api")
    return 0


def _serve(*, is_one_of_several: bool) -> None:
    api = get_current_settings().server.api
    config = uvicorn.Config(
        create_app(final=True, webserver_only=is_one_of_several),
        host=str(api.host),
        port=int(api.port),
        timeout_keep_alive=api.keepalive_timeout,
        timeout_graceful_shutdown=_STOP_SECONDS,
        log_level="warning",
    )
    sockets = [_shared(config.host, config.port)] if is_one_of_several else None
    config.load()
    keep()
    uvicorn.Server(config).run(sockets)


def _shared(host: str, port: int) -> socket.socket:
    """Return a socket on a port that other processes listen on too; the kernel deals out calls."""
    family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(where)
    return made


async def _services() -> None:
    """Run what records task runs, schedules, triggers and cleans up, for all API processes."""
    from prefect.cli._server_utils import _run_all_services

    task = asyncio.create_task(_run_all_services())
    # Cancelled, they write what they have in hand; ended by the signal they would not.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def _wait_for_database(url: str) -> None:
    target = url.replace("+asyncpg", "", 1)
    last = ""

    def attempt() -> bool | Pending:
        nonlocal last
        try:
            psycopg.connect(target, connect_timeout=5).close()
        except psycopg.OperationalError as exc:
            last = plain(exc).strip()
            return Pending()
        return True

    until(
        attempt,
        timeout=_DATABASE,
        interval=timedelta(milliseconds=50),
        slowest=timedelta(seconds=1),
        late=lambda: Unreachable(f"Prefect's database does not answer: {last}"),
    )


if __name__ == "__main__":
    sys.exit(main())
