"""``certrail endpoint``: the inventory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from certrail import settings
from certrail.cli import _columns
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import (
    console,
    echo_csv,
    echo_json,
    echo_json_array,
    echo_table,
    examples,
    is_terminal,
)
from certrail.cli._selection import selected, selection_options
from certrail.errors import InvalidRequest
from certrail.store import audit, endpoint_detail, inventory, renewal_decisions, request_view
from certrail.words import counted

_SWITCH = {"on": True, "off": False, "default": None}

_PAGE = 1000


@click.group(
    epilog=examples(
        "certrail endpoint list --view expiring",
        "certrail endpoint show www.example.org:443",
        "certrail endpoint scan 192.0.2.0/28:443",
    )
)
def endpoint() -> None:
    """List, show, import and scan endpoints."""


@endpoint.command(
    "list",
    epilog=examples(
        "certrail endpoint list --view needs-attention",
        "certrail endpoint list --filter 'status=automation-failed and days_left<30'",
        "certrail endpoint list --tag shop --add-column job_name --sort days_left",
        "certrail endpoint list --expires-within 30d --csv > expiring.csv",
    ),
)
@selection_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N rows.")
@click.option(
    "--after",
    default="",
    metavar="LOCATION",
    help="Go on behind this row of the same order: the last one of the page before.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with all columns.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def list_(limit: int | None, after: str, as_json: bool, as_csv: bool, **chosen: Any) -> None:
    """List endpoints with certificate, status and last request.

    Any filter and order comes at once, at a hundred thousand endpoints too;
    with --limit and --after it comes page by page.
    """
    if as_json and as_csv:
        raise InvalidRequest("--json and --csv exclude each other", remedy="Give one of them.")
    ui_url = settings.adopt().ui_url
    selection = selected(**chosen)
    view = selection.view
    rows = inventory.stream(view.clauses(), sort=view.sort, after=after)
    found: Iterator[inventory.Endpoint] = itertools.islice(rows, limit)
    if limit is not None and limit < _PAGE:
        found = iter(inventory.find(view.clauses(), sort=view.sort, limit=limit, after=after))
    if as_json:
        echo_json_array(_columns.plain_row(row, ui_url) for row in found)
    elif as_csv:
        keys = selection.columns if selection.has_columns else list(inventory.COLUMNS)
        echo_csv(keys, (_columns.plain_row(row, ui_url) for row in found))
    else:
        _table(list(found), selection.columns, ui_url, filtered=bool(view.filters))


@endpoint.command(
    epilog=examples(
        "certrail endpoint show www.example.org:443",
        "certrail endpoint show www.example.org:443 --json",
    )
)
@click.argument("location")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(location: str, as_json: bool) -> None:
    """Show one endpoint: attributes, certificate, automation and its last request."""
    from certrail.cli import _endpoint_detail as detail

    ui_url = settings.adopt().ui_url
    found = endpoint_detail.get(location)
    last = (
        request_view.find(str(found.row.request_id), ui_url=ui_url)
        if found.row.request_id
        else None
    )
    if as_json:
        echo_json(detail.to_json(found, last, ui_url))
    else:
        detail.show(found, last)


@endpoint.command(
    "import",
    epilog=examples(
        "certrail endpoint import endpoints.csv --dry-run",
        "certrail endpoint import endpoints.csv",
    ),
)
@click.argument("path", metavar="FILE.csv", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as a JSON array.")
def import_(path: Path, dry_run: bool, as_json: bool) -> None:
    """Create or update endpoints from a CSV file with a line of headings.

    Columns: location (needed), address, sni, names, profile, target, starttls,
    tags, and server.KIND-OF-SETTING such as server.kind and server.site. Lists
    are separated by blanks or semicolons. A column that is not there leaves
    that setting of known endpoints as it is.
    """
    from certrail.cli import _csv_import
    from certrail.cli.apply import print_changes

    settings.adopt()
    changes = _csv_import.import_file(path, dry_run=dry_run)
    print_changes(changes, dry_run=dry_run, as_json=as_json)


@endpoint.command(
    epilog=examples(
        "certrail endpoint scan www.example.org:443 192.0.2.0/28:443",
        "certrail endpoint scan --target web01",
        "certrail endpoint scan --target web01 --profile public-web --yaml > web01.yaml",
        "certrail endpoint scan mail.example.org:587 --starttls smtp --json",
    )
)
@click.argument("addresses", nargs=-1, metavar="HOST:PORT|CIDR:PORT…")
@click.option("--target", help="List the sites that this host or appliance serves instead.")
@click.option(
    "--starttls",
    type=click.Choice(["smtp", "imap", "pop3", "ldap", "postgres", "mysql", "none"]),
    help="How TLS begins; default: by the port.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=3.0,
    show_default=True,
    help="Seconds for each address.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=32, show_default=True)
@click.option("--profile", help="With --target: the profile that new endpoints get.")
@click.option(
    "--yaml",
    "as_yaml",
    is_flag=True,
    help="With --target: print new endpoints as a file for `certrail apply`, and keep nothing.",
)
@click.option("--save", is_flag=True, help="Keep them although they are printed with --yaml.")
@click.option("--dry-run", is_flag=True, help="Look, but keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def scan(
    addresses: Sequence[str],
    target: str | None,
    starttls: str | None,
    timeout: float,
    concurrency: int,
    profile: str | None,
    as_yaml: bool,
    save: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Look at what is served now and keep it in the inventory.

    Known endpoints get what was seen; an address that serves a certificate
    and is not known becomes an endpoint without a profile (`--view unmanaged`).
    With --target, the servers of a host are found by their processes and usual
    places, and what they serve by their configuration.
    Exit code 1 when nothing answered anywhere.
    """
    from certrail.cli import _scan

    if bool(addresses) == bool(target):
        raise InvalidRequest(
            "give addresses or --target", remedy="certrail endpoint scan www.example.org:443"
        )
    if (profile or as_yaml) and not target:
        raise InvalidRequest(
            "--profile and --yaml go with --target", remedy="certrail endpoint scan --target web01"
        )
    if target:
        keep = save or not (dry_run or as_yaml)
        offer = _scan.sites_of_target(target, keep=keep, profile=profile)
        rows = offer.rows
        if as_yaml:
            click.echo(offer.as_yaml(), nl=False)
            _scan.print_unreadable(rows)
            return DONE if any(row["reachable"] for row in rows) else FAILED
    else:
        rows = _scan.addresses(
            addresses,
            starttls=starttls,
            timeout=timedelta(seconds=timeout),
            concurrency=concurrency,
            keep=not dry_run,
        )
    if as_json:
        echo_json(rows)
    else:
        _scan.print_rows(rows)
    return DONE if any(row["reachable"] for row in rows) else FAILED


@endpoint.command(
    "auto-renew",
    epilog=examples(
        "certrail endpoint auto-renew www.example.org:443 off",
        "certrail endpoint auto-renew www.example.org:443 default",
    ),
)
@click.argument("location")
@click.argument("wanted", metavar="on|off|default", type=click.Choice(list(_SWITCH)))
def auto_renew(location: str, wanted: str) -> None:
    """Renew the endpoint LOCATION without being asked, or only when asked.

    `default` follows the profile. `on` and `default` also bring back a
    renewal that was cancelled or refused. The next sweep acts on it.
    """
    settings.adopt()
    renewal_decisions.hold(location, _SWITCH[wanted], audit.local_actor())
    click.echo(f"{location.lower()}: automatic renewal {wanted}")


def _table(
    found: Sequence[inventory.Endpoint], columns: Sequence[str], ui_url: str, *, filtered: bool
) -> None:
    if not found:
        click.echo(
            "no endpoint is like that"
            if filtered
            else "the inventory is empty; fill it with `certrail apply` or `certrail endpoint scan`"
        )
        return
    rows: list[dict[str, Any]] = [_columns.table_row(row, ui_url) for row in found]
    echo_table([(name, _columns.HEADINGS[name]) for name in columns], rows)
    if is_terminal():
        console().print(counted(len(found), "endpoint"), style="dim")
