"""``certrail view``: named selections of endpoints."""

from __future__ import annotations

from typing import Any

import click

from certrail import settings
from certrail.cli._output import echo_json, echo_table, examples
from certrail.cli._selection import selected, selection_options
from certrail.errors import InvalidRequest
from certrail.store import audit, inventory, views
from certrail.store.request_view import time_text
from certrail.store.views import NamedView, View
from certrail.words import counted


@click.group(
    epilog=examples(
        "certrail view save shop --tag shop --expires-within 30d --sort days_left",
        "certrail endpoint list --view shop",
    )
)
def view() -> None:
    """Save, list and delete selections of endpoints.

    A view holds filters, columns and an order. `certrail endpoint list`,
    `certrail job start` and `certrail report` take it by its name.
    """


@view.command(
    epilog=examples(
        "certrail view save shop --filter 'names~shop and days_left<30' --sort days_left",
        "certrail view save edge-failed --view failed --tag edge --add-column target",
    )
)
@click.argument("name")
@selection_options
@click.option("--describe", default="", metavar="TEXT", help="What it is for, for people.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def save(name: str, describe: str, as_json: bool, **chosen: Any) -> None:
    """Save a selection under NAME; one of that name is replaced."""
    settings.adopt()
    selection = selected(**chosen, is_kept=True).view
    kept = View(selection.filters, selection.sort, selection.columns, describe or selection.help)
    is_new = views.save(name, kept, audit.local_actor())
    if as_json:
        echo_json(_plain(NamedView(name, kept, audit.local_actor()), counted=False))
        return
    found = inventory.count(kept.clauses())
    click.echo(
        f"view {name} {'saved' if is_new else 'replaced'}: {counted(found, 'endpoint')} at present"
    )


@view.command("list", epilog=examples("certrail view list", "certrail view list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(as_json: bool) -> None:
    """List the views, and how many endpoints each shows now."""
    settings.adopt()
    rows = [_plain(one, counted=True) for one in views.every()]
    if as_json:
        echo_json(rows)
        return
    columns = ("name", "endpoints", "for", "filters", "saved by")
    for row, one in zip(rows, views.every(), strict=True):
        row["filters"] = " and ".join(one.view.filters).replace(",", ", ")
        row["for"] = one.view.help
        row["saved by"] = one.saved_by or "Certrail"
        row["endpoints"] = "cannot be read" if "problem" in row else row["endpoints"]
    echo_table([(name, name) for name in columns], rows)


@view.command(epilog=examples("certrail view delete shop"))
@click.argument("name")
def delete(name: str) -> None:
    """Delete a saved view. The endpoints stay."""
    settings.adopt()
    views.remove(name, audit.local_actor())
    click.echo(f"view {name} deleted")


def _plain(one: NamedView, *, counted: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": one.name,
        "filters": list(one.view.filters),
        "sort": one.view.sort,
        "columns": list(one.view.columns),
        "help": one.view.help,
        "system": one.is_system,
        "saved_by": one.saved_by,
        "saved_at": time_text(one.saved_at),
    }
    if counted:
        try:
            shown["endpoints"] = inventory.count(one.view.clauses())
        except InvalidRequest as exc:
            # Saved by an earlier version: it is still to be seen, replaced or deleted.
            shown |= {"endpoints": None, "problem": str(exc)}
    return shown
