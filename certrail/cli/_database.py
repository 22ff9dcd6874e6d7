"""The two databases: on the embedded server, or on one that the user names.

With a server of the user's, Prefect gets a database of its own beside ours,
named ``prefect``: its migrations own their schema completely, and dropping or
moving it must not touch the inventory.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import errors, sql

from certrail.errors import InvalidRequest, Unreachable
from certrail.log import plain
from certrail.postgres import INVENTORY_DATABASE, PREFECT_DATABASE, EmbeddedPostgres
from certrail.settings import settings


class EmbeddedPart:
    """The embedded PostgreSQL as a part that is kept running."""

    name = "PostgreSQL"

    def __init__(self, data_dir: Path, *, durable: bool) -> None:
        self._server = EmbeddedPostgres(data_dir / "postgres", durable=durable)

    @property
    def inventory_url(self) -> str:
        """The inventory database."""
        return self._server.url(INVENTORY_DATABASE)

    @property
    def prefect_url(self) -> str:
        """Prefect's database."""
        return self._server.url(PREFECT_DATABASE)

    def start(self) -> None:
        """Start the server, or start it again on the same port."""
        self._server.start()

    def ended(self) -> int | None:
        """Return how it ended, or None while it runs."""
        process = self._server.process
        return process.poll() if process else None

    def stop(self) -> None:
        """Stop it; data is written."""
        self._server.stop()


def prepare_external(inventory_url: str, prefect_url: str = "") -> tuple[str, str]:
    """Make sure that both databases exist on the user's server; return their URLs.

    Args:
        inventory_url: the inventory's database; its name defaults to ``certrail``.
        prefect_url: Prefect's database; by default ``prefect`` on the same server.

    Raises:
        InvalidRequest: a URL is not one of PostgreSQL, or both name one database.
        Unreachable: the server does not answer, refuses the password, or the
            account may not make a database that is missing.
    """
    ours = _with_name(inventory_url, INVENTORY_DATABASE)
    theirs = (
        _with_name(prefect_url, PREFECT_DATABASE)
        if prefect_url
        else _with_name(inventory_url, PREFECT_DATABASE, replace=True)
    )
    if _place(ours) == _place(theirs):
        raise InvalidRequest(
            "the inventory and Prefect cannot share one database",
            remedy="Give the inventory another name, or set CERTRAIL_PREFECT_DATABASE_URL.",
        )
    for url in (ours, theirs):
        _ensure(url)
    return ours, theirs


def prefect_url_of(inventory_url: str) -> str:
    """Return the URL of Prefect's database beside that of the inventory, or the one set for it."""
    chosen = settings().prefect_database_url
    theirs = chosen.get_secret_value() if chosen else ""
    if theirs:
        return _with_name(theirs, PREFECT_DATABASE)
    return _with_name(inventory_url, PREFECT_DATABASE, replace=True)


def _ensure(url: str) -> None:
    name = urlsplit(url).path.lstrip("/")
    try:
        psycopg.connect(url, connect_timeout=10).close()
    except psycopg.OperationalError as exc:
        if f'database "{name}" does not exist' not in str(exc):
            raise _refused(url, exc) from exc
        _create(url, name)


def _create(url: str, name: str) -> None:
    try:
        with psycopg.connect(
            _with_name(url, "postgres", replace=True), autocommit=True, connect_timeout=10
        ) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    except errors.DuplicateDatabase:
        return
    except errors.InsufficientPrivilege as exc:
        user = urlsplit(url).username or "the account"
        raise Unreachable(
            f"the database {name!r} is missing and {user} may not make it",
            remedy=f'Let an administrator run: create database "{name}" owner "{user}"; '
            f"in it: create extension pg_trgm;",
        ) from exc
    except psycopg.OperationalError as exc:
        raise _refused(url, exc) from exc


def _refused(url: str, exc: psycopg.OperationalError) -> Unreachable:
    parts = urlsplit(url)
    said = [line for line in str(exc).splitlines() if line.strip()] or ["no answer"]
    return Unreachable(
        f"PostgreSQL at {parts.hostname or 'localhost'}:{parts.port or 5432} "
        f"cannot be used: {plain(said[-1].strip())}",
        remedy="Check address, account and password in CERTRAIL_DATABASE_URL.",
    )


def _with_name(url: str, name: str, *, replace: bool = False) -> str:
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise InvalidRequest(
            f"the database must be PostgreSQL, not {parts.scheme or 'nothing'}",
            remedy="Give a URL like postgresql://user:password@host:5432/certrail",
        )
    path = parts.path if parts.path.strip("/") and not replace else f"/{quote(name)}"
    return urlunsplit(("postgresql", parts.netloc, path, parts.query, ""))


def _place(url: str) -> tuple[str | None, int, str]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or 5432, parts.path
