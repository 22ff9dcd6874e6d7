"""A backup that was made in the middle of a request goes on elsewhere, and orders nothing twice.

Neither what had been ordered when it was made, nor what the old machine ordered after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from tests.support import kill_points
from tests.support.handshake import fingerprint_at
from tests.support.hurry import hurried
from tests.support.kill_points import KillPoint
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack, cli, environment, start
from tests.support.world import World, world

NAME = "inflight.example.test"
QUICK = {"CERTRAIL_LEASE_SECONDS": "5", "CERTRAIL_RETRY_SECONDS": "0.2"}


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world"), [NAME]) as servers:
        yield servers


def test_an_order_in_flight_survives_the_loss_of_the_machine(
    tmp_path_factory: pytest.TempPathFactory, outside: World
) -> None:
    """Backed up between the order and our note of its answer, killed, restored elsewhere."""
    folder = _folder(tmp_path_factory)
    archive, keys = folder / "certrail.tar", folder / "certrail.keys"
    old = start(folder / "old", extra=QUICK)
    point = KillPoint("order.finalize", "outcome")
    try:
        file = outside.write("certrail.yaml", outside.configuration())
        assert old.cli("apply", "-f", str(file)).returncode == 0
        kill_points.install(old.database_url)
        # The database goes away under the holder of the lock: that is meant.
        with suppress(psycopg.Error), kill_points.armed(old.database_url, point):
            started = old.cli("request", "start", f"{NAME}:443", "--json")
            assert started.returncode == 0, started.stderr
            kill_points.wait_until_caught(old.database_url, point)
            ordered = outside.ca.order_count()
            made = old.cli("backup", "-o", str(archive), "--keys", str(keys), "--json")
            assert made.returncode == 0, made.stderr
            old.process.kill()
            old.process.wait()
    finally:
        with suppress(AssertionError):
            old.stop()
    assert json.loads(made.stdout)["counts"] == {"requests": 1, "under_way": 1}
    assert (archive.stat().st_mode & 0o777, keys.stat().st_mode & 0o777) == (0o600, 0o600)
    assert not any(line in archive.read_bytes() for line in _key_lines(keys))

    elsewhere = environment(folder / "new")
    done = cli("restore", str(archive), "--keys", str(keys), env=elsewhere)
    assert done.returncode == 0, done.stderr
    again = cli("restore", str(archive), "--keys", str(keys), env=elsewhere)
    assert again.returncode == 2
    assert "not empty" in again.stderr

    new = start(folder / "new", extra=QUICK)
    try:
        _goes_on(new, json.loads(started.stdout)["request_id"])
        assert outside.ca.order_count() == ordered
        assert json.loads(new.cli("audit", "verify", "--json").stdout)["ok"]
        actions = [e["action"] for e in json.loads(new.cli("audit", "list", "--json").stdout)]
        assert {"backup.make", "backup.restore"} <= set(actions)
        assert new.cli("connector", "check", "ns").returncode == 0
    finally:
        new.stop()


def test_what_the_old_machine_finished_after_the_backup_is_not_issued_again(
    tmp_path_factory: pytest.TempPathFactory, outside: World
) -> None:
    """Backed up before the order, finished there, killed, restored: what is served is kept."""
    folder = _folder(tmp_path_factory)
    archive, keys = folder / "certrail.tar", folder / "certrail.keys"
    old = start(folder / "old", extra=QUICK)
    point = KillPoint("order.open", "intent")
    try:
        file = outside.write("certrail.yaml", outside.configuration())
        assert old.cli("apply", "-f", str(file)).returncode == 0
        kill_points.install(old.database_url)
        with kill_points.armed(old.database_url, point):
            started = old.cli("request", "start", f"{NAME}:443", "--json")
            assert started.returncode == 0, started.stderr
            kill_points.wait_until_caught(old.database_url, point)
            assert outside.ca.order_count() == 0
            made = old.cli("backup", "-o", str(archive), "--keys", str(keys), "--json")
            assert made.returncode == 0, made.stderr
        request_id = json.loads(started.stdout)["request_id"]
        wait_for(
            lambda: _status(old, request_id) == "automation-successful",
            "the old installation ends the request",
            within=240,
        )
        old.process.kill()
        old.process.wait()
    finally:
        with suppress(AssertionError):
            old.stop()
    served = fingerprint_at(outside.nginx.port, NAME)

    done = cli("restore", str(archive), "--keys", str(keys), env=environment(folder / "new"))
    assert done.returncode == 0, done.stderr
    new = start(folder / "new", extra=QUICK)
    try:
        _goes_on(new, request_id)
        assert (outside.ca.order_count(), outside.ca.certificate_count()) == (1, 1)
        assert fingerprint_at(outside.nginx.port, NAME) == served
        (endpoint,) = json.loads(new.cli("endpoint", "list", "--json").stdout)
        assert endpoint["fingerprint"] == served
        shown = json.loads(new.cli("request", "show", request_id, "--json").stdout)
        assert "issued after the backup" in json.dumps(shown)
    finally:
        new.stop()


def _folder(factory: pytest.TempPathFactory) -> Path:
    folder = factory.mktemp("backup")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # the embedded database runs as another account
    return folder


def _goes_on(running: Stack, request_id: str) -> None:
    """Return once the restored installation has ended the request well."""
    with closing(PrefectApi(running.api_url)) as api, hurried(api, "reconcile"):
        wait_for(
            lambda: _status(running, request_id) == "automation-successful",
            "the restored installation ends the request",
            within=240,
        )


def _key_lines(path: Path) -> set[bytes]:
    return {line for line in path.read_bytes().splitlines() if len(line) > 30 and line[:1] != b"#"}


def _status(running: Stack, request_id: str) -> str:
    shown = running.cli("request", "show", request_id, "--json")
    return str(json.loads(shown.stdout)["status"]) if shown.stdout else shown.stderr
