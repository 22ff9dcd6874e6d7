"""The sealing key is rotated while others store and open keys: none is ever lost.

What requests make of it: :mod:`tests.chaos.test_key_rotation`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from certrail.keys.generate import generate
from certrail.keys.seal import keyring, new_key
from certrail.model import KeyAlgorithm
from certrail.settings import write_private
from certrail.store import keys, sealed
from certrail.store.database import transaction
from tests.support.process import die_with_parent, wait_for

# What a worker does all the time: it stores a key, and opens it and earlier ones again.
WORKER = """
import sys
from certrail.keys.generate import generate
from certrail.model import KeyAlgorithm
from certrail.store import keys
from certrail.store.database import transaction

kept = {}
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(8):
        fresh = generate(KeyAlgorithm.ECDSA_P256)
        with transaction() as connection:
            kept[keys.keep(connection, fresh, purpose="leaf", algorithm="ecdsa-p256")] = fresh
        for key_id, known in list(kept.items())[-24:]:
            assert keys.load(key_id).reveal() == known.reveal()
    print(len(kept), flush=True)
for key_id, known in kept.items():
    assert keys.load(key_id).reveal() == known.reveal()
print("all open", flush=True)
"""
ROTATIONS = 6


@pytest.fixture
def key_file(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "certrail.key"
    write_private(path, new_key() + "\n")
    monkeypatch.delenv("CERTRAIL_KEY")
    monkeypatch.setenv("CERTRAIL_KEY_FILE", str(path))
    return path


def test_every_key_opens_whenever_the_sealing_key_changes(
    key_file: Path, database_url: str
) -> None:
    """A worker that stores at the same moment may seal by either key; both open."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env=dict(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker:
        assert worker.stdout.readline() == "ready\n"
        for number in range(1, ROTATIONS + 1):
            # The worker is at work while the key changes and everything is sealed anew.
            worker.stdin.write("go on\n")
            worker.stdin.flush()
            write_private(key_file, f"{new_key()}\n{key_file.read_text()}")
            sealed.reseal(keyring())
            assert worker.stdout.readline() == f"{8 * number}\n"
        worker.stdin.close()
        assert worker.stdout.read() == "all open\n"
    assert worker.returncode == 0

    # What the worker sealed by the key before, while it changed, is sealed anew by the next turn.
    sealed.reseal(keyring())
    first, *older = keyring().ids
    assert sealed.count_by_key() == {first: 8 * ROTATIONS}
    assert [sealed.uses(one) for one in older] == [0] * ROTATIONS
    write_private(key_file, key_file.read_text().splitlines()[0] + "\n")
    with psycopg.connect(database_url) as connection:
        stored = connection.execute("select id, sealed from keys").fetchall()
    assert all(keyring().open(text, f"private-key:{key_id}") for key_id, text in stored)


def test_a_key_that_is_about_to_be_stored_counts(key_file: Path, database_url: str) -> None:
    """Retiring the sealing key waits until it is known whether the other is stored."""
    old = keyring().primary
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database_url, autocommit=True) as looking,
    ):
        with transaction() as connection:
            kept = keep(connection)
            write_private(key_file, f"{new_key()}\n{key_file.read_text()}")
            assert sealed.reseal(keyring()) == 0
            left = pool.submit(uses_at_last, old)
            wait_for(lambda: is_waiting(looking), "the count waits")

        assert left.result(30) == 1
    assert sealed.reseal(keyring()) == 1
    write_private(key_file, key_file.read_text().splitlines()[0] + "\n")
    assert keys.load(kept).reveal()


def test_a_key_that_comes_just_after_the_last_count_is_sealed_anew(
    key_file: Path, database_url: str
) -> None:
    """It was sealed by the key that is retired while it waits to be stored."""
    old = keyring().primary
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database_url, autocommit=True) as looking,
    ):
        with sealed.no_new_keys():
            assert sealed.uses(old) == 0
            storing = pool.submit(keep_in_a_transaction)
            wait_for(lambda: is_waiting(looking), "the other key waits to be stored")
            write_private(key_file, f"{new_key()}\n")

        kept = storing.result(30)
    assert sealed.uses(old) == 0
    assert keys.load(kept).reveal()


def keep(connection: Any) -> UUID:
    """Store a fresh key in the transaction of *connection*."""
    fresh = generate(KeyAlgorithm.ECDSA_P256)
    return keys.keep(connection, fresh, purpose="leaf", algorithm="ecdsa-p256")


def keep_in_a_transaction() -> UUID:
    """Store a fresh key."""
    with transaction() as connection:
        return keep(connection)


def uses_at_last(key_id: str) -> int:
    """Count as `certrail key retire` does."""
    with sealed.no_new_keys():
        return sealed.uses(key_id)


def is_waiting(connection: psycopg.Connection[Any]) -> bool:
    """Return whether somebody waits for a lock in this database."""
    row = connection.execute(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        " and datname = current_database()"
    ).fetchone()
    return bool(row and row[0])
