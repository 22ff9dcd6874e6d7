"""The engine, transactions and migrations of the inventory database.

One dialect, PostgreSQL through psycopg 3, with real row locks.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, Engine, create_engine, func, make_url, select, text
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.pool import NullPool

from certrail.errors import InvalidRequest, Unreachable
from certrail.settings import database_url

if TYPE_CHECKING:
    # Imported where it is used: a quarter of a second that only migrations need.
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x63657274  # any constant; two `certrail up` must not migrate at once

_DISK_FULL = "53100"  # PostgreSQL, appendix "Error Codes"

_LOCK = text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")

_Isolation = Literal["READ COMMITTED", "AUTOCOMMIT"]
_engines: dict[tuple[str, _Isolation, bool], Engine] = {}
_engines_lock = threading.Lock()


def engine(isolation: _Isolation = "READ COMMITTED", *, durable: bool = True) -> Engine:
    """Return this process's engine for the configured database.

    Args:
        isolation: how statements belong together.
        durable: whether a commit waits until it would survive a crash of the database.

    Raises:
        Unreachable: no database is configured or found.
    """
    url = database_url()
    with _engines_lock:
        key = (url, isolation, durable)
        if key not in _engines:
            settings = {} if durable else {"options": _not_waiting(url)}
            _engines[key] = create_engine(
                _driver_url(url),
                isolation_level=isolation,
                pool_size=20,
                max_overflow=60,
                pool_timeout=60,
                # No ping before each transaction, which would be a fifth of its cost: a
                # connection that broke meanwhile is reported as retryable and replaced.
                pool_recycle=1800,
                # An error must not carry what was to be stored.
                hide_parameters=True,
                connect_args={
                    "connect_timeout": 10,
                    "application_name": "certrail",
                    **settings,
                },
            )
        return _engines[key]


def _not_waiting(url: str) -> str:
    """Return the session's options with commits that do not wait for the disk."""
    given = make_url(url).query.get("options", "")
    listed = [given] if isinstance(given, str) else list(given)
    return " ".join([*listed, "-c synchronous_commit=off"]).strip()


@contextmanager
def transaction() -> Iterator[Connection]:
    """Open a transaction; it is committed at the end, or rolled back on any exception.

    Raises:
        Unreachable: the database does not answer.
    """
    try:
        with engine().begin() as connection:
            yield connection
    except (OperationalError, InterfaceError, TimeoutError) as exc:
        raise unreachable(exc) from exc


@contextmanager
def statement(*, durable: bool = True) -> Iterator[Connection]:
    """Open a connection for one statement, which is a transaction of its own.

    It saves the two round trips of BEGIN and COMMIT, two thirds of what a
    short statement costs. A second statement would not be rolled back with
    the first: use :func:`transaction` for several.

    Args:
        durable: False for what a crash of the database in the next half second may take
            back, because it is found out again: a third of a request's time is the disk.
            Nothing that was committed before or is committed after is lost by it; the
            next durable commit makes it last too.

    Raises:
        Unreachable: the database does not answer.
    """
    try:
        with engine("AUTOCOMMIT", durable=durable).connect() as connection:
            yield connection
    except (OperationalError, InterfaceError, TimeoutError) as exc:
        raise unreachable(exc) from exc


def now() -> datetime:
    """Return the present by the database's clock, which is the same for every worker.

    What is stored to be due at a moment is compared with it: a worker whose own
    clock is wrong, or is put right meanwhile, neither forgets nor hurries anything.

    Raises:
        Unreachable: the database does not answer.
    """
    with statement(durable=False) as connection:
        found: datetime = connection.execute(select(func.now())).scalar_one()
    return found.astimezone(UTC)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the advisory lock *name* across all processes while the block runs.

    The lock is that of a database transaction: it vanishes with the process
    that held it, so a crash never leaves it behind.
    """
    # A transaction that only holds the lock: its end, however it comes, gives it back.
    with _held_in_process(name), transaction() as connection:
        connection.execute(_LOCK, {"name": name})
        yield


def migrate(url: str) -> None:
    """Bring the database at *url* to this version's schema; safe to run at any time.

    Raises:
        Unreachable: the database does not answer.
        InvalidRequest: it was migrated by a newer version.
    """
    from alembic import command
    from alembic.script import ScriptDirectory

    engine = create_engine(_driver_url(url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(text("select pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
            config = _alembic(url)
            config.attributes["connection"] = connection
            scripts = ScriptDirectory.from_config(config)
            known = {script.revision for script in scripts.walk_revisions()}
            if (present := _present_revision(connection)) and present not in known:
                raise InvalidRequest(
                    f"the database is at revision {present}, which this version does not know",
                    remedy="Use the Certrail version that migrated it, or a newer one.",
                )
            command.upgrade(config, "head")
            connection.commit()
    except OperationalError as exc:
        raise unreachable(exc) from exc
    finally:
        engine.dispose()


def is_current(connection: Connection) -> bool:
    """Return whether the schema is the one this version wants."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_alembic("")).get_current_head()
    return _present_revision(connection) == head


def unreachable(exc: SQLAlchemyError) -> Unreachable:
    """Turn a connection failure into an error for people, without the password."""
    cause = str(getattr(exc, "orig", None) or exc).strip()
    first_line = cause.splitlines()[0] if cause else "no answer"
    if getattr(getattr(exc, "orig", None), "sqlstate", None) == _DISK_FULL:
        return Unreachable(
            f"the inventory database has no room left: {first_line}",
            remedy="Make room on the database's disk, then retry: nothing is lost.",
        )
    return Unreachable(
        f"the inventory database does not answer: {first_line}",
        remedy="Start it with `certrail up`, or correct CERTRAIL_DATABASE_URL.",
    )


_locks: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
_locks_guard = threading.Lock()


@contextmanager
def _held_in_process(name: str) -> Iterator[None]:
    # Waiting threads of one process queue here, so that only one of them at a
    # time occupies a database connection for the wait.
    with _locks_guard:
        lock = _locks.setdefault(name, threading.Lock())
    with lock:
        yield


def _driver_url(url: str) -> str:
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise InvalidRequest(
            f"the inventory database must be PostgreSQL, not {parsed.get_backend_name()}",
            remedy="Give a URL like postgresql://user:password@host:5432/certrail",
        )
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _alembic(url: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _present_revision(connection: Connection) -> str | None:
    there = connection.execute(text("select to_regclass('alembic_version')")).scalar()
    if there is None:
        return None
    return connection.execute(text("select version_num from alembic_version")).scalar()
