"""Whether private keys are anywhere but sealed in the inventory and where they are used.

Those of requests, and those of the accounts at CAs. Looked for is what is secret in
them, as bytes, number, hexadecimal and base64, wherever it begins in the text, and as
PEM, itself in base64 too; in dumps of both databases (so in artifacts, logs and
parameters that Prefect keeps), everything that processes write, process lists and
temporary files.
"""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from uuid import UUID

import psycopg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from psycopg.conninfo import conninfo_to_dict

from certrail.postgres import program
from certrail.store import keys
from tests.support.stack import Stack

# The files of PostgreSQL itself: dumps show what is in them.
_NOT_OURS = "postgres/data"
_BEGAN = time.time()
_LARGEST_TEMPORARY = 10_000_000
_TOGETHER = 1_000_000
# Of each line of a PEM text, 64 characters; a piece of fewer bits might be there by chance.
_LINE_BYTES = 48
_FEWEST_BYTES = 12


def must_not_leak(
    stack: Stack,
    request_ids: Iterable[object],
    *,
    logs: Iterable[Path] = (),
    databases: bool = True,
) -> tuple[int, int]:
    """Look for the keys of requests, and of all accounts; *logs* are further files.

    With *databases* also in dumps of both, which forget nothing and take longer than all
    the rest: process lists, environments, logs, results, temporary files.
    Returns how many keys were looked for, and in how many bytes.
    """
    found = [marks_of(pem) for pem in _keys(stack, [str(one) for one in request_ids])]
    if not found and not databases:
        return 0, 0  # the keys of this one case were made where they are used
    assert found, "there is no key to look for"
    places = chain(_dumps(stack) if databases else (), _places(stack, logs))
    return len(found), must_not_have(places, [mark for one in found for mark in one])


def must_not_have(places: Iterable[tuple[str, bytes]], marks: Sequence[bytes]) -> int:
    """Check that none of *marks* is in what the named places hold; returns how many bytes."""
    size = 0
    with tempfile.TemporaryDirectory(prefix="ct-marks-") as folder:
        patterns = Path(folder) / "marks"
        # Lines, so what holds a line feed is looked for by its longest piece first.
        patterns.write_bytes(b"\n".join(max(mark.split(b"\n"), key=len) for mark in marks))
        for batch in _together(places):
            size += sum(len(content) for _, content in batch)
            if _is_suspicious(b"\n".join(content for _, content in batch), patterns):
                for place, content in batch:
                    leaked = any(mark in content for mark in marks)
                    assert not leaked, f"a private key is in {place}"
    return size


def _together(places: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Return places in batches, since to begin a search takes longer than to search a log."""
    batch: list[tuple[str, bytes]] = []
    for place in places:
        batch.append(place)
        if sum(len(content) for _, content in batch) > _TOGETHER:
            yield batch
            batch = []
    yield batch


def _is_suspicious(content: bytes, patterns: Path) -> bool:
    done = subprocess.run(
        ["grep", "-aqF", "-f", str(patterns)],
        input=content,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode in (0, 1)
    return done.returncode == 0


def _keys(stack: Stack, request_ids: Sequence[str]) -> Iterator[bytes]:
    with psycopg.connect(stack.database_url) as connection:
        found = connection.execute(
            "select key_id from orders"
            " where request_id = any(%s::uuid[]) and key_id is not null"
            " union select id from keys where purpose = 'acme-account' and sealed is not null",
            [list(request_ids)],
        ).fetchall()
    for (key_id,) in found:
        yield keys.load(UUID(str(key_id))).reveal()


def marks_of(pem: bytes) -> list[bytes]:
    """Return what is in a text that gives a private key away, in whichever of its forms.

    Each holds nothing but what is secret, so that it is found whatever stands around it,
    and is in no certificate.
    """
    key = serialization.load_pem_private_key(pem, password=None)
    secrets = list(_secrets(key))
    found = []
    for secret in secrets:
        found += [secret, str(int.from_bytes(secret, "big")).encode(), *_encoded(secret)]
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        der = key.private_bytes(Encoding.DER, form, NoEncryption())
        for piece in _lines_of(der, secrets):
            found += [piece, *_encoded(piece)]
    return list(dict.fromkeys(found))


def _secrets(key: object) -> Iterator[bytes]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        yield key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
    else:
        assert isinstance(key, rsa.RSAPrivateKey), key
        numbers = key.private_numbers()
        for number in (numbers.d, numbers.p, numbers.q):
            yield number.to_bytes((number.bit_length() + 7) // 8, "big")


def _encoded(secret: bytes) -> Iterator[bytes]:
    """Return *secret* in hexadecimal, and in base64 for each place in three where it can begin."""
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before in range(3):
        # What shares its group of four characters with a neighbour says nothing for certain.
        whole = secret[-before % 3 :]
        whole = whole[: len(whole) // 3 * 3]
        yield base64.b64encode(whole)
        yield base64.urlsafe_b64encode(whole)


def _lines_of(der: bytes, secrets: Sequence[bytes]) -> Iterator[bytes]:
    """Return, of each line of the PEM text of *der*, what belongs to a secret."""
    for secret in secrets:
        first = der.index(secret)
        end = first + len(secret)
        for line in range(0, len(der), _LINE_BYTES):
            begin, stop = max(first, line), min(end, line + _LINE_BYTES)
            begin += -begin % 3
            stop -= stop % 3
            if stop - begin >= _FEWEST_BYTES:
                yield base64.b64encode(der[begin:stop])


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
    yield from temporary_files(Path(tempfile.gettempdir()))


def temporary_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Return the files right in *folder* that are ours and were written since this process began.

    Folders in it belong to tests and to what they run, which are looked at as such.
    """
    for path in sorted(folder.iterdir()):
        with suppress(OSError):  # it is gone meanwhile
            known = path.lstat()
            is_ours = stat.S_ISREG(known.st_mode) and known.st_uid == os.getuid()
            is_new = known.st_mtime >= _BEGAN and known.st_size <= _LARGEST_TEMPORARY
            if is_ours and (is_new or path.name.startswith("certrail")):
                yield str(path), path.read_bytes()


def _files(folder: Path) -> Iterator[Path]:
    """Return the files of an installation: logs, results, whatever Prefect keeps at its home."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if not str(path).endswith(_NOT_OURS):
                yield from _files(path)
        elif path.is_file():
            yield path
