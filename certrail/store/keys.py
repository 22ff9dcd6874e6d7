"""Private keys at rest: sealed, handed out by id."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import Connection, func, insert, select, update

from certrail.errors import KeyUnavailable
from certrail.keys.seal import keyring
from certrail.private_key import PrivateKeyPem
from certrail.store.database import statement
from certrail.store.schema import keys


def keep(connection: Connection, key: PrivateKeyPem, *, purpose: str, algorithm: str) -> UUID:
    """Seal *key*, store it in the caller's transaction and return its id."""
    key_id = uuid4()
    ring = keyring()
    # The id is part of what is sealed: a sealed text moved to another row does not open.
    sealed = ring.seal(key.reveal(), purpose_of(key_id))
    connection.execute(
        insert(keys).values(id=key_id, purpose=purpose, sealed=sealed, algorithm=algorithm)
    )
    # From here on the row holds off `certrail key retire`. One that came just before has
    # taken away what alone would open it.
    if ring.primary not in (now := keyring()).ids:
        sealed = now.seal(key.reveal(), purpose_of(key_id))
        connection.execute(update(keys).where(keys.c.id == key_id).values(sealed=sealed))
    return key_id


def load(key_id: UUID) -> PrivateKeyPem:
    """Return the key.

    Raises:
        KeyUnavailable: it was destroyed, or the sealing key is not the one used.
    """
    with statement() as connection:
        row = connection.execute(select(keys.c.sealed).where(keys.c.id == key_id)).first()
    return opened(key_id, row.sealed if row is not None else None)


def opened(key_id: UUID, sealed: str | None) -> PrivateKeyPem:
    """Return the key of that id from its sealed text.

    Raises:
        KeyUnavailable: see :func:`load`.
    """
    if sealed is None:
        raise KeyUnavailable(
            f"the private key {key_id} was destroyed",
            remedy="Start a reissue, which makes a new key.",
        )
    return PrivateKeyPem(keyring().open(sealed, purpose_of(key_id)))


def destroy(key_id: UUID) -> None:
    """Forget the key material; the row stays as evidence that there was one."""
    with statement() as connection:
        connection.execute(
            update(keys).where(keys.c.id == key_id).values(sealed=None, destroyed_at=func.now())
        )


def purpose_of(key_id: UUID) -> str:
    """Return what a private key is sealed for: it opens in its own row only."""
    return f"private-key:{key_id}"
