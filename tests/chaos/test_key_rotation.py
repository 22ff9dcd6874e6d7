"""The sealing key is rotated and the old one retired while requests are under way.

Whatever a run holds in memory was read before: what it needs of that later it has to
read again, sealed by a key that is still there.
"""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
import yaml

from certrail.keys.seal import SECRET_PURPOSE, Keyring, keyring
from certrail.settings import read_run_file
from certrail.x509.export import Format, Part, load
from tests.chaos.field import Field, renewal_of, the_field
from tests.chaos.invariants import must_be_settled, must_hold
from tests.chaos.leaks import must_not_leak
from tests.support import kill_points
from tests.support.faulty_proxy import faulty_proxy
from tests.support.installation import found_here
from tests.support.kill_points import KillPoint
from tests.support.process import wait_for
from tests.support.stack import Stack, cli

SITE = "sealed.example.test"
PASSWORD = "correct horse battery"
STORES = ("held", "while-held")


@pytest.fixture(scope="module")
def field(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    kill_points.install(installation.database_url)
    with found_here(installation):
        folder = tmp_path_factory.mktemp("rotated")
        with the_field(installation, folder, [SITE], prefix="rotate") as made:
            _apply_stores(made, folder)
            yield made
            must_be_settled(made)
            must_not_leak(made.stack, made.all_requests(), logs=[made.log])


def _apply_stores(field: Field, folder: Path) -> None:
    """Put places of delivery under Certrail whose password is sealed."""
    password = keyring().seal(PASSWORD.encode(), SECRET_PURPOSE)
    whole = {
        "connectors": [
            {"name": "rotate-local", "type": "ca-local", "ca_dir": str(folder / "local-ca")},
            {"name": "rotate-here", "type": "host-local"},
        ],
        "profiles": [{"name": "rotate-stores", "workflow": "delivery", "ca": "rotate-local"}],
        "endpoints": [
            {
                "location": f"rotate-here/{name}",
                "names": [f"{name}.rotate.test"],
                "profile": "rotate-stores",
                "target": "rotate-here",
                "server": {
                    "kind": "directory",
                    "path": str(folder / "stores"),
                    "format": "jks",
                    "password": password,
                },
            }
            for name in STORES
        ],
    }
    file = field.outside.write("stores.yaml", whole)
    applied = field.stack.cli("apply", "-f", str(file))
    assert applied.returncode == 0, applied.stderr


def certrail(field: Field, *arguments: str) -> str:
    """Run the command as an operator does; returns what it printed."""
    done = field.stack.cli(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rotate_and_retire(field: Field) -> Keyring:
    """Do what docs/security.md says; returns the keys there were before."""
    before = Keyring.from_file(_key_file(field))
    told = json.loads(certrail(field, "key", "rotate", "--json"))
    assert told["key_id"] not in before.ids
    assert told["older_keys"] == list(before.ids)
    for old in before.ids:
        certrail(field, "key", "retire", old)
    listed = json.loads(certrail(field, "key", "list", "--json"))
    assert [one["key_id"] for one in listed] == [told["key_id"]]
    return before


def _key_file(field: Field) -> Path:
    running = read_run_file(field.stack.data_dir)
    assert running is not None
    return Path(running.key_file)


def must_be_sealed_anew(field: Field, before: Keyring) -> None:
    """Check that the new key alone opens everything, and the old ones nothing at all."""
    path = _key_file(field)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = Keyring.from_file(path)
    assert set(ring.ids).isdisjoint(before.ids)
    texts = _all_sealed(field)
    for purpose, text in texts:
        assert ring.open(text, purpose)
    assert not any(f":{old}:" in text for old in before.ids for _, text in texts)


def _all_sealed(field: Field) -> list[tuple[str, str]]:
    """Return every sealed text of both databases, with its purpose."""
    from certrail.cli import _prefect_blocks
    from certrail.store import sealed
    from certrail.store.keys import purpose_of

    with psycopg.connect(field.stack.database_url) as connection:
        found = [
            (purpose_of(key_id), str(text))
            for key_id, text in connection.execute(
                "select id, sealed from keys where sealed is not null"
            )
        ]
        inside = [
            value
            for (value,) in connection.execute(
                "select server from endpoints union all select also_on from endpoints"
                " union all select settings from profiles union all select plan from requests"
            )
        ]
    blocks = _prefect_blocks.stored_connectors(_prefect_blocks.block_types())
    inside += [dict(one.settings) for one in blocks]
    return found + [(SECRET_PURPOSE, text) for text in sealed.sealed_texts(inside)]


def must_be_delivered(field: Field, request_id: str, name: str) -> None:
    """Check that the store is there and its password is the one that was sealed."""
    from certrail.store import certificates, requests

    row = field.row(request_id)
    assert row["status"] == "certificate-delivered", (row, field.log.read_text()[-3000:])
    content = (field.log.parent / "stores" / f"{name}.rotate.test.jks").read_bytes()
    chain = load({Part.STORE: content}, Format.JKS, password=PASSWORD).chain
    certificate_id = requests.get(UUID(request_id)).certificate_id
    assert certificate_id is not None
    assert chain.fingerprint == certificates.get(certificate_id).chain.fingerprint


def test_requests_go_on_while_the_key_is_rotated_and_the_old_one_retired(field: Field) -> None:
    """One on a web server and one delivery, both held before their orders are finalized.

    Neither fails a step: each reads what it needs when it needs it.
    """
    url = field.stack.database_url
    point = KillPoint("order.finalize", "intent")
    request_id = renewal_of(f"rotate-here/{'while-held'}")
    before: list[Keyring] = []
    runs: list[int] = []

    def meanwhile() -> None:
        runs.append(field.runner.start(request_id))
        kill_points.wait_until_caught(url, point, number=2)
        before.append(rotate_and_retire(field))
        must_be_sealed_anew(field, before[0])
        held.close()

    with ExitStack() as held:
        held.enter_context(kill_points.armed(url, point))
        seen = field.storm([SITE], [], meanwhile=meanwhile)
    field.runner.wait(runs[0])

    must_hold(field, seen)
    assert seen.failures == []
    assert (seen.certificates, seen.orders) == (1, 1)
    must_be_delivered(field, request_id, "while-held")
    must_be_sealed_anew(field, before[0])
    certrail(field, "connector", "check", "rotate-ca", "rotate-ns", "rotate-web", "rotate-local")


def test_a_secret_that_was_read_before_is_read_again(field: Field) -> None:
    """The step holds the password as the retired key sealed it: it is tried again with another."""
    url = field.stack.database_url
    point = KillPoint("deliver", "intent")
    request_id = renewal_of(f"rotate-here/{'held'}")

    with kill_points.armed(url, point):
        run = field.runner.start(request_id)
        kill_points.wait_until_caught(url, point)
        before = rotate_and_retire(field)
    field.runner.wait(run)

    must_be_delivered(field, request_id, "held")
    must_be_sealed_anew(field, before)


def test_a_connector_that_was_read_before_is_read_again(field: Field) -> None:
    """Workers keep connectors for some seconds, with their secrets as they were sealed then."""
    from blocks._base import ConnectorBlock, forget_connectors, open_secret
    from certrail.errors import SealingKeyMissing

    forget_connectors()
    kept: Any = ConnectorBlock.named("dns-powerdns/rotate-ns")
    rotate_and_retire(field)

    with pytest.raises(SealingKeyMissing) as caught:
        open_secret(kept.api_key)

    assert caught.value.retryable
    again: Any = ConnectorBlock.named("dns-powerdns/rotate-ns")
    assert open_secret(again.api_key) == field.outside.dns.api_key


def test_a_change_of_a_connector_while_its_secrets_are_sealed_anew_stays(
    field: Field, tmp_path: Path
) -> None:
    """One by `certrail apply` waits for its turn; one on the block's page is of another setting."""
    from certrail.cli import _prefect_blocks

    def connector(name: str, key: str) -> dict[str, Any]:
        return {
            "name": name,
            "type": "dns-powerdns",
            "url": "http://127.0.0.1:9",
            "api_key": key,
            "nameservers": ["127.0.0.1:53"],
        }

    def apply(name: str, key: str) -> None:
        file = tmp_path / f"{key}.yaml"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump({"connectors": [connector(name, key)]}))
        certrail(field, "apply", "-f", str(file))

    names = ("rotate-applied", "rotate-edited")
    for name in names:
        apply(name, f"first-{name}")
    changes: list[threading.Thread] = []
    ids = {_document_id(f"dns-powerdns/{name}"): name for name in names}
    met: list[str] = []

    def before(method: str, path: str) -> None:
        """Change the connector between the reading and the storing of it."""
        name = ids.get(path.rpartition("/")[2]) if method == "PATCH" else None
        if name is None or name in met:
            return
        met.append(name)
        if name == "rotate-edited":
            _edit(field, path.rpartition("/")[2], {"url": "http://127.0.0.1:10"})
            return
        change = threading.Thread(target=apply, args=(name, "second"))
        changes.append(change)
        change.start()
        wait_for(
            lambda: not change.is_alive() or _is_waiting(field),
            "the change is made, or waits for its turn",
        )

    with faulty_proxy(int(field.stack.api_url.rpartition(":")[2].partition("/")[0])) as proxy:
        proxy.before = before
        environment = {
            **field.stack.env,
            "PREFECT_API_URL": f"http://127.0.0.1:{proxy.port}/api",
        }
        done = cli("key", "rotate", env=environment)
    for change in changes:
        change.join(60)

    assert done.returncode == 0, done.stderr
    assert sorted(met) == sorted(names)
    stored = {name: _prefect_blocks.stored_settings(f"dns-powerdns/{name}") or {} for name in names}
    keys = {
        name: keyring().open(one["api_key"], SECRET_PURPOSE).decode()
        for name, one in stored.items()
    }
    assert keys == {"rotate-applied": "second", "rotate-edited": "first-rotate-edited"}
    assert stored["rotate-edited"]["url"] == "http://127.0.0.1:10"
    first, *older = keyring().ids
    assert all(f":{first}:" in one["api_key"] for one in stored.values())
    for old in older:
        certrail(field, "key", "retire", old)


def _document_id(reference: str) -> str:
    from certrail.cli import _prefect

    slug, _, name = reference.partition("/")
    with _prefect.client() as opened:
        return str(opened.read_block_document_by_name(name, slug).id)


def _edit(field: Field, document_id: str, data: dict[str, Any]) -> None:
    """Store settings as Prefect's pages do."""
    url = f"{field.stack.api_url}/block_documents/{document_id}"
    httpx.patch(url, json={"data": data}, timeout=30).raise_for_status()


def _is_waiting(field: Field) -> bool:
    query = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    with psycopg.connect(field.stack.database_url) as connection:
        row = connection.execute(query).fetchone()
    return bool(row and row[0])


def test_an_added_key_seals_once_and_never_again(field: Field) -> None:
    """`rotate --added` twice, as after an interruption, must not bring back the old key."""
    before = Keyring.from_file(_key_file(field))
    certrail(field, "key", "add")
    assert Keyring.from_file(_key_file(field)).primary == before.primary

    certrail(field, "key", "rotate", "--added")
    turned = Keyring.from_file(_key_file(field))
    again = field.stack.cli("key", "rotate", "--added")

    assert turned.ids[1:] == before.ids
    assert again.returncode != 0
    assert "certrail key add" in again.stderr
    assert Keyring.from_file(_key_file(field)).ids == turned.ids
    for old in before.ids:
        certrail(field, "key", "retire", old)
    must_be_sealed_anew(field, before)
