"""``certrail executor``: agents and sensors."""

from __future__ import annotations

from typing import Any

import click

from certrail import settings
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import echo_json, echo_table, examples
from certrail.errors import NotFound
from certrail.store import audit, executors
from certrail.store.executors import Executor
from certrail.store.request_view import time_text

_COLUMNS = ("name", "pool", "status", "queues", "waiting", "version", "host", "last_seen_at")


@click.group(epilog=examples("certrail executor list", "certrail executor forget old-web01"))
def executor() -> None:
    """List agents and sensors; forget one that is gone."""


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
