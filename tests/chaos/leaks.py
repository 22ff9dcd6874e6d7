"""Whether private keys are anywhere but sealed in the inventory and where they are used.

Looked for as PEM, DER, base64 and hexadecimal, and the scalar in all these and as
a number; in dumps of both databases (so in artifacts, logs and parameters that
Prefect keeps), everything that processes write, process lists and temporary files.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import cast
from uuid import UUID

import psycopg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg.conninfo import conninfo_to_dict

from certrail.postgres import program
from certrail.store import keys
from tests.support.stack import Stack

# The files of PostgreSQL itself: dumps show what is in them.
_NOT_OURS = "postgres/data"


def must_not_leak(
    stack: Stack,
    request_ids: Iterable[object],
    *,
    logs: Iterable[Path] = (),
    databases: bool = True,
) -> tuple[int, int]:
    """Look for the keys of requests; *logs* are further files.

    With *databases* also in dumps of both, which forget nothing and take longer than all
    the rest: process lists, environments, logs, results, temporary files.
    Returns how many keys were looked for, and in how many bytes.
    """
    found = [list(_marks(pem)) for pem in _keys(stack, [str(one) for one in request_ids])]
    if not found and not databases:
        return 0, 0  # the keys of this one case were made where they are used
    assert found, "there is no key to look for"
    marks = [mark for one in found for mark in one]
    size = 0
    with tempfile.TemporaryDirectory(prefix="ct-marks-") as folder:
        patterns = Path(folder) / "marks"
        # Lines, so what holds a line feed is looked for by its longest piece first.
        patterns.write_bytes(b"\n".join(max(mark.split(b"\n"), key=len) for mark in marks))
        places = chain(_dumps(stack) if databases else (), _places(stack, logs))
        for place, content in places:
            size += len(content)
            _must_not_have(place, content, patterns, marks)
    return len(found), size


def _must_not_have(place: str, content: bytes, patterns: Path, marks: Sequence[bytes]) -> None:
    if len(content) < 100_000:
        suspicious = True
    else:
        done = subprocess.run(
            ["grep", "-aqF", "-f", str(patterns)],
            input=content,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert done.returncode in (0, 1), place
        suspicious = done.returncode == 0
    assert not (suspicious and any(mark in content for mark in marks)), (
        f"a private key is in {place}"
    )


def _keys(stack: Stack, request_ids: Sequence[str]) -> Iterator[bytes]:
    with psycopg.connect(stack.database_url) as connection:
        found = connection.execute(
            "select distinct key_id from orders"
            " where request_id = any(%s::uuid[]) and key_id is not null",
            [list(request_ids)],
        ).fetchall()
    for (key_id,) in found:
        yield keys.load(UUID(str(key_id))).reveal()


def _marks(pem: bytes) -> Iterator[bytes]:
    key = cast(ec.EllipticCurvePrivateKey, serialization.load_pem_private_key(pem, password=None))
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    scalar = key.private_numbers().private_value
    raw = scalar.to_bytes(32, "big")
    yield pem.splitlines()[1]
    yield pem.splitlines()[1].hex().encode()  # as a dump shows bytes
    yield der
    yield base64.b64encode(der)
    yield raw
    yield base64.b64encode(raw)
    yield raw.hex().encode()
    yield str(scalar).encode()


def _dumps(stack: Stack) -> Iterator[tuple[str, bytes]]:
    url = conninfo_to_dict(stack.database_url)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PGHOST": str(url["host"]),
        "PGPORT": str(url["port"]),
        "PGUSER": str(url["user"]),
        "PGPASSWORD": str(url["password"]),
        "PGTARGETSESSIONATTRS": str(url.get("target_session_attrs", "any")),
    }
    for name in ("prefect", "certrail"):
        dump = subprocess.run(
            [str(program("pg_dump")), name], env=environment, check=True, capture_output=True
        )
        yield f"a dump of the database {name}", dump.stdout


def _places(stack: Stack, logs: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in [*logs, *_files(stack.data_dir)]:
        with suppress(FileNotFoundError):  # a lease that was given back meanwhile
            yield str(path), path.read_bytes()
    for name in ("cmdline", "environ"):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                yield f"{name} of process {process.name}", (process / name).read_bytes()
            except OSError:
                continue  # it has ended
    for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("certrail*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def _files(folder: Path) -> Iterator[Path]:
    """Return the files of an installation: logs, results, whatever Prefect keeps at its home."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if not str(path).endswith(_NOT_OURS):
                yield from _files(path)
        elif path.is_file():
            yield path
