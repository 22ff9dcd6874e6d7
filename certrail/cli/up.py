"""``certrail up``: everything for one machine, until SIGTERM."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import click
import httpx
from pydantic import SecretStr

from certrail.cli import _own_secrets
from certrail.cli._children import Child, Keeper
from certrail.cli._database import EmbeddedPart, prepare_external
from certrail.cli._output import examples
from certrail.cli._redis import answering_redis
from certrail.cli._server import (
    POOLS,
    Address,
    client_environment,
    server_command,
    server_environment,
)
from certrail.errors import InvalidRequest, Unreachable
from certrail.ports import keep_port, number
from certrail.settings import (
    RUN_FILE,
    Installation,
    Settings,
    read_run_file,
    settings,
    write_run_file,
)

_START_SECONDS = 300.0
_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 4


@click.command(
    epilog=examples(
        "certrail up",
        "certrail up --port 0 --data-dir /srv/certrail",
        "certrail up --redis redis://127.0.0.1:6379/0 --server-processes 4",
    ),
)
@click.option("--host", help="Address of the Prefect server.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Its port; 0: any.  [default: 4200]")
@click.option(
    "--database-url",
    help="A PostgreSQL of your own, postgresql://user:password@host/name. Better put it into "
    "CERTRAIL_DATABASE_URL: other accounts can read a command line.",
)
@click.option(
    "--redis",
    metavar="URL",
    help="A Redis for the Prefect server's messages, redis://host/0. Better put it into "
    "CERTRAIL_REDIS_URL when it has a password.",
)
@click.option(
    "--server-processes",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Processes of the Prefect server; several need --redis.  [default: 1]",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept.  [default: ~/.local/share/certrail]",
)
def up(
    host: str | None,
    port: int | None,
    database_url: str | None,
    redis: str | None,
    server_processes: int | None,
    data_dir: Path | None,
) -> None:
    """Run everything on this machine, until SIGTERM or Ctrl-C.

    Starts PostgreSQL (unless you name one), brings its databases up to date,
    starts the Prefect server and a worker, and starts again what ends. When
    work can begin, prints `ready <address of Prefect's UI>`.
    """
    given = {
        "host": host,
        "port": port,
        "database_url": SecretStr(database_url) if database_url else None,
        "redis_url": SecretStr(redis) if redis else None,
        "server_processes": server_processes,
        "data_dir": data_dir.expanduser().resolve() if data_dir else None,
    }
    chosen = settings().model_copy(update={k: v for k, v in given.items() if v is not None})
    Up(chosen).run()


class Up:
    """One run of ``certrail up``."""

    def __init__(self, chosen: Settings) -> None:
        self._settings = chosen
        self._data_dir = chosen.data_dir.expanduser().resolve()
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._told = ""

    def run(self) -> None:
        """Start everything, keep it running, and stop it all at SIGTERM or SIGINT.

        Raises:
            Unreachable: the data directory is in use, the port is taken, or a
                part does not start.
        """
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(one, lambda *_: self._stop.set())
        with ExitStack() as stack:
            self._prepare_folder(stack)
            redis_url = self._redis_url()
            key_file = _own_secrets.sealing_key_file(self._settings, self._data_dir, self._say)
            address = self._address(stack)
            api_auth = self._api_auth(address)
            home = self._folder("prefect")
            inventory_url, prefect_url, database = self._database(stack)
            server, *others = self._servers(
                server_environment(
                    address,
                    database_url=prefect_url,
                    home=home,
                    encryption_key=_own_secrets.prefect_key(self._data_dir),
                    api_auth=api_auth,
                    redis_url=redis_url,
                )
            )
            described = Installation(
                api_url=address.api_url,
                ui_url=address.ui_url,
                database_url=inventory_url,
                pid=os.getpid(),
                key_file=key_file,
                api_auth=api_auth,
                data_dir=str(self._data_dir),
            )
            worker = self._worker(described, home)
            # Both import Prefect while the databases are brought up to date.
            for part in (server, *others):
                stack.callback(part.stop)
            server.start()
            stack.callback(worker.stop)
            worker.start()
            self._migrate(inventory_url)
            self._wait_until_healthy(server, address)
            for part in others:
                part.start()  # the first one has brought their database up to date
            self._wait_until_working(server, worker)
            if self._stop.is_set():
                self._say("stopping before the start was complete")
                return
            write_run_file(self._data_dir, described)
            stack.callback((self._data_dir / RUN_FILE).unlink, missing_ok=True)
            click.echo(f"ready {address.ui_url}")
            sys.stdout.flush()
            keeper = Keeper([*([database] if database else []), server, *others, worker], self._say)
            while not self._stop.wait(_LOOK_SECONDS):
                keeper.look()
                self._keep_described(described)
            self._say("stopping")
        self._say("stopped")

    def _keep_described(self, described: Installation) -> None:
        """Write the run file again where it is gone or damaged: other shells look for us there."""
        if read_run_file(self._data_dir) == described:
            return
        try:
            write_run_file(self._data_dir, described)
        except OSError as exc:
            told = f"{RUN_FILE} cannot be written: {exc.strerror}"
        else:
            told = f"{RUN_FILE} was gone or changed, and is written again"
        if told != self._told:
            self._say(told)
            self._told = told

    def _say(self, line: str) -> None:
        click.echo(f"[{time.monotonic() - self._began:6.1f} s] {line}", err=True)

    def _prepare_folder(self, stack: ExitStack) -> None:
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self._data_dir / "lock").open("a")
        except OSError as exc:
            raise Unreachable(
                f"the data directory {self._data_dir} cannot be used: {exc.strerror}",
                remedy="Give another one by --data-dir, or correct its owner.",
            ) from exc
        stack.enter_context(lock)
        try:
            # The kernel drops the lock with the process, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Unreachable(
                f"another `certrail up` uses {self._data_dir}",
                remedy="Use that one, stop it, or give another --data-dir.",
            ) from exc

    def _folder(self, name: str) -> Path:
        folder = self._data_dir / name
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def _address(self, stack: ExitStack) -> Address:
        host = self._settings.host
        try:
            # Kept to the end, so that the port is still ours when the server is restarted.
            kept = stack.enter_context(keep_port(host, self._settings.port))
        except socket.gaierror as exc:
            raise Unreachable(
                f"{host!r} is not an address of this machine", remedy="Give another --host."
            ) from exc
        except OSError as exc:
            raise Unreachable(
                f"port {self._settings.port} of {host} cannot be used: {exc.strerror}",
                remedy="Give another one by --port (0 takes a free one), "
                "or stop what listens there.",
            ) from exc
        return Address(host, number(kept), self._settings.public_url)

    def _api_auth(self, address: Address) -> str:
        given = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
        if given or address.is_loopback:
            return given
        return _own_secrets.api_auth(self._data_dir, self._say, address.host)

    def _database(self, stack: ExitStack) -> tuple[str, str, EmbeddedPart | None]:
        if self._settings.database_url is not None:
            theirs = self._settings.prefect_database_url
            urls = prepare_external(
                self._settings.database_url.get_secret_value(),
                theirs.get_secret_value() if theirs else "",
            )
            self._say("using the PostgreSQL named by the database URL")
            return *urls, None
        embedded = EmbeddedPart(self._data_dir, durable=self._settings.durable)
        stack.callback(embedded.stop)
        embedded.start()
        self._say("PostgreSQL runs")
        return embedded.inventory_url, embedded.prefect_url, embedded

    def _redis_url(self) -> str:
        """Return the address of Redis, "" for none.

        Raises:
            InvalidRequest: it cannot be one, or several processes would have none.
            Unreachable: it does not answer.
        """
        given = self._settings.redis_url
        if given is None:
            if self._settings.server_processes > 1:
                raise InvalidRequest(
                    "several processes of the Prefect server need a Redis",
                    remedy="Name one by --redis, or leave --server-processes out.",
                )
            return ""
        return answering_redis(given.get_secret_value())

    def _servers(self, environment: dict[str, str]) -> list[Child]:
        """Return the processes of the Prefect server, the one to start first at the front."""
        count = self._settings.server_processes
        parts = [("the Prefect server", "api" if count > 1 else "", "server")]
        parts += [
            (f"the Prefect server, process {number}", "api", f"server-{number}")
            for number in range(2, count + 1)
        ]
        if count > 1:
            parts.append(("the services of the Prefect server", "services", "services"))
        logs = self._folder("logs")
        return [
            Child(
                name,
                server_command(role),
                environment,
                log=logs / f"{file}.log",
                stop_seconds=6,
            )
            for name, role, file in parts
        ]

    def _worker(self, described: Installation, home: Path) -> Child:
        own = described.environment()
        if self._settings.key is not None:
            own["CERTRAIL_KEY"] = self._settings.key.get_secret_value()
        command = [sys.executable, "-m", "deployments.worker", "--bootstrap"]
        command += [word for pool in POOLS for word in ("--pool", pool)]
        command += ["--name", f"{socket.gethostname()} (certrail up)"]
        # Work for an agent or sensor elsewhere stays in that one's queue.
        command += ["--queue", "default"]
        command += ["--limit", str(self._settings.worker_limit), "--grace", str(_GRACE_SECONDS)]
        return Child(
            "the worker",
            command,
            client_environment(
                api_url=described.api_url,
                ui_url=described.ui_url,
                home=home,
                api_auth=described.api_auth,
                certrail=own,
            ),
            log=self._folder("logs") / "worker.log",
            stop_seconds=_GRACE_SECONDS + 12,
            tells_ready=True,
        )

    def _migrate(self, url: str) -> None:
        from certrail.store.database import migrate

        migrate(url)
        self._say("the inventory database is up to date")

    def _wait_until_healthy(self, server: Child, address: Address) -> None:
        # Asked over the address others use, so that a wrong one shows here.
        deadline = time.monotonic() + _START_SECONDS
        with httpx.Client(timeout=2, trust_env=False) as client:
            while not self._stop.wait(0.05):
                try:
                    if client.get(f"{address.api_url}/health").is_success:
                        self._say(f"the Prefect server answers at {address.local_url}")
                        return
                except httpx.TransportError:
                    pass
                if (code := server.ended()) is not None:
                    raise server.failure(code)
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"the Prefect server did not answer within {_START_SECONDS:.0f} s",
                        remedy=f"Look at {server.log}.",
                    )

    def _wait_until_working(self, server: Child, worker: Child) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._stop.wait(0.05):
            if worker.is_ready():
                self._say("pools, block types and deployments are there; the worker runs")
                return
            if (code := server.ended()) is not None:
                raise server.failure(code)
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"the worker was not ready within {_START_SECONDS:.0f} s",
                    remedy=f"Look at {worker.log}.",
                )
