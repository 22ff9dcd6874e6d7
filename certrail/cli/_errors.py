"""Exit codes, and how a failure is told: cause and remedy, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

import click

from certrail.errors import (
    CertrailError,
    Conflict,
    InvalidRequest,
    JournalConflict,
    KeyUnavailable,
    NotFound,
    Unreachable,
)
from certrail.log import plain

DONE, FAILED, WRONG_CALL, NOT_REACHABLE = 0, 1, 2, 3

# What is wrong with a file or folder of the user's, rather than with us.
_PLACES = frozenset(
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR),
        *(errno.EEXIST, errno.EIO, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE),
    }
)
_UNDEFINED = ("42P01", "42703")  # undefined_table, undefined_column
_NO_API = "Start it with `certrail up`, or correct PREFECT_API_URL."
_NO_DATABASE = "Start it with `certrail up`, or correct CERTRAIL_DATABASE_URL."


def tell(error: BaseException) -> int:
    """Print cause and remedy on standard error; return the exit code."""
    cause, remedy, code = _explain(error)
    for index, line in enumerate(cause.splitlines() or [type(error).__name__]):
        label = click.style("Error: ", fg="red", bold=True) if index == 0 else ""
        click.echo(label + plain(line), err=True)
    if remedy:
        click.echo(click.style("Remedy: ", bold=True) + plain(remedy), err=True)
    return code


def exit_code(error: CertrailError) -> int:
    """Return what a command ends with that failed with *error*."""
    if isinstance(error, Unreachable | KeyUnavailable):
        return NOT_REACHABLE
    if isinstance(error, InvalidRequest | NotFound | Conflict | JournalConflict):
        return WRONG_CALL
    return FAILED


def _explain(error: BaseException) -> tuple[str, str, int]:
    if isinstance(error, CertrailError):
        return str(error), error.remedy, exit_code(error)
    return _database(error) or _http(error) or _file(error) or _defect(error)


def _database(error: BaseException) -> tuple[str, str, int] | None:
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy import exc

    if isinstance(error, exc.ProgrammingError) and (
        getattr(error.orig, "sqlstate", "") in _UNDEFINED
    ):
        first = str(error.orig).splitlines()[0]
        return (
            f"the inventory database has another schema than this version wants: {first}",
            "`certrail up` brings it up to date.",
            NOT_REACHABLE,
        )
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        said = str(getattr(error, "orig", error) or error).strip().splitlines()
        return f"the inventory database does not answer: {said[0]}", _NO_DATABASE, NOT_REACHABLE
    return None


def _http(error: BaseException) -> tuple[str, str, int] | None:
    if "httpx" not in sys.modules:
        return None
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"Prefect's API refuses us: HTTP {status}",
                "Set PREFECT_API_AUTH_STRING to user:password of the API.",
                NOT_REACHABLE,
            )
        path = error.request.url.path
        return f"Prefect's API answered {path} with HTTP {status}", _NO_API, NOT_REACHABLE
    if isinstance(error, httpx.RequestError):
        return f"Prefect's API does not answer: {error}", _NO_API, NOT_REACHABLE
    if isinstance(error, RuntimeError) and "reach API" in str(error):
        return f"Prefect's API does not answer: {error}", _NO_API, NOT_REACHABLE
    return None


def _file(error: BaseException) -> tuple[str, str, int] | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    place = f"{error.filename}: " if error.filename is not None else ""
    cause = f"{place}{error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return cause, "Make room there, then do it again.", NOT_REACHABLE
    if error.errno in _PLACES and place:
        return cause, "Correct that path, its owner or its mode, then do it again.", NOT_REACHABLE
    return None


def _defect(error: BaseException) -> tuple[str, str, int]:
    text = plain(str(error).strip().split("\n")[0])
    cause = f"{type(error).__name__}: {text}" if text else type(error).__name__
    try:
        where = _write_details(error)
    except OSError:
        where = None
    kept = f"The details are in {where}; p" if where else "P"
    return f"this is a defect: {cause}", f"{kept}lease report them with what you did.", FAILED


def _write_details(error: BaseException) -> Path:
    # Settings may be what is broken, so only the environment is asked.
    folder = Path(os.environ.get("CERTRAIL_DATA_DIR") or tempfile.gettempdir())
    if not folder.is_dir():
        folder = Path(tempfile.gettempdir())
    handle, name = tempfile.mkstemp(
        prefix=f"certrail-error-{datetime.now(UTC):%Y%m%dT%H%M%S}-", suffix=".log", dir=folder
    )
    with os.fdopen(handle, "w") as file:
        file.writelines(traceback.format_exception(error))
    return Path(name)
