"""``certrail apply``: make the inventory what a configuration file says."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from certrail.cli import _adoption, _prefect, _prefect_blocks
from certrail.cli._connectors import Saving, describe, held, prepare
from certrail.cli._document import Wanted, check, check_references
from certrail.cli._output import echo_json, examples
from certrail.cli._yaml import Document, read
from certrail.errors import CertrailError, Conflict, InvalidRequest
from certrail.log import plain
from certrail.store import audit, configured, notifications
from certrail.store.configured import Change, Effect
from certrail.store.database import transaction
from certrail.store.plans import read_profile
from certrail.words import counted

_MOST_LINES = 40


class _Undo(BaseException):
    """Ends a dry run's transaction without keeping it."""


@click.command(
    epilog=examples(
        "certrail apply -f certificates.yaml --dry-run",
        "certrail apply -f certificates.yaml",
    )
)
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    metavar="FILE.yaml",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The configuration file; - reads standard input.",
)
@click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as a JSON array.")
def apply(path: Path, dry_run: bool, as_json: bool) -> None:
    """Create or update connectors, profiles and endpoints from a YAML file.

    The whole file is applied, or nothing of it: an unknown field or a name
    that leads nowhere is told with its line. What is not in the file stays
    as it is. ${NAME} in a value is read from the environment; relative paths
    are relative to the file. Secrets are sealed before they are stored.
    """
    document = _read(path)
    _prefect.installation()
    changes = apply_document(document, _folder(path), dry_run=dry_run)
    print_changes(changes, dry_run=dry_run, as_json=as_json)


def apply_document(document: Document, folder: Path, *, dry_run: bool = False) -> list[Change]:
    """Apply a configuration file that was read.

    Args:
        document: the file.
        folder: what relative paths in it are relative to.
        dry_run: tell the changes without making them.

    Raises:
        InvalidRequest: something in it is wrong; nothing was applied.
        Unreachable: Prefect or the database does not answer.
    """
    types = _prefect_blocks.block_types()
    wanted = check(document, types, folder)
    connectors = _adoption.known()
    connectors.must_be_usable(_named(wanted, connectors.ambiguous))
    known = connectors.rows
    with transaction() as connection:
        settings = configured.all_profiles(connection)
    present = {name: connector.slug for name, connector in known.items()}
    stored = {name: read_profile(profile) for name, profile in settings.items()}
    check_references(document, wanted, connectors=present, profiles=stored, types=types)
    changes: list[Change] = []
    try:
        with held(), transaction() as connection:
            savings = [
                prepare(c.name, c.type, c.block, exists=c.name in present).reached_by(
                    c.executor, before=known[c.name].executor if c.name in known else None
                )
                for c in wanted.connectors
            ]
            changes += _store(connection, savings, wanted)
            if dry_run:
                raise _Undo
            # Last of all, when everything else is known to fit. A block that is
            # stored although the commit then fails is found again by the next
            # apply; no row ever names a block that is not there.
            _save(savings)
    except _Undo:
        pass
    except IntegrityError as exc:
        raise Conflict(
            "the inventory was changed by somebody else at the same time; nothing was applied",
            remedy="Apply the file again.",
        ) from exc
    return changes


def _named(wanted: Wanted, ambiguous: frozenset[str]) -> list[str]:
    """Return the connectors that have to be usable; those that the file describes are replaced."""
    described = {connector.name for connector in wanted.connectors} - ambiguous
    named = [
        *(connector.name for connector in wanted.connectors),
        *(profile.ca for profile in wanted.profiles),
        *(profile.validation.dns for profile in wanted.profiles if profile.validation),
        *(endpoint.target for endpoint in wanted.endpoints),
    ]
    return [name for name in named if name and name not in described]


def _store(connection: Connection, savings: Sequence[Saving], wanted: Wanted) -> list[Change]:
    actor = audit.local_actor()
    for saving in savings:
        configured.keep_connector(connection, saving.change, saving.slug, actor)
        configured.keep_executor(connection, saving.change.name, saving.executor)
    return [
        *(saving.change for saving in savings),
        *configured.apply_profiles(connection, wanted.profiles, actor),
        *configured.apply_endpoints(connection, wanted.endpoints, actor),
        *_store_rules(connection, wanted, actor),
    ]


def _store_rules(connection: Connection, wanted: Wanted, actor: str) -> list[Change]:
    if wanted.notifications is None:
        return []
    rules = wanted.notifications.model_dump(mode="json")
    before = notifications.settings(connection)
    change = (
        Change("notifications", "account-wide", Effect.CREATED)
        if before is None
        else configured.compare("notifications", "account-wide", before, rules)
    )
    if change.effect is not Effect.UNCHANGED:
        notifications.keep_settings(connection, rules)
        fields = {"fields": [field.field for field in change.fields]}
        audit.note(connection, actor, f"notifications.{change.effect}", change.name, fields)
    return [change]


def _save(savings: Sequence[Saving]) -> None:
    saved: list[str] = []
    for saving in savings:
        try:
            saving.save()
        except CertrailError as exc:
            if saved:
                exc.remedy += f" Saved already: {', '.join(saved)}. Then apply the file again."
            raise
        if saving.change.effect is not Effect.UNCHANGED:
            saved.append(saving.change.name)


def _read(path: Path) -> Document:
    if str(path) == "-":
        return read(sys.stdin.buffer.read().decode(errors="replace"), "standard input")
    try:
        return read(path.read_text(encoding="utf-8"), str(path))
    except OSError as exc:
        raise InvalidRequest(
            f"cannot read {path}: {exc.strerror}", remedy="Name the configuration file with -f."
        ) from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{path} is not UTF-8 text: {exc.reason} at byte {exc.start}") from exc


def _folder(path: Path) -> Path:
    return Path.cwd() if str(path) == "-" else path.absolute().parent


def print_changes(changes: Sequence[Change], *, dry_run: bool, as_json: bool) -> None:
    """Print every change, but only the first of very many of a kind."""
    if as_json:
        echo_json([_to_json(change) for change in changes])
        return
    shown: Counter[tuple[str, Effect]] = Counter()
    for change in changes:
        if change.effect is Effect.UNCHANGED:
            continue
        shown[change.kind, change.effect] += 1
        if shown[change.kind, change.effect] <= _MOST_LINES:
            click.echo(_line(change))
    for (kind, effect), number in shown.items():
        if number > _MOST_LINES:
            click.echo(f"… and {number - _MOST_LINES} more {kind}s {effect}")
    same = Counter(c.kind for c in changes if c.effect is Effect.UNCHANGED)
    for kind, number in same.items():
        click.echo(f"{counted(number, kind)} unchanged")
    if not changes:
        click.echo("the file is empty: nothing to do")
    elif dry_run:
        click.echo("dry run: nothing was changed")


def _line(change: Change) -> str:
    if change.effect is Effect.CREATED:
        return f"{change.kind} {plain(change.name)} created"
    told = "; ".join(plain(describe(field)) for field in change.fields) or "stored again"
    return f"{change.kind} {plain(change.name)}: {told}"


def _to_json(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "name": change.name,
        "effect": str(change.effect),
        "fields": [
            {"field": field.field, "before": field.before, "after": field.after}
            for field in change.fields
        ],
    }
