"""``certrail worker``: a sensor or an agent on another machine."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import click

from certrail.cli._output import examples
from certrail.cli._server import POOLS, client_environment
from certrail.settings import adopt, settings

_FORBIDDEN = "/%"  # Prefect puts the name into the worker's address


@click.command(
    epilog=examples(
        "certrail worker --pool sensors --name dmz-1",
        "certrail worker --pool agents --name web01 --queue web01",
    )
)
@click.option("--pool", type=click.Choice(POOLS), required=True, help="Whose runs it takes.")
@click.option("--name", help="Its name; unique in the pool.  [default: this machine's]")
@click.option("--queue", multiple=True, help="Only these queues of the pool; may be repeated.")
@click.option("--limit", type=click.IntRange(1), help="Runs at a time.  [default: 50]")
def worker(pool: str, name: str | None, queue: tuple[str, ...], limit: int | None) -> None:
    """Run a sensor or an agent until SIGTERM.

    On another machine, PREFECT_API_URL and CERTRAIL_CREDENTIAL_FILE say where
    the installation is and let it in: `certrail executor credential` writes that
    file. Beside a running `certrail up` nothing need be set.
    """
    if name and set(name) & set(_FORBIDDEN):
        raise click.BadParameter("it cannot hold / or %", param_hint="--name")
    found = adopt()
    command = [sys.executable, "-m", "deployments.worker", "--pool", pool]
    command += ["--name", name or socket.gethostname()]
    command += ["--limit", str(limit or settings().worker_limit)]
    command += [word for each in queue for word in ("--queue", each)]
    home = Path(found.data_dir).expanduser() / "prefect"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    # It takes our place, so that signals and the exit code are its own.
    sys.stderr.flush()
    os.execve(  # noqa: S606 - no shell is wanted
        sys.executable,
        command,
        client_environment(
            api_url=found.api_url,
            ui_url=found.ui_url,
            home=home,
            api_auth=found.api_auth,
            certrail={k: v for k, v in found.environment().items() if k.startswith("CERTRAIL_")},
        ),
    )
