"""``certrail connector``: list, check and add what Certrail talks to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from certrail.cli import _adoption, _prefect, _prefect_blocks, _questions, _sudoers
from certrail.cli._adoption import Known
from certrail.cli._connectors import held, prepare
from certrail.cli._document import make_block
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import echo_json, echo_table, examples
from certrail.cli._prefect_blocks import BlockType
from certrail.cli._yaml import Path_, path_text
from certrail.configuration.fields import Slug
from certrail.errors import CertrailError, InvalidRequest, NotFound
from certrail.log import plain
from certrail.store import acme_accounts, audit, configured
from certrail.store.configured import ConnectorRow
from certrail.store.database import transaction
from certrail.store.request_view import time_text


@click.group(
    epilog=examples("certrail connector list", "certrail connector check", "certrail connector add")
)
def connector() -> None:
    """List, check and add connectors: CAs, DNS providers, hosts, appliances."""


@connector.command(
    "list", epilog=examples("certrail connector list", "certrail connector list --json")
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(as_json: bool) -> None:
    """List connectors and what their last check found.

    Blocks that were made in Prefect's UI are connectors too.
    """
    _prefect.installation()
    known = _adoption.known()
    rows = list(known.rows.values())
    if as_json:
        echo_json([_to_json(row, known.problems) for row in rows])
    elif rows:
        columns = ("name", "type", "check", "checked", "message")
        shown = [_for_people(row, known.problems) for row in rows]
        echo_table([(name, name) for name in columns], shown)
    else:
        click.echo("there are no connectors; add one with `certrail connector add`")
    for name, (cause, remedy) in known.problems.items():
        if name not in known.rows or name in known.ambiguous:
            click.echo(f"{plain(cause)}\n  remedy: {plain(remedy)}", err=True)


@connector.command(
    epilog=examples("certrail connector check", "certrail connector check le-staging web01 --json")
)
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def check(names: Sequence[str], as_json: bool) -> int:
    """Make one cheap authenticated call to each connector, from this machine.

    All connectors without NAME. Exit code 1 when one of them does not answer
    as it should. The result is kept and counts for `Automation at risk`.
    """
    _prefect.installation()
    known = _adoption.known()
    results = [_checked(name, known) for name in _chosen(names, known)]
    if as_json:
        echo_json(results)
    else:
        for result in results:
            _print_result(result)
        if not results:
            click.echo("there are no connectors; add one with `certrail connector add`")
    return DONE if all(result["ok"] for result in results) else FAILED


@connector.command(
    epilog=examples(
        "certrail connector add --list-types",
        "certrail connector add ca-acme letsencrypt",
        "certrail connector add host-ssh web01 --set host=192.0.2.7 --set username=deploy \\",
        "    --set private_key_file=/etc/certrail/id --set host_key='ssh-ed25519 AAAA…'",
        "certrail connector add dns-rfc2136 ns --set server=192.0.2.53 --set key_name=k. \\",
        "    --set key_secret=env:TSIG",
    )
)
@click.argument("type_", metavar="TYPE", required=False)
@click.argument("name", required=False)
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Give a setting instead of being asked. A secret on a command line can be seen by others "
    "on this machine: give env:NAME or file:/path instead, or leave it out to be asked.",
)
@click.option("--list-types", is_flag=True, help="List the types and their settings.")
@click.option("--json", "as_json", is_flag=True, help="With --list-types: print a JSON array.")
def add(
    type_: str | None, name: str | None, given: Sequence[str], list_types: bool, as_json: bool
) -> int:
    """Add the connector NAME of the given TYPE; asks for what --set does not give.

    Only what is needed is asked for when any --set is given.
    """
    if list_types:
        _list_types(type_, as_json=as_json)
        return DONE
    if not type_ or not name:
        raise InvalidRequest(
            "a TYPE and a NAME are needed", remedy="certrail connector add --list-types"
        )
    _prefect.installation()
    block_type = _known_type(type_)
    _must_be_free(name)
    values = _questions.given(block_type, given)
    values |= _questions.asked(block_type, values, all_of_them=not given)
    _add(block_type, name, values)
    click.echo(f"connector {name} created; try it with `certrail connector check {name}`")
    return DONE


@connector.command(
    "forget-account", epilog=examples("certrail connector forget-account letsencrypt")
)
@click.argument("name")
def forget_account(name: str) -> None:
    """Remove the stored ACME account of the connector NAME, when the CA has closed it.

    The next request makes a new account. Requests that had an order but no
    certificate yet get a new order when they are retried: the old account's
    orders can be fetched by nobody else. What was issued stays.
    """
    accounts, orders = acme_accounts.forget(name, audit.local_actor())
    if not accounts:
        raise NotFound(
            f"no ACME account is stored for a connector {name}",
            remedy="`certrail connector list` shows the connectors.",
        )
    click.echo(f"the stored account of {name} is removed; {orders} orders of it were given up")


@connector.command(
    epilog=examples(
        "certrail connector sudoers web01 > certrail.sudoers",
        "certrail connector sudoers web01 --account certrail",
    )
)
@click.argument("name")
@click.option("--account", default="", help="The account; default: that of the connector.")
def sudoers(name: str, account: str) -> None:
    """Print what sudo has to list for the endpoints on the machine NAME.

    One line of sudoers for each command that tests or reloads a server, with
    all its arguments. With `sudo_listed: true` the connector runs these as root
    and everything else as the account.
    """
    _prefect.installation()
    for line in _sudoers.lines(name, account):
        click.echo(line)


def _must_be_free(name: str) -> None:
    # Before the questions: nobody wants to answer ten of them for nothing.
    try:
        TypeAdapter(Slug).validate_python(name)
    except ValidationError as exc:
        raise InvalidRequest(
            f"{name!r} is no name for a connector",
            remedy="Use lower-case letters, digits and hyphens only.",
        ) from exc
    known = _adoption.known()
    if name in known.rows or name in known.problems:
        present = known.rows.get(name)
        raise InvalidRequest(
            f"there is a connector {name} already" + (f", a {present.slug}" if present else ""),
            remedy="Change it with `certrail apply` or in Prefect's UI, or take another name.",
        )


def _add(block_type: BlockType, name: str, values: Mapping[str, Any]) -> None:
    complaints: list[str] = []

    def complain(path: Path_, message: str) -> None:
        complaints.append(f"{path_text(path)}: {message}" if path else message)

    block = make_block(block_type, values, Path.cwd(), complain)
    if block is None:
        raise InvalidRequest("\n".join(complaints), remedy="Correct the values; nothing was saved.")
    with held(), transaction() as connection:
        saving = prepare(name, block_type, block, exists=False)
        configured.keep_connector(connection, saving.change, saving.slug, audit.local_actor())
        saving.save()


def _chosen(names: Sequence[str], known: Known) -> list[str]:
    there = {*known.rows, *known.problems}
    if missing := [name for name in names if name not in there]:
        raise NotFound(
            f"there is no connector {', '.join(missing)}",
            remedy="`certrail connector list` shows all.",
        )
    return list(dict.fromkeys(names)) or sorted(there)


def _checked(name: str, known: Known) -> dict[str, Any]:
    row = known.rows.get(name)
    result: dict[str, Any] = {
        "name": name,
        "type": row.slug if row else None,
        "ok": False,
        "message": "",
        "cause": None,
        "remedy": None,
    }
    if name in known.problems or row is None:
        cause, remedy = known.problems[name]
        result |= {"message": cause, "cause": cause, "remedy": remedy}
    else:
        try:
            with _prefect_blocks.load_block(row.reference).connect() as opened:
                result |= {"ok": True, "message": opened.check()}
        except CertrailError as exc:
            result |= {"message": str(exc), "cause": str(exc), "remedy": exc.remedy}
    with transaction() as connection:
        configured.keep_check(connection, name, ok=result["ok"], message=result["message"])
    return result


def _print_result(result: Mapping[str, Any]) -> None:
    word = click.style("ok", fg="green") if result["ok"] else click.style("failed", fg="red")
    click.echo(f"{result['name']}: {word}: {plain(result['message'])}")
    if result["remedy"]:
        click.echo(f"  remedy: {plain(result['remedy'])}")


def _list_types(only: str | None, *, as_json: bool) -> None:
    # No installation is needed to tell what there is.
    types = _prefect_blocks.block_types()
    if only:
        types = {only: _known_type(only)}
    if as_json:
        echo_json([_type_to_json(one) for one in types.values()])
        return
    for one in types.values():
        click.echo(f"{one.slug}: {one.kind}. {one.description}")
        for field in one.fields.values():
            notes = [
                note
                for note, holds in (("needed", field.required), ("secret", field.secret))
                if holds
            ]
            told = f" ({', '.join(notes)})" if notes else ""
            click.echo(f"  {field.name}{told}: {field.description}")


def _known_type(slug: str) -> BlockType:
    types = _prefect_blocks.block_types()
    if slug not in types:
        raise InvalidRequest(
            f"there is no type of connector {slug!r}", remedy=f"Types are: {', '.join(types)}"
        )
    return types[slug]


def _to_json(row: ConnectorRow, problems: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    cause, remedy = problems.get(row.name, (None, None))
    return {
        "name": row.name,
        "type": row.slug,
        "checked_at": time_text(row.checked_at),
        "check_ok": row.check_ok,
        "check_message": row.check_message,
        "problem": cause,
        "remedy": remedy,
    }


def _for_people(row: ConnectorRow, problems: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    words = {None: "not checked", True: "ok", False: "failed"}
    if row.name in problems:
        return {
            "name": row.name,
            "type": row.slug,
            "check": "unusable",
            "checked": None,
            "message": problems[row.name][0],
        }
    return {
        "name": row.name,
        "type": row.slug,
        "check": words[row.check_ok],
        "checked": row.checked_at,
        "message": row.check_message,
    }


def _type_to_json(one: BlockType) -> dict[str, Any]:
    return {
        "type": one.slug,
        "kind": one.kind,
        "title": one.title,
        "description": one.description,
        "fields": [
            {
                "name": field.name,
                "description": field.description,
                "required": field.required,
                "secret": field.secret,
            }
            for field in one.fields.values()
        ],
    }
