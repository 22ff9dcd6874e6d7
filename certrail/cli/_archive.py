"""The file that `certrail backup` writes: both databases at one moment, and what they need.

Both are read at snapshots that are taken one right after the other, Prefect's
first: what the inventory knows and Prefect does not is put right by
reconciliation, the other way round there is nothing to put right.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from certrail import __version__
from certrail.errors import (
    InvalidRequest,
    KeyUnavailable,
    StorageFull,
    UnexpectedReply,
    Unreachable,
)
from certrail.keys.seal import Keyring
from certrail.log import plain
from certrail.postgres import program
from certrail.settings import write_private

FORMAT = 1
_MANIFEST = "manifest.json"
_PURPOSE = "backup-probe"
_DATABASES = ("prefect", "inventory")
_FULL = os.strerror(errno.ENOSPC)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says of itself.

    Attributes:
        made_at: the moment of the snapshots.
        version: of Certrail.
        revision: of the inventory's schema.
        key_id: the key that seals; further ones may be needed for older values.
        probe: a text sealed by it, to see whether keys are the right ones.
        counts: requests in all and under way, for people.
        digests: SHA-256 of each part.
    """

    made_at: datetime
    version: str
    revision: str
    key_id: str
    probe: str
    counts: Mapping[str, int]
    digests: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "format": FORMAT,
            "made_at": self.made_at.isoformat(),
            "version": self.version,
            "revision": self.revision,
            "key_id": self.key_id,
            "probe": self.probe,
            "counts": dict(self.counts),
            "digests": dict(self.digests),
        }

    def must_open(self, keys: Keyring) -> None:
        """Check that *keys* are those of the archive.

        Raises:
            KeyUnavailable: they are others.
        """
        try:
            keys.open(self.probe, _PURPOSE)
        except KeyUnavailable as exc:
            raise KeyUnavailable(
                f"these are not the keys of this backup: it was made with the key {self.key_id}",
                remedy="Give the file of keys that was saved with it (`certrail backup --keys`).",
            ) from exc


def write(
    path: Path, *, inventory_url: str, prefect_url: str, keys: Keyring, folder: Path
) -> Manifest:
    """Write an archive of both databases while they are in use.

    Args:
        path: the file; it is replaced whole, readable by its owner only.
        inventory_url, prefect_url: the databases.
        keys: the sealing keys; they do not get into the archive.
        folder: where the dumps lie meanwhile.

    Raises:
        Unreachable: a database does not answer.
        InvalidRequest: the file cannot be written.
    """
    with ExitStack() as stack:
        try:
            made = tempfile.TemporaryDirectory(dir=folder, prefix="backup-")
        except OSError as exc:
            raise _not_written(path, exc) from exc
        work = Path(stack.enter_context(made))
        urls = {"prefect": prefect_url, "inventory": inventory_url}
        snapshots = {name: stack.enter_context(_snapshot(url)) for name, url in urls.items()}
        made_at = datetime.now(UTC)
        revision, counts = _facts(snapshots["inventory"])
        parts = {}
        for name in _DATABASES:
            parts[f"{name}.dump"] = work / f"{name}.dump"
            exported = snapshots[name].execute("select pg_export_snapshot()").fetchone()
            assert exported is not None
            try:
                _run(
                    "pg_dump",
                    urls[name],
                    "--format=custom",
                    "--no-owner",
                    "--no-privileges",
                    f"--snapshot={exported[0]}",
                    f"--file={parts[f'{name}.dump']}",
                )
            except StorageFull as exc:
                raise _not_written(path, OSError(errno.ENOSPC, _FULL)) from exc
        manifest = Manifest(
            made_at=made_at,
            version=__version__,
            revision=revision,
            key_id=keys.primary,
            probe=keys.seal(b"certrail backup", _PURPOSE),
            counts=counts,
            digests={name: _digest(part) for name, part in parts.items()},
        )
        _pack(path, manifest, parts)
    return manifest


@contextmanager
def opened(path: Path, folder: Path) -> Iterator[tuple[Manifest, Mapping[str, Path]]]:
    """Unpack an archive under *folder* and check it; yields what it says and its parts.

    Raises:
        InvalidRequest: it is none, is damaged, or is of a newer version.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="restore-") as work:
        try:
            with tarfile.open(path) as archive:
                names = set(archive.getnames())
                wanted = {_MANIFEST, *(f"{name}.dump" for name in _DATABASES)}
                if names != wanted:
                    raise InvalidRequest(f"{path} is no backup of Certrail")
                archive.extractall(work, filter="data")
        except (tarfile.TarError, OSError, EOFError) as exc:
            raise InvalidRequest(f"{path} cannot be read as a backup: {plain(exc)}") from exc
        manifest = _read(Path(work) / _MANIFEST, path)
        parts = {name: Path(work) / name for name in manifest.digests}
        for name, part in parts.items():
            if not part.is_file() or _digest(part) != manifest.digests[name]:
                raise InvalidRequest(
                    f"{path} is damaged: {name} is not what was written",
                    remedy="Take another copy of the backup.",
                )
        yield manifest, parts


def load(part: Path, url: str) -> None:
    """Load a dump into an empty database.

    Raises:
        InvalidRequest: the database is not empty.
        Unreachable: it does not answer.
    """
    with _connected(url) as connection:
        found = connection.execute(
            "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = 'public' and c.relkind in ('r', 'p')"
        ).fetchone()
    if found is not None and found[0]:
        raise InvalidRequest(
            f"the database {_name(url)} is not empty",
            remedy="Restore into an empty database, or into a new data directory.",
        )
    _run(
        "pg_restore",
        url,
        "--no-owner",
        "--no-privileges",
        "--no-comments",
        "--exit-on-error",
        "--single-transaction",
        f"--dbname={_name(url)}",
        str(part),
    )


def _facts(connection: psycopg.Connection[Any]) -> tuple[str, dict[str, int]]:
    row = connection.execute(
        "select (select version_num from alembic_version),"
        " (select count(*) from requests), (select count(*) from requests where ended_at is null)"
    ).fetchone()
    assert row is not None
    return str(row[0]), {"requests": row[1], "under_way": row[2]}


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            yield connection
    except psycopg.OperationalError as exc:
        raise Unreachable(
            f"the database {_name(url)} does not answer: {plain(str(exc).strip())}",
            remedy="Start it with `certrail up`, or correct CERTRAIL_DATABASE_URL.",
        ) from exc


@contextmanager
def _snapshot(url: str) -> Iterator[psycopg.Connection[Any]]:
    with _connected(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("select 1")  # the snapshot is taken by the first statement
        yield connection


def _run(tool: str, url: str, *arguments: str) -> None:
    parts = urlsplit(url)
    environment = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C",
        # Neither address nor password on a command line that others can read.
        "PGHOST": parts.hostname or "127.0.0.1",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": _name(url),
    }
    done = subprocess.run(
        [str(program(tool)), *arguments],
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        # What the server says of its own disk comes with its word for an error.
        if any(_FULL in line and "ERROR:" not in line for line in lines):
            raise StorageFull(f"{tool} of {_name(url)} cannot write: {_FULL}")
        raise UnexpectedReply(
            f"{tool} of {_name(url)} failed: {plain(lines[0] if lines else done.returncode)}",
            remedy="The server may be of a newer version than the tool; nothing was kept.",
        )


def _pack(path: Path, manifest: Manifest, parts: Mapping[str, Path]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                text = json.dumps(manifest.to_json(), indent=1).encode()
                member = tarfile.TarInfo(_MANIFEST)
                member.size, member.mode = len(text), 0o600
                archive.addfile(member, io.BytesIO(text))
                for name, part in parts.items():
                    archive.add(part, arcname=name, filter=_plain_member)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as exc:
        raise _not_written(path, exc) from exc
    finally:
        beside.unlink(missing_ok=True)


def _not_written(path: Path, exc: OSError) -> InvalidRequest:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return InvalidRequest(
            f"cannot write {path}: {exc.strerror}",
            remedy="Free space there, twice the size of a backup, or give another file; nothing "
            "was left there, and what was there before is as it was.",
        )
    return InvalidRequest(
        f"cannot write {path}: {exc.strerror}",
        remedy="Give a file in a folder that this account can write to.",
    )


def _plain_member(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _read(manifest: Path, path: Path) -> Manifest:
    try:
        raw = json.loads(manifest.read_text())
        if raw["format"] != FORMAT:
            raise InvalidRequest(
                f"{path} was written by Certrail {raw.get('version')}",
                remedy="Restore it with that version, or a newer one.",
            )
        return Manifest(
            made_at=datetime.fromisoformat(raw["made_at"]),
            version=str(raw["version"]),
            revision=str(raw["revision"]),
            key_id=str(raw["key_id"]),
            probe=str(raw["probe"]),
            counts=dict(raw["counts"]),
            digests={f"{name}.dump": raw["digests"][f"{name}.dump"] for name in _DATABASES},
        )
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise InvalidRequest(f"{path} is no backup of Certrail: {plain(exc)}") from exc


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(url: str) -> str:
    return unquote(urlsplit(url).path.lstrip("/"))


def write_keys(path: Path, sealing: str, prefect: str) -> None:
    """Write both keys into one file that only its owner can read; it is replaced whole.

    Raises:
        InvalidRequest: it cannot be written.
    """
    lines = ["# Keys of a Certrail installation. Keep this apart from its backups."]
    lines += ["[sealing]", sealing.strip(), "[prefect]", prefect.strip(), ""]
    try:
        write_private(path, "\n".join(lines))
    except OSError as exc:
        raise _not_written(path, exc) from exc


def read_keys(path: Path) -> tuple[str, str]:
    """Return the sealing keys and Prefect's key of such a file.

    Raises:
        KeyUnavailable: it cannot be read, or is none.
    """
    try:
        lines: Sequence[str] = path.read_text(errors="replace").splitlines()
    except OSError as exc:
        raise KeyUnavailable(f"cannot read {path}: {exc.strerror}") from exc
    sections: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("[") and line.endswith("]"):
            sections[line[1:-1]] = []
        elif sections and line.strip() and not line.startswith("#"):
            list(sections.values())[-1].append(line.strip())
    if not sections.get("sealing") or len(sections.get("prefect", ())) != 1:
        raise KeyUnavailable(
            f"{path} holds no keys of Certrail",
            remedy="Give the file that `certrail backup --keys` wrote.",
        )
    return "\n".join(sections["sealing"]) + "\n", sections["prefect"][0] + "\n"
