"""Everything in the inventory that is sealed, to seal it anew by another key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Text, cast, func, select, update

from certrail.keys.seal import SECRET_PURPOSE, Keyring, is_sealed
from certrail.store.database import transaction
from certrail.store.keys import purpose_of
from certrail.store.schema import endpoints, keys, profiles, requests

_BATCH = 200
# References to secrets may stand inside of settings.
_SETTINGS = ((endpoints, "server"), (profiles, "settings"), (requests, "plan"))
_ANY = "sealed:v1:"


def reseal(ring: Keyring) -> int:
    """Seal by the first key what another one sealed; returns how many values there were.

    It works in small transactions beside whatever is running. What somebody
    changes meanwhile is left as they made it.
    """
    done = 0
    while changed := _private_keys(ring):
        done += changed
    return done + sum(_inside(table, column, ring) for table, column in _SETTINGS)


def count_by_key() -> dict[str, int]:
    """Return how many private keys each sealing key sealed, by key id."""
    key_id = func.split_part(keys.c.sealed, ":", 3)
    query = select(key_id, func.count()).where(keys.c.sealed.is_not(None)).group_by(key_id)
    with transaction() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def uses(key_id: str) -> int:
    """Return how many values in the inventory only the key with that id opens."""
    mark = f"{_ANY}{key_id}:"
    with transaction() as connection:
        found = int(
            connection.execute(
                select(func.count()).where(keys.c.sealed.startswith(mark, autoescape=True))
            ).scalar_one()
        )
        for table, column in _SETTINGS:
            text = cast(table.c[column], Text)
            found += int(
                connection.execute(
                    select(func.count()).where(text.contains(mark, autoescape=True))
                ).scalar_one()
            )
    return found


def _private_keys(ring: Keyring) -> int:
    current = f"{_ANY}{ring.primary}:"
    query = (
        select(keys.c.id, keys.c.sealed)
        .where(keys.c.sealed.is_not(None), ~keys.c.sealed.startswith(current, autoescape=True))
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    with transaction() as connection:
        rows = connection.execute(query).all()
        for row in rows:
            purpose = purpose_of(row.id)
            fresh = ring.seal(ring.open(row.sealed, purpose), purpose)
            connection.execute(update(keys).where(keys.c.id == row.id).values(sealed=fresh))
    return len(rows)


def _inside(table: Any, column: str, ring: Keyring) -> int:
    key = next(iter(table.primary_key.columns))
    with transaction() as connection:
        query = select(key, table.c[column]).where(
            cast(table.c[column], Text).contains(_ANY, autoescape=True)
        )
        done = 0
        for row in connection.execute(query.with_for_update()).all():
            fresh, count = reseal_value(row[1], ring)
            if count:
                connection.execute(update(table).where(key == row[0]).values({column: fresh}))
                done += count
    return done


def reseal_value(value: Any, ring: Keyring) -> tuple[Any, int]:
    """Return plain data with every sealed text in it sealed by the first key, and how many."""
    if isinstance(value, str):
        if not is_sealed(value) or ring.is_current(value):
            return value, 0
        return ring.seal(ring.open(value, SECRET_PURPOSE), SECRET_PURPOSE), 1
    if isinstance(value, Mapping):
        pairs = {name: reseal_value(one, ring) for name, one in value.items()}
        return {name: one for name, (one, _) in pairs.items()}, sum(n for _, n in pairs.values())
    if isinstance(value, list | tuple):
        items = [reseal_value(one, ring) for one in value]
        return [one for one, _ in items], sum(n for _, n in items)
    return value, 0
