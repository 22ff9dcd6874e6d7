"""``certrail executor``: agents and sensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from certrail import settings
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import echo_json, echo_table, examples
from certrail.credential import Credential
from certrail.errors import InvalidRequest, NotFound
from certrail.keys.seal import stored_keys
from certrail.store import audit, executors
from certrail.store.executors import Executor
from certrail.store.request_view import time_text

_COLUMNS = ("name", "pool", "status", "queues", "waiting", "version", "host", "last_seen_at")


@click.group(epilog=examples("certrail executor list", "certrail executor forget old-web01"))
def executor() -> None:
    """List agents and sensors, let them in, forget one that is gone."""


@executor.command(
    "list", epilog=examples("certrail executor list", "certrail executor list --json")
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(as_json: bool) -> int:
    """List agents and sensors, when they were heard of, and how much work waits for them.

    Exit code 1 if one is silent.
    """
    settings.adopt()
    found = executors.everyone(settings.silent_after())
    if as_json:
        echo_json([_to_json(one) for one in found])
    elif not found:
        click.echo("no agent or sensor has been heard of yet")
    else:
        echo_table([(name, name.replace("_", " ")) for name in _COLUMNS], [_row(o) for o in found])
    return FAILED if any(one.status == "silent" for one in found) else DONE


@executor.command(epilog=examples("certrail executor forget old-web01"))
@click.argument("name")
def forget(name: str) -> None:
    """Remove an agent or sensor that is gone for good.

    Requests that only it can do go on waiting: give their endpoints or
    targets another `executor`.
    """
    settings.adopt()
    if not executors.forget(name, audit.local_actor()):
        raise NotFound(
            f"no agent or sensor is called {name}", remedy="`certrail executor list` shows all."
        )
    click.echo(f"{name}: forgotten")


@executor.command(
    epilog=examples(
        "certrail executor credential -o web01.credential",
        "certrail executor credential --database-url-file agents.url -o agents.credential",
    )
)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Where to write it (mode 0600).",
)
@click.option(
    "--database-url-file",
    "url_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Holds the URL of the inventory database for them: another account, another address.",
)
def credential(path: Path, url_file: Path | None) -> None:
    """Write the file by which agents and sensors on other machines get in.

    With it (CERTRAIL_CREDENTIAL_FILE), the API's address (PREFECT_API_URL) and
    a name, `certrail worker` runs anywhere. It holds the API's password, the
    database's URL and the sealing keys: who has it opens all that is stored.
    """
    found = settings.adopt()
    url = _line(url_file) if url_file else found.database_url
    if url_file is None and _is_local(url):
        raise InvalidRequest(
            "the inventory database can be reached from this machine only",
            remedy="Start `certrail up` with --database-url, for a PostgreSQL that other machines "
            "reach, or give the URL under which they reach it with --database-url-file.",
        )
    made = Credential(url, found.api_auth, stored_keys(found.key_file))
    try:
        settings.write_private(path, made.to_text())
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be written: {exc.strerror}") from exc
    audit.note_now(audit.local_actor(), "executor.credential", str(path))
    click.echo(f"{path}: copy it to the machine, readable by the worker's account only (0600)")


def _line(path: Path) -> str:
    url = path.read_text().strip()
    if not url.startswith(("postgresql://", "postgres://")) or "\n" in url:
        raise InvalidRequest(
            f"{path} does not hold the URL of a PostgreSQL database",
            remedy="One line: postgresql://USER:PASSWORD@HOST/DATABASE",
        )
    return url


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"", "localhost", "::1"} or host.startswith("127.")


def _row(one: Executor) -> dict[str, Any]:
    return {
        "name": one.name,
        "pool": one.pool,
        "status": one.status,
        "queues": list(one.queues),
        "waiting": one.waiting,
        "version": one.version,
        "host": one.host,
        "last_seen_at": one.last_seen_at,
    }


def _to_json(one: Executor) -> dict[str, Any]:
    return {
        **_row(one),
        "last_seen_at": time_text(one.last_seen_at),
        "started_at": time_text(one.started_at),
        "stopped_at": time_text(one.stopped_at),
        "silent_since": time_text(one.silent_since),
    }
