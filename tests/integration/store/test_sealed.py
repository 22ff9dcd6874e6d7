"""Secrets inside of settings and plans are sealed anew, and what is not ours to open stays."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from certrail.keys.seal import SECRET_PURPOSE, Keyring, new_key
from certrail.store import sealed
from tests.integration.store.conftest import Inventory
from tests.support.process import wait_for

OLD, NEW = new_key(), new_key()
BEFORE, AFTER, ALONE = (Keyring.from_text(text) for text in (OLD, f"{NEW}\n{OLD}", NEW))
PASSWORD = "correct horse"
COLUMNS = ("endpoints.server", "endpoints.also_on", "profiles.settings", "requests.plan")


def reference() -> str:
    """Return the password as the old key seals it."""
    return BEFORE.seal(PASSWORD.encode(), SECRET_PURPOSE)


@pytest.fixture
def filled(inventory: Inventory, database_url: str) -> str:
    """An endpoint whose settings, further place, profile and request hold a sealed password."""
    server = {"kind": "tomcat", "password": reference(), "deep": [{"er": reference()}, 3, None]}
    further = [
        {
            "address": "192.0.2.7:443",
            "target": "web",
            "server": {"kind": "tomcat", "password": reference()},
        }
    ]
    inventory.endpoint(
        "a.test:443", names=["a.test"], profile="p", target="web", server=server, also_on=further
    )
    inventory.endpoint("b.test:443", names=["b.test"], server={"kind": "nginx"})
    inventory.request("a.test:443")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update profiles set settings = settings || jsonb_build_object('note', %s::text)",
            [reference()],
        )
    return database_url


def stored(url: str) -> dict[str, list[Any]]:
    """Return what each column holds, by column."""
    with psycopg.connect(url) as connection:
        return {
            name: [
                value
                for (value,) in connection.execute(
                    f"select {name.partition('.')[2]} from {name.partition('.')[0]} order by id"
                )
            ]
            for name in COLUMNS
        }


def opened(value: Any, ring: Keyring) -> Any:
    """Return plain data with each sealed text opened."""
    if isinstance(value, dict):
        return {name: opened(one, ring) for name, one in value.items()}
    if isinstance(value, list):
        return [opened(one, ring) for one in value]
    if isinstance(value, str) and value.startswith("sealed:"):
        return ring.open(value, SECRET_PURPOSE).decode()
    return value


def test_the_new_key_alone_opens_everything(filled: str) -> None:
    """Nothing but the seals changes, and nothing is left to the old key."""
    before = stored(filled)
    texts = {name: list(sealed.sealed_texts(values)) for name, values in before.items()}
    assert all(texts.values()), texts
    assert sealed.uses(BEFORE.primary) == len(COLUMNS)

    assert sealed.reseal(AFTER) == sum(len(found) for found in texts.values())

    after = stored(filled)
    assert opened(after, ALONE) == opened(before, BEFORE)
    assert sealed.uses(BEFORE.primary) == 0
    assert BEFORE.primary not in str(after)
    assert sealed.reseal(AFTER) == 0
    assert stored(filled) == after


def test_what_no_key_here_opens_stays_as_it_is(filled: str) -> None:
    """A value that is lost already must not keep the others from their new key."""
    lost = Keyring.from_text(new_key()).seal(b"lost", SECRET_PURPOSE)
    with psycopg.connect(filled) as connection:
        connection.execute(
            "update endpoints set server = jsonb_build_object('password', %s::text,"
            " 'other', server->'password') where location = 'a.test:443'",
            [lost],
        )

    sealed.reseal(AFTER)

    with psycopg.connect(filled) as connection:
        row = connection.execute(
            "select server from endpoints where location = 'a.test:443'"
        ).fetchone()
    assert row is not None
    assert row[0]["password"] == lost
    assert ALONE.open(row[0]["other"], SECRET_PURPOSE).decode() == PASSWORD
    assert sealed.uses(BEFORE.primary) == 0


def test_more_requests_than_one_batch_are_all_sealed_anew(
    filled: str, inventory: Inventory
) -> None:
    """None is left out at the border of a batch."""
    with psycopg.connect(filled) as connection:
        connection.execute(
            "insert into requests (endpoint_id, workflow, action, status, reason_code,"
            " reason_message, requested_by, plan, is_latest)"
            " select endpoint_id, workflow, action, 'cancelled', reason_code, reason_message,"
            " requested_by, plan, false from requests, generate_series(1, 450)"
        )

    sealed.reseal(AFTER)

    assert BEFORE.primary not in str(stored(filled))
    assert sealed.uses(BEFORE.primary) == 0


def test_a_row_that_a_run_holds_is_waited_for_without_holding_others(
    filled: str, inventory: Inventory
) -> None:
    """A run that goes on to a second row while its first one is waited for is not stopped."""
    inventory.endpoint("c.test:443", server={"kind": "tomcat", "password": reference()})
    with (
        psycopg.connect(filled) as run,
        psycopg.connect(filled, autocommit=True) as other,
    ):
        run.execute("set lock_timeout = '5s'")
        run.execute("select 1 from endpoints where location = 'c.test:443' for update")
        thread = threading.Thread(target=sealed.reseal, args=(AFTER,))
        thread.start()
        wait_for(lambda: is_waiting(other), "the row is waited for")

        run.execute("update endpoints set sni = 'changed'")
        run.commit()
        thread.join(30)

    assert BEFORE.primary not in str(stored(filled))
    with psycopg.connect(filled) as connection:
        row = connection.execute("select count(*) from endpoints where sni = 'changed'").fetchone()
    assert row == (3,)


def is_waiting(connection: psycopg.Connection[Any]) -> bool:
    """Return whether somebody waits for a lock in this database."""
    row = connection.execute(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        " and datname = current_database()"
    ).fetchone()
    return bool(row and row[0])
