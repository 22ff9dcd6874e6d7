"""The sealing key is rotated while another process stores and opens keys: none is ever lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from certrail.keys.seal import keyring, new_key
from certrail.settings import write_private
from certrail.store import sealed
from tests.support.process import die_with_parent

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
