"""Migrations and tables as the code knows them."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from certrail.store.database import transaction
from certrail.store.schema import metadata


def test_migrations_make_what_the_code_expects(database_url: str) -> None:
    """A column that only one of the two knows fails in production, not here."""
    with transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []
