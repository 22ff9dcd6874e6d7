"""What must hold after any storm, once the faults are over and every request was run to its end."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit
from uuid import UUID

import psycopg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certrail.postgres import program
from certrail.store import keys
from tests.chaos.field import Field, Seen
from tests.support.process import wait_for


def must_hold(field: Field, seen: Seen) -> None:
    """Check everything but leaked keys, which is looked for once after all storms."""
    for name, request_id in seen.requests.items():
        served = _must_be_whole(field, name, request_id)
        _must_have_served(seen, name, served)
        assert field.outside.dns.records(f"_acme-challenge.{name}", "TXT") == []
    assert seen.certificates == len(seen.requests), "a certificate was lost or doubled"
    left = [p for p in field.outside.nginx.directory.rglob("*") if ".certrail" in p.name]
    assert left == []
    for failure in seen.failures:
        for title, cause, remedy, retryable in failure["failed"]:
            assert cause, title
            assert remedy, title
            assert retryable is not None, title


def _must_be_whole(field: Field, name: str, request_id: str) -> str:
    with psycopg.connect(field.stack.database_url) as connection:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query, [request_id]).fetchall()

        ((status, owner, fingerprint),) = rows(
            "select r.status, r.lease_owner, c.fingerprint from requests r"
            " join certificates c on c.id = r.certificate_id where r.id = %s"
        )
        steps = rows("select title, status from steps where request_id = %s order by number")
        live = rows("select count(*) from orders where request_id = %s and not is_dead")
        # Of a response to a challenge whose reply got lost nothing is left: the CA has decided.
        undone = rows(
            "select action, key from journal where request_id = %s and outcome is null"
            " and action <> 'challenge.respond'"
            " and not exists (select 1 from orders where key = journal.key and is_dead)"
        )
        told = rows(
            "select event, count(*) from outbox where request_id = %s"
            " and event in ('certrail.request.completed', 'certrail.certificate.installed',"
            " 'certrail.certificate.issued') group by event"
        )
    assert (status, owner) == ("automation-successful", None)
    assert {step for _, step in steps} <= {"completed", "skipped"}, steps
    assert live == [(1,)]
    assert undone == [], "something was begun and neither ended nor withdrawn"
    assert dict(told) == dict.fromkeys(
        (
            "certrail.request.completed",
            "certrail.certificate.installed",
            "certrail.certificate.issued",
        ),
        1,
    )
    wait_for(
        lambda: field.outside.nginx.served(name) == fingerprint, f"{name} serves its certificate"
    )
    return str(fingerprint)


def _must_have_served(seen: Seen, name: str, served: str) -> None:
    visits = seen.visits[name]
    assert visits.failures == []
    assert visits.seen
    assert set(visits.seen) <= {seen.before[name], served}


def must_not_leak(field: Field, request_ids: Iterable[str]) -> None:
    """Look for every private key in all that is written or shown."""
    marks = {mark for request_id in request_ids for mark in _marks(field, request_id)}
    assert marks
    for place, content in _places(field):
        for mark in marks:
            assert mark not in content, f"a private key is in {place}"


def _marks(field: Field, request_id: str) -> Iterator[bytes]:
    with psycopg.connect(field.stack.database_url) as connection:
        found = connection.execute(
            "select key_id from orders where request_id = %s and key_id is not null", [request_id]
        ).fetchall()
    for (key_id,) in found:
        pem = keys.load(UUID(str(key_id))).reveal()
        key = cast(
            ec.EllipticCurvePrivateKey, serialization.load_pem_private_key(pem, password=None)
        )
        der = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        scalar = key.private_numbers().private_value
        raw = scalar.to_bytes(32, "big")
        yield pem.splitlines()[1]
        yield der
        yield base64.b64encode(der)
        yield raw
        yield base64.b64encode(raw)
        yield raw.hex().encode()
        yield str(scalar).encode()


def _places(field: Field) -> Iterator[tuple[str, bytes]]:
    url = urlsplit(field.stack.database_url)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PGHOST": url.hostname or "",
        "PGPORT": str(url.port),
        "PGUSER": unquote(url.username or ""),
        "PGPASSWORD": unquote(url.password or ""),
    }
    for name in ("prefect", "certrail"):
        dump = subprocess.run(
            [str(program("pg_dump")), name], env=environment, check=True, capture_output=True
        )
        yield f"a dump of the database {name}", dump.stdout
    for path in [field.log, *(field.stack.data_dir / "logs").glob("*.log*")]:
        yield str(path), path.read_bytes()
    yield "what `certrail up` said", field.stack.said().encode()
    for name in ("cmdline", "environ"):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                yield f"{name} of process {process.name}", (process / name).read_bytes()
            except OSError:
                continue  # it has ended
    for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("certrail*"):
        if path.is_file():
            yield str(path), path.read_bytes()
