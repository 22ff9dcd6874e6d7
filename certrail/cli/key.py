"""``certrail key``: the keys that seal private keys and connector secrets."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from certrail.cli import _prefect, _prefect_blocks
from certrail.cli._connectors import held
from certrail.cli._output import echo_json, echo_table, examples
from certrail.cli._prefect_blocks import StoredConnector
from certrail.credential import is_credential
from certrail.errors import InvalidRequest, KeyUnavailable
from certrail.keys import key_file
from certrail.keys.seal import Keyring, keyring, new_key
from certrail.settings import write_private
from certrail.store import audit, configured, sealed
from certrail.store.database import transaction
from certrail.words import counted

_PASSES = 5


@click.group(epilog=examples("certrail key list", "certrail key rotate"))
def key() -> None:
    """List, rotate and retire the sealing keys."""


@key.command("list", epilog=examples("certrail key list", "certrail key list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(as_json: bool) -> None:
    """List the keys of this machine, and how much each has sealed. No key is shown."""
    _prefect.installation()
    ring = keyring()
    secrets = _connector_secrets()
    rows = [
        {"key_id": one, "seals": one == ring.primary, "values": _uses(one, secrets)}
        for one in ring.ids
    ]
    unknown = [one for one in sealed.count_by_key() if one not in ring.ids]
    if as_json:
        echo_json(rows)
    else:
        echo_table([(name, name) for name in ("key_id", "seals", "values")], rows)
    for one in unknown:
        click.echo(f"values are sealed by {one}, which is not on this machine", err=True)


@key.command(
    epilog=examples(
        "certrail key add", "certrail key rotate --added  # once every machine has the file"
    )
)
def add() -> None:
    """Add a new key that opens but does not seal yet.

    For installations with workers on other machines: copy the key file to all of
    them, then `certrail key rotate --added`. No worker meets a value that it cannot open.
    """
    found = _prefect.installation()
    with _file(found.key_file) as path:
        fresh = new_key()
        write_private(path, key_file.with_added(path.read_text(), fresh))
    made = Keyring.from_text(fresh).primary
    audit.note_now(audit.local_actor(), "key.add", made)
    click.echo(f"key {made} added to {path}; copy the file to every worker's machine, then")
    click.echo("certrail key rotate --added")


@key.command(epilog=examples("certrail key rotate", "certrail key rotate --added"))
@click.option("--added", is_flag=True, help="Let the key of `certrail key add` seal from now on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rotate(added: bool, as_json: bool) -> None:
    """Seal everything anew by a new key, while requests run.

    The new key comes first in the key file; workers read it again by themselves.
    The old keys stay in the file until `certrail key retire`. Called again after an
    interruption with nothing left to do, it makes another key; to only finish what
    was begun, use `certrail key reseal`.
    """
    found = _prefect.installation()
    with _file(found.key_file) as path:
        text = path.read_text()
        fresh = key_file.added(text) if added else new_key()
        if fresh is None:
            raise InvalidRequest("there is no added key", remedy="certrail key add")
        write_private(path, key_file.sealing_by(text, fresh))
        ring = keyring()
        audit.note_now(audit.local_actor(), "key.rotate", ring.primary, {"keys": list(ring.ids)})
        _finish(ring, as_json=as_json)


@key.command(epilog=examples("certrail key reseal"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reseal(as_json: bool) -> None:
    """Seal by the first key whatever another one sealed."""
    found = _prefect.installation()
    if _is_given():
        _finish(keyring(), as_json=as_json)
        return
    with _file(found.key_file):
        _finish(keyring(), as_json=as_json)


@key.command(epilog=examples("certrail key retire 3f0c8f8e5f0e"))
@click.argument("key_id")
def retire(key_id: str) -> None:
    """Take the key KEY_ID out of the file, if nothing needs it any more.

    Backups made before still need it: `certrail backup --keys` has saved it with them.
    """
    found = _prefect.installation()
    with _file(found.key_file) as path:
        ring = keyring()
        if key_id not in ring.ids:
            raise InvalidRequest(f"there is no key {key_id}", remedy="certrail key list")
        if key_id == ring.primary:
            raise InvalidRequest(f"{key_id} is the key that seals", remedy="certrail key rotate")
        # What somebody is about to store counts too: nothing else would open it.
        with held():
            secrets = _connector_secrets()
            with sealed.no_new_keys():
                if left := _uses(key_id, secrets):
                    raise InvalidRequest(
                        f"{counted(left, 'value is', 'values are')} sealed by {key_id}",
                        remedy="certrail key reseal",
                    )
                write_private(path, key_file.without(path.read_text(), key_id))
    audit.note_now(audit.local_actor(), "key.retire", key_id)
    click.echo(f"{key_id} is retired")


def _finish(ring: Keyring, *, as_json: bool) -> None:
    inventory = connectors = 0
    # A process that began before the new key was there may still seal by the old one.
    for _ in range(_PASSES):
        in_inventory, in_connectors = sealed.reseal(ring), _reseal_connectors(ring)
        inventory += in_inventory
        connectors += in_connectors
        if not in_inventory and not in_connectors:
            break
    old = [one for one in ring.ids if one != ring.primary]
    if as_json:
        echo_json(
            {
                "key_id": ring.primary,
                "resealed": {"inventory": inventory, "connectors": connectors},
                "older_keys": old,
            }
        )
        return
    click.echo(
        f"key {ring.primary} seals; sealed anew: {counted(inventory, 'value')} of the inventory, "
        f"{counted(connectors, 'connector secret')}"
    )
    for one in old:
        click.echo(f"when every worker has the new file: certrail key retire {one}")


def _reseal_connectors(ring: Keyring) -> int:
    def fresh(stored: Mapping[str, Any]) -> dict[str, Any]:
        pairs = {name: sealed.reseal_value(value, ring) for name, value in stored.items()}
        return {name: value for name, (value, count) in pairs.items() if count}

    done = 0
    for one in _stored_connectors():
        if fresh(one.settings):
            with held():
                # Read again: somebody may have changed it since the list was made.
                done += _prefect_blocks.change_settings(one.reference, fresh)
    return done


def _stored_connectors() -> list[StoredConnector]:
    """Return all blocks that may hold secrets of ours, also such as no connector uses now."""
    with transaction() as connection:
        slugs = {row.slug for row in configured.all_connectors(connection)}
    return _prefect_blocks.stored_connectors({*_prefect_blocks.block_types(), *slugs})


def _connector_secrets() -> list[str]:
    """Return the settings of all connectors that are sealed, as they are stored."""
    return [
        text
        for one in _stored_connectors()
        for value in one.settings.values()
        for text in sealed.sealed_texts(value)
    ]


def _uses(key_id: str, secrets: Sequence[str]) -> int:
    return sealed.uses(key_id) + sum(f":{key_id}:" in secret for secret in secrets)


def _is_given() -> bool:
    return bool(os.environ.get("CERTRAIL_KEY"))


@contextmanager
def _file(name: str) -> Iterator[Path]:
    """Hold the key file: two rotations at once would lose a key."""
    if _is_given() or not name:
        raise KeyUnavailable(
            "the sealing key comes from the environment, so nothing here can change it",
            remedy="Put a new key on the first line of CERTRAIL_KEY, start everything again, then "
            "`certrail key reseal`.",
        )
    path = Path(name)
    Keyring.from_file(path)
    if is_credential(path.read_text()):
        raise KeyUnavailable(
            f"{path} is the credential of an agent or sensor",
            remedy="Change the keys on the server, then make its credential anew: certrail "
            "executor credential",
        )
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
