"""Two PostgreSQL servers, the second a synchronous standby of the first, and a failover.

Both are the wheel's; the address of the pair is a URL with both hosts, of which
clients take the one that accepts writes.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from certrail.account import child_setup, service_account
from certrail.postgres import EmbeddedPostgres, program
from tests.support.process import free_port, let_in, wait_for


@dataclass
class Pair:
    """A primary and its standby.

    Attributes:
        url: of the inventory database, at whichever of them is the primary.
        prefect_url: of Prefect's, likewise.
        primary: the first one.
        standby_url: of the second one, as its administrator.
    """

    url: str
    prefect_url: str
    primary: EmbeddedPostgres
    standby_url: str

    def fail_over(self) -> None:
        """End the primary as a crash would, then make the standby the primary."""
        process = self.primary.process
        assert process is not None
        process.send_signal(signal.SIGQUIT)
        process.wait(20)
        with psycopg.connect(self.standby_url, autocommit=True) as connection:
            assert connection.execute("select pg_promote()").fetchone() == (True,)


@contextmanager
def postgres_pair(folder: Path) -> Iterator[Pair]:
    """Start both; a commit returns once the standby has it on its disk."""
    let_in(folder)
    primary = EmbeddedPostgres(folder / "first" / "postgres", durable=False)
    primary.directory.parent.mkdir()
    primary.start()
    password = json.loads((folder / "first" / "postgres.json").read_text())["passwords"]["postgres"]
    admin = f"postgresql://postgres:{password}@127.0.0.1:{{}}/postgres"
    port = free_port()
    try:
        with _standby(folder / "second", admin.format(primary.port), port):
            _wait_for_replication(admin.format(primary.port))
            hosts = f"host=127.0.0.1,127.0.0.1&port={primary.port},{port}"

            def url(name: str) -> str:
                login = urlsplit(primary.url(name)).netloc.rpartition("@")[0]
                return f"postgresql://{login}@/{name}?{hosts}&target_session_attrs=read-write"

            yield Pair(url("certrail"), url("prefect"), primary, admin.format(port))
    finally:
        primary.stop()


@contextmanager
def _standby(folder: Path, primary: str, port: int) -> Iterator[None]:
    folder.mkdir()
    data = folder / "data"
    account = service_account(data)
    account.owns(folder)
    prepare = child_setup(signal.SIGKILL, account, search_everywhere=True)
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    copy = [str(program("pg_basebackup")), "-d", primary, "-D", str(data), "-R", "-c", "fast"]
    done = subprocess.run(
        copy, cwd="/", env=environment, capture_output=True, check=False, preexec_fn=prepare
    )
    assert done.returncode == 0, done.stderr
    options = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": 200,
        "fsync": "off",
    }
    flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(program("postgres")), "-D", str(data), *flags],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=prepare,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _wait_for_replication(primary: str) -> None:
    with psycopg.connect(primary, autocommit=True) as connection:
        connection.execute("alter system set synchronous_standby_names = '*'")
        connection.execute("select pg_reload_conf()")

        def synchronous() -> bool:
            with suppress(psycopg.OperationalError):
                row = connection.execute("select sync_state from pg_stat_replication").fetchone()
                return row is not None and row[0] == "sync"
            return False

        wait_for(synchronous, "the standby follows", within=30)
