"""Everything in the inventory that is sealed, to seal it anew by another key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, or_, select, text, true, update

from certrail.keys.seal import SECRET_PURPOSE, Keyring, is_sealed
from certrail.store.database import transaction
from certrail.store.keys import purpose_of
from certrail.store.schema import endpoints, keys, profiles, requests

_BATCH = 200
# References to secrets may stand inside of settings.
_SETTINGS = (
    (endpoints, "server"),
    (endpoints, "also_on"),
    (profiles, "settings"),
    (requests, "plan"),
)
_ANY = "sealed:v1:"
# Writers of the table hold it off until their transaction ends, and wait while it is held.
_NO_WRITER = text("lock table keys in share mode")


def reseal(ring: Keyring) -> int:
    """Seal by the first key what the others sealed; returns how many values there were.

    It works in small transactions beside whatever is running. What somebody
    changes meanwhile is left as they made it, and so is what no key here opens.
    """
    done = 0
    if len(ring.ids) == 1:
        return done
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
    conditions = [_sealed_by(key_id)]
    conditions += [_has_inside(table.c[column], key_id) for table, column in _SETTINGS]
    with transaction() as connection:
        return sum(
            int(connection.execute(select(func.count()).where(one)).scalar_one())
            for one in conditions
        )


@contextmanager
def no_new_keys() -> Iterator[None]:
    """Let nobody store a private key while the block runs, so that what is counted in it stays.

    Waits for those who have one in an open transaction. :func:`certrail.store.keys.keep`
    says what becomes of those who come meanwhile.
    """
    with transaction() as connection:
        connection.execute(_NO_WRITER)
        yield


def _sealed_by(*key_ids: str) -> ColumnElement[bool]:
    return or_(
        *(keys.c.sealed.startswith(f"{_ANY}{one}:", autoescape=True) for one in key_ids),
    )


def _has_inside(column: Any, *key_ids: str) -> ColumnElement[bool]:
    # The quote: only what begins a text is a sealed value.
    return cast(column, Text).regexp_match(f'"{_ANY}({"|".join(key_ids)}):')


def _private_keys(ring: Keyring) -> int:
    query = (
        select(keys.c.id, keys.c.sealed)
        .where(_sealed_by(*ring.ids[1:]))
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
    """Seal anew what stands inside of a column, beside the runs that use its rows.

    Many rows at a time only where nobody else holds them; the others one by one, since who
    waits with locks of its own may wait for somebody who waits for these.
    """
    many = _walk(table, column, ring, batch=_BATCH, skip_locked=True)
    return many + _walk(table, column, ring, batch=1, skip_locked=False)


def _walk(table: Any, column: str, ring: Keyring, *, batch: int, skip_locked: bool) -> int:
    key = next(iter(table.primary_key.columns))
    is_older = _has_inside(table.c[column], *ring.ids[1:])
    done = 0
    after: ColumnElement[bool] = true()
    while True:
        query = select(key, table.c[column]).where(is_older, after).order_by(key).limit(batch)
        with transaction() as connection:
            rows = connection.execute(query.with_for_update(skip_locked=skip_locked)).all()
            for row in rows:
                fresh, count = reseal_value(row[1], ring)
                if count:
                    connection.execute(update(table).where(key == row[0]).values({column: fresh}))
                    done += count
        if len(rows) < batch:
            return done
        after = key > rows[-1][0]


def reseal_value(value: Any, ring: Keyring) -> tuple[Any, int]:
    """Return plain data with what the other keys sealed in it sealed by the first, and how many."""
    if isinstance(value, str):
        if not ring.is_older(value):
            return value, 0
        return ring.seal(ring.open(value, SECRET_PURPOSE), SECRET_PURPOSE), 1
    if isinstance(value, Mapping):
        pairs = {name: reseal_value(one, ring) for name, one in value.items()}
        return {name: one for name, (one, _) in pairs.items()}, sum(n for _, n in pairs.values())
    if isinstance(value, list | tuple):
        items = [reseal_value(one, ring) for one in value]
        return [one for one, _ in items], sum(n for _, n in items)
    return value, 0


def sealed_texts(value: Any) -> Iterator[str]:
    """Return every sealed text in plain data."""
    if isinstance(value, str):
        if is_sealed(value):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from sealed_texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from sealed_texts(one)
