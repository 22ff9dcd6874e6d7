"""ACME accounts: one for each connector and directory, its key sealed."""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from certrail.acme.account import StoredAccount
from certrail.store import audit, keys
from certrail.store.database import locked, statement, transaction
from certrail.store.schema import acme_accounts, orders, requests
from certrail.store.schema import keys as keys_table

_LOAD = (
    select(
        acme_accounts.c.url,
        acme_accounts.c.key_id,
        acme_accounts.c.contact,
        acme_accounts.c.eab_kid,
        keys_table.c.sealed,
    )
    .select_from(acme_accounts.join(keys_table))
    .where(
        acme_accounts.c.connector == bindparam("connector"),
        acme_accounts.c.directory_url == bindparam("directory_url"),
    )
)


class DatabaseAccountKeeper:
    """Keeps the account of one connector in the inventory database."""

    def __init__(self, connector: str, directory_url: str) -> None:
        self._connector = connector
        self._directory_url = directory_url

    def load(self) -> StoredAccount | None:
        """Return the account, or the key alone (url "") when the CA never answered."""
        this = {"connector": self._connector, "directory_url": self._directory_url}
        with statement() as connection:
            row = connection.execute(_LOAD, this).first()
        if row is None:
            return None
        key = keys.opened(row.key_id, row.sealed)
        return StoredAccount(row.url, key, tuple(row.contact), row.eab_kid)

    def save(self, account: StoredAccount) -> None:
        """Keep *account*; its key is sealed anew only when it is another one."""
        known = self.load()
        with transaction() as connection:
            values: dict[str, object] = {
                "url": account.url,
                "contact": list(account.contact),
                "eab_kid": account.eab_kid,
                "updated_at": func.now(),
            }
            if known is None or known.key.reveal() != account.key.reveal():
                values["key_id"] = keys.keep(
                    connection, account.key, purpose="acme-account", algorithm="account"
                )
                statement = insert(acme_accounts).values(
                    connector=self._connector, directory_url=self._directory_url, **values
                )
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["connector", "directory_url"], set_=values
                    )
                )
            else:
                connection.execute(
                    acme_accounts.update()
                    .where(
                        acme_accounts.c.connector == self._connector,
                        acme_accounts.c.directory_url == self._directory_url,
                    )
                    .values(**values)
                )

    def lock(self, what: str) -> AbstractContextManager[None]:
        """Hold a lock among all threads and processes: one newAccount, one newOrder at a time."""
        return locked(f"acme-{what}:{self._connector}:{self._directory_url}")


def forget(connector: str, actor: str) -> tuple[int, int]:
    """Drop the accounts of a connector, so that its next request makes a new one.

    Orders of a closed account can be neither finalized nor fetched by another one:
    those without a certificate are given up, and a retry of their requests opens
    new ones. Returns how many accounts and how many orders that were.
    """
    with transaction() as connection:
        accounts = connection.execute(
            delete(acme_accounts).where(acme_accounts.c.connector == connector)
        ).rowcount
        given_up = 0
        if accounts:
            unfinished = select(requests.c.id).where(requests.c.certificate_id.is_(None))
            given_up = connection.execute(
                update(orders)
                .where(
                    orders.c.ca == connector,
                    ~orders.c.is_dead,
                    orders.c.request_id.in_(unfinished),
                )
                .values(
                    is_dead=True,
                    dead_because="the account that made it was forgotten",
                    updated_at=func.now(),
                )
            ).rowcount
            audit.note(
                connection,
                actor,
                "connector.forget-account",
                connector,
                {"accounts": accounts, "orders": given_up},
            )
    return accounts, given_up
