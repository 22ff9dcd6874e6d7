"""An inventory database for a test: real PostgreSQL, migrated, empty, its own.

The fixtures are plugged in by ``tests/conftest.py``. One server is started for
the whole session; each test gets a copy of a migrated template.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from certrail.keys.seal import new_key
from certrail.postgres import EmbeddedPostgres
from certrail.store import database
from tests.support.process import let_in, wait_for

_TEMPLATE = "template_certrail"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The embedded PostgreSQL with a migrated template database."""
    folder: Path = tmp_path_factory.mktemp("postgres")
    let_in(folder)
    server = EmbeddedPostgres(folder / "pg", durable=False)
    server.create()
    server.start()
    try:
        _allow_databases(server, folder / "postgres.json")
        _execute(server, sql.SQL("create database {}").format(sql.Identifier(_TEMPLATE)))
        database.migrate(server.url(_TEMPLATE))
        yield server
    finally:
        server.stop()


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh inventory database, set as this process's own, with a sealing key."""
    name = f"test_{secrets.token_hex(6)}"
    _execute(
        postgres,
        sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(_TEMPLATE)
        ),
    )
    url = postgres.url(name)
    monkeypatch.setenv("CERTRAIL_DATABASE_URL", url)
    monkeypatch.setenv("CERTRAIL_KEY", new_key())
    try:
        yield url
    finally:
        database.engine().dispose()
        drop(postgres, name)


def _allow_databases(server: EmbeddedPostgres, access: Path) -> None:
    """Let the application's role make databases, which it may not do outside of tests."""
    known = json.loads(access.read_text())["passwords"]
    role = make_url(server.url("postgres")).username
    (superuser,) = set(known) - {role}
    url = make_url(server.url("postgres")).set(username=superuser, password=known[superuser])
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(sql.SQL("alter role {} createdb").format(sql.Identifier(role or "")))


def drop(server: EmbeddedPostgres, name: str) -> None:
    """Drop a database, whoever is still connected to it."""
    statement = sql.SQL("drop database {} with (force)").format(sql.Identifier(name))

    def is_gone() -> bool:
        try:
            _execute(server, statement)
        except psycopg.errors.InsufficientPrivilege:
            return False  # autovacuum is in it, which only a superuser may end
        return True

    wait_for(is_gone, f"{name} is dropped", within=60)


def _execute(server: EmbeddedPostgres, statement: sql.Composed) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)
