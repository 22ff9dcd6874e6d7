"""The embedded PostgreSQL: private, kept, and started again after any end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from certrail.errors import InvalidRequest, Unreachable
from certrail.postgres import EmbeddedPostgres
from tests.support.process import wait_for
from tests.support.stack import ROOT


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the cluster goes: below a folder that only we may enter."""
    tmp_path.chmod(0o700)
    return tmp_path / "postgres"


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A running server."""
    server = EmbeddedPostgres(directory, durable=False)
    server.start()
    yield server
    server.stop()


def _ask(url: str, question: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(question.encode()).fetchone()
    return row[0] if row else None


def test_the_server_is_never_root(server: EmbeddedPostgres) -> None:
    """PostgreSQL refuses it; containers usually give us nothing else."""
    assert server.process is not None

    assert psutil.Process(server.process.pid).uids().effective != 0


def test_folders_above_the_data_stay_closed(server: EmbeddedPostgres, directory: Path) -> None:
    """The wheel's own helper opens every folder up to / to everybody."""
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700


def test_both_databases_belong_to_a_role_without_rights(server: EmbeddedPostgres) -> None:
    """A hole in either program must not reach the server's files."""
    for name in ("certrail", "prefect"):
        assert _ask(server.url(name), "select current_database()") == name
        owner = "select rolsuper from pg_roles where rolname = current_user"
        assert _ask(server.url(name), owner) is False


def test_the_extension_that_prefect_needs_can_be_made(server: EmbeddedPostgres) -> None:
    """Prefect's migrations make it under our role."""
    with psycopg.connect(server.url("prefect")) as connection:
        connection.execute("create extension if not exists pg_trgm")


def test_a_wrong_password_is_refused(server: EmbeddedPostgres) -> None:
    """Any account of the machine can connect to 127.0.0.1."""
    url = server.url("certrail").replace("certrail:", "certrail:not-", 1)

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_a_restart_keeps_port_and_data(server: EmbeddedPostgres) -> None:
    """Workers on this machine keep the address they were started with."""
    url = server.url("certrail")
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 42 as answer")

    server.stop()
    server.start()

    assert server.url("certrail") == url
    assert _ask(url, "select answer from kept") == 42


def test_a_server_left_over_by_a_killed_parent_is_replaced(
    server: EmbeddedPostgres, directory: Path
) -> None:
    """Two servers on one cluster would destroy it; a refusal would need a person at night."""
    assert server.process is not None

    other = EmbeddedPostgres(directory, durable=False)
    other.start()

    try:
        assert server.process.wait(10) == 0
        assert _ask(other.url("certrail"), "select 1") == 1
    finally:
        other.stop()


def test_after_kill_9_it_recovers(server: EmbeddedPostgres) -> None:
    """The stale postmaster.pid must not keep it from starting."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()

    server.start()

    assert _ask(server.url("certrail"), "select 1") == 1


def test_a_stale_number_that_somebody_else_has_now_does_not_stop_it(
    server: EmbeddedPostgres, directory: Path
) -> None:
    """In a container the same small process numbers come again and again."""
    server.stop()
    stale = directory / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{directory / 'data'}\n1\n1\n\n127.0.0.1\n\nready\n")

    server.start()

    assert _ask(server.url("certrail"), "select 1") == 1


@pytest.mark.parametrize("left", [b"", b"\0" * 40, b"no number\n"])
def test_a_damaged_note_of_its_process_does_not_stop_it(
    server: EmbeddedPostgres, directory: Path, left: bytes
) -> None:
    """A power cut leaves files empty, or full of zeros."""
    server.stop()
    (directory / "data" / "postmaster.pid").write_bytes(left)

    server.start()

    assert _ask(server.url("certrail"), "select 1") == 1


def test_a_server_whose_note_is_damaged_is_found_all_the_same(
    server: EmbeddedPostgres, directory: Path
) -> None:
    """It was left over: started beside it, a second one would destroy the cluster."""
    (directory / "data" / "postmaster.pid").write_bytes(b"")
    other = EmbeddedPostgres(directory, durable=False)

    other.start()

    try:
        assert server.process is not None
        assert server.process.wait(10) == 0
        assert _ask(other.url("certrail"), "select 1") == 1
    finally:
        other.stop()


def test_it_ends_in_order_when_its_parent_is_killed(directory: Path) -> None:
    """`certrail up` may be killed; the data may not suffer."""
    code = (
        "import signal, sys; from pathlib import Path;"
        "from certrail.postgres import EmbeddedPostgres;"
        "server = EmbeddedPostgres(Path(sys.argv[1]), durable=False); server.start();"
        "print(server.process.pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    parent.kill()
    parent.communicate()

    wait_for(lambda: not psutil.pid_exists(pid), "the server ends", within=10)
    assert not (directory / "data" / "postmaster.pid").exists()


def test_lost_passwords_are_said_to_be_lost(server: EmbeddedPostgres, directory: Path) -> None:
    """Making new ones would look like success and lock everybody out."""
    server.stop()
    (directory.parent / "postgres.json").unlink()

    with pytest.raises(InvalidRequest, match=r"postgres\.json is missing"):
        EmbeddedPostgres(directory).start()


@pytest.mark.parametrize("text", [b"", b"\xff\0", b"[]", b'{"port": 1, "passwords": {"a": 1}}'])
def test_damaged_passwords_are_said_to_be_damaged(directory: Path, text: bytes) -> None:
    """Cause and remedy, and the file as it was: it may be mended by hand."""
    directory.mkdir(parents=True)
    access = directory.parent / "postgres.json"
    access.write_bytes(text)

    with pytest.raises(InvalidRequest, match=r"postgres\.json is damaged") as caught:
        EmbeddedPostgres(directory).start()

    assert "restore" in caught.value.remedy
    assert access.read_bytes() == text


def test_a_cluster_that_is_none_is_named(directory: Path) -> None:
    """Half of it was moved away, say."""
    (directory / "data").mkdir(parents=True)
    access = '{"port": 0, "passwords": {"postgres": "a", "certrail": "b"}}'
    (directory.parent / "postgres.json").write_text(access)

    server = EmbeddedPostgres(directory)

    with pytest.raises(InvalidRequest, match="PG_VERSION"):
        server.start()

    server.stop()


def test_a_server_that_does_not_start_tells_why(server: EmbeddedPostgres, directory: Path) -> None:
    """The log is in a folder of another account."""
    server.stop()
    (directory / "data" / "postgresql.conf").write_text("no_such_parameter = 1\n")

    with pytest.raises(Unreachable, match="no_such_parameter"):
        server.start()
