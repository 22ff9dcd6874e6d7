"""The Prefect server's process: ``python -m certrail.cli._serve``.

What ``prefect server start`` does with one process, with two differences.
Prefect is imported (seconds of CPU) while the database is still starting, and
open browser pages do not hold up the shutdown.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import psycopg
import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from certrail.errors import CertrailError, Unreachable
from certrail.log import plain
from certrail.wait import Pending, until

_DATABASE = timedelta(seconds=90)
_STOP_SECONDS = 3


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    try:
        _wait_for_database(os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"])
    except CertrailError as exc:
        sys.stderr.write(f"{exc}\n")
        return 3
    api = get_current_settings().server.api
    uvicorn.run(
        create_app(final=True),
        host=str(api.host),
        port=int(api.port),
        timeout_keep_alive=api.keepalive_timeout,
        timeout_graceful_shutdown=_STOP_SECONDS,
        log_level="warning",
    )
    return 0


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
