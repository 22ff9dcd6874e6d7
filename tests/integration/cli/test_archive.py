"""A backup onto a disk that is too small: said clearly, and nothing half-written is left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certrail.cli import _archive
from certrail.errors import InvalidRequest
from certrail.keys.seal import keyring

BEFORE = b"the backup of yesterday"


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system with room for *size* bytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def write(path: Path, url: str) -> None:
    _archive.write(path, inventory_url=url, prefect_url=url, keys=keyring(), folder=path.parent)


@pytest.mark.parametrize(
    "room",
    [
        pytest.param(0.4, id="while the first database is dumped"),
        pytest.param(1.4, id="while the archive is written"),
    ],
)
def test_a_full_disk_leaves_what_was_there_before(
    database_url: str, tmp_path: Path, room: float
) -> None:
    """The error says what is missing; the backup of before is still whole."""
    write(tmp_path / "measured.tar", database_url)
    size = int((tmp_path / "measured.tar").stat().st_size * room)
    with small_disk(tmp_path / "disk", size) as disk:
        (disk / "certrail.tar").write_bytes(BEFORE)

        with pytest.raises(InvalidRequest, match="No space left on device") as caught:
            write(disk / "certrail.tar", database_url)

        assert "Free space" in caught.value.remedy
        assert [(path.name, path.read_bytes()) for path in disk.iterdir()] == [
            ("certrail.tar", BEFORE)
        ]


def test_keys_onto_a_full_disk_leave_those_of_before(tmp_path: Path) -> None:
    """Keys that are half there open nothing."""
    with small_disk(tmp_path / "disk", 16384) as disk:
        keys = disk / "certrail.keys"
        _archive.write_keys(keys, "old", "old")
        before = keys.read_bytes()

        with pytest.raises(InvalidRequest, match="No space left on device"):
            _archive.write_keys(keys, "new" * 10000, "new")

        assert [(path.name, path.read_bytes()) for path in disk.iterdir()] == [
            ("certrail.keys", before)
        ]


def test_a_folder_that_is_not_there_is_said(database_url: str, tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(InvalidRequest, match="No such file or directory"):
        write(tmp_path / "absent" / "certrail.tar", database_url)
