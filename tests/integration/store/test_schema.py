"""Migrations and tables as the code knows them."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import select, update

from certrail.store import migrations
from certrail.store.database import transaction
from certrail.store.schema import audit, endpoints, metadata
from tests.integration.store.conftest import Inventory


def test_migrations_make_what_the_code_expects(database_url: str) -> None:
    """A column that only one of the two knows fails in production, not here."""
    with transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []


def test_locations_of_objects_become_lower_case(inventory: Inventory) -> None:
    """What could not be found by any command is, and two that differ by case stay two."""
    for name, location, server in (
        ("kv/a", "kv/MyCert", {"format": "pem"}),
        ("kv/b", "kv/mycert", {}),
        ("kv/c", "kv/Other", {"site": "Elsewhere"}),
    ):
        inventory.endpoint(name, server=server)
        with transaction() as connection:
            connection.execute(
                update(endpoints).where(endpoints.c.location == name).values(location=location)
            )
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))

    with transaction() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            scripts.get_revision("0018").module.upgrade()
        rows = connection.execute(select(endpoints.c.location, endpoints.c.server)).all()
        noted = connection.execute(
            select(audit.c.object, audit.c.detail["before"].astext).where(
                audit.c.actor == "certrail upgrade"
            )
        ).all()

    assert {row.location: row.server for row in rows} == {
        "kv/mycert": {},
        "kv/mycert-2": {"format": "pem", "site": "MyCert"},
        "kv/other": {"site": "Elsewhere"},
    }
    assert sorted(map(tuple, noted)) == [("kv/mycert-2", "kv/MyCert"), ("kv/other", "kv/Other")]
