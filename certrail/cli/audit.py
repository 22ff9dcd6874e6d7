"""``certrail audit``: who did what, and proof that nobody changed the record since."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from certrail import audit_chain, settings
from certrail.audit_chain import Anchor, Entry, Finding
from certrail.cli._errors import DONE, FAILED
from certrail.cli._output import echo_csv, echo_json, echo_table, examples
from certrail.cli._times import Moment
from certrail.errors import InvalidRequest
from certrail.log import plain
from certrail.store import audit as trail
from certrail.words import counted

_COLUMNS = ("seq", "at", "actor", "action", "object", "detail", "hash")
_ANCHORS = "audit.anchors"


@click.group(epilog=examples("certrail audit list --limit 20", "certrail audit verify"))
def audit() -> None:
    """Show, export and verify the audit trail."""


@audit.command(
    "list",
    epilog=examples(
        "certrail audit list --limit 20",
        "certrail audit list --action 'request.*' --object www.example.org:443 --json",
    ),
)
@click.option("--actor", help="Only entries of this account; a part of the name will do.")
@click.option("--action", help="Only this action; * stands for anything (`request.*`).")
@click.option("--object", "object_", help="Only about this location, connector or profile; * too.")
@click.option("--since", type=Moment(), help="Only from then on.")
@click.option("--until", type=Moment(), help="Only before then.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Newest first."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(
    actor: str | None,
    action: str | None,
    object_: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List entries, newest first."""
    settings.adopt()
    entries = trail.newest(
        limit=limit, actor=actor, action=action, object_=object_, since=since, until=until
    )
    if as_json:
        echo_json([entry.to_json() for entry in entries])
    elif entries:
        columns = ("seq", "at", "actor", "action", "object", "detail")
        echo_table([(name, name) for name in columns], [_for_people(one) for one in entries])
    else:
        click.echo("there are no such entries")


@audit.command(
    epilog=examples(
        "certrail audit export --json -o audit.json", "certrail audit export --csv -o audit.csv"
    )
)
@click.option("--json", "form", flag_value="json", default=True, help="A JSON array (default).")
@click.option("--csv", "form", flag_value="csv", help="CSV with a line of headings.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there."
)
@click.option("--since", type=Moment(), help="Only from then on.")
@click.option("--until", type=Moment(), help="Only before then.")
def export(form: str, output: Path | None, since: datetime | None, until: datetime | None) -> None:
    """Write the whole trail, oldest first. A JSON export can be verified anywhere."""
    settings.adopt()
    entries = (
        entry
        for entry in trail.chain()
        if (since is None or entry.at >= since) and (until is None or entry.at < until)
    )
    if output is None:
        _write(form, entries)
        return
    try:
        # A trail is for the eyes of its owner.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as exc:
        raise InvalidRequest(f"cannot write {output}: {exc.strerror}") from exc
    from contextlib import redirect_stdout

    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file, redirect_stdout(file):
        _write(form, entries)


@audit.command(
    epilog=examples(
        "certrail audit verify",
        "certrail audit verify --anchor 4211:0f3c…",
        "certrail audit verify --file audit.json",
    )
)
@click.option(
    "--anchor",
    "given",
    multiple=True,
    metavar="SEQ:HASH",
    help="An entry known from elsewhere. What this command said earlier is known anyway.",
)
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Verify an export instead; no installation is needed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(given: Sequence[str], path: Path | None, as_json: bool) -> int:
    """Check that no entry was changed, removed, inserted or reordered. Exit code 1 if one was.

    The end of the chain is kept in `audit.anchors` of the data directory, so that
    the next call notices when the trail was cut off or written anew. Whoever can
    change both is noticed by an anchor that you keep elsewhere.
    """
    anchors = [Anchor.parse(text) for text in given]
    if path is not None:
        findings, head = audit_chain.verify(_exported(path), anchors)
    else:
        found = settings.adopt()
        place = Path(found.data_dir) / _ANCHORS
        anchors += _kept(place)
        findings, head = audit_chain.verify(trail.chain(), anchors, unchained=trail.unchained())
        if not findings and head is not None and head not in anchors:
            _keep(place, head)
    _tell(findings, head, as_json=as_json)
    return FAILED if findings else DONE


def _tell(findings: Sequence[Finding], head: Anchor | None, *, as_json: bool) -> None:
    if as_json:
        echo_json(
            {
                "ok": not findings,
                "entries": head.seq if head else 0,
                "anchor": str(head) if head else None,
                "findings": [
                    {"code": str(one.code), "seq": one.seq, "message": one.message}
                    for one in findings
                ],
            }
        )
        return
    for one in findings:
        click.echo(f"{click.style(str(one.code), fg='red')}: {plain(one.message)}")
    if findings:
        click.echo(
            "the trail was tampered with, or restored from a backup; "
            "compare it with an export or a backup of that time"
        )
    elif head is None:
        click.echo("the trail is empty")
    else:
        entries = counted(head.seq, "entry", "entries")
        click.echo(f"{entries}, none changed; keep this anchor elsewhere: {head}")


def _write(form: str, entries: Iterable[Entry]) -> None:
    if form == "csv":
        echo_csv(_COLUMNS, (_as_row(entry) for entry in entries))
        return
    click.echo("[", nl=False)
    for number, entry in enumerate(entries):
        click.echo(("," if number else "") + "\n" + json.dumps(entry.to_json()), nl=False)
    click.echo("\n]")


def _as_row(entry: Entry) -> dict[str, Any]:
    row = entry.to_json()
    return {**row, "detail": json.dumps(row["detail"], sort_keys=True)}


def _for_people(entry: Entry) -> dict[str, Any]:
    told = " ".join(f"{key}={value}" for key, value in entry.detail.items())
    return {**entry.to_json(), "at": entry.at, "detail": told}


def _exported(path: Path) -> Iterable[Entry]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise InvalidRequest(f"{path} is not JSON") from exc
    if not isinstance(raw, list):
        raise InvalidRequest(f"{path} is no export of the audit trail")
    return [Entry.from_json(one) for one in raw]


def _kept(place: Path) -> list[Anchor]:
    try:
        return [Anchor.parse(line) for line in place.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise InvalidRequest(f"cannot read {place}: {exc.strerror}") from exc


def _keep(place: Path, head: Anchor) -> None:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return  # not our machine's data directory: the caller keeps the anchor
    with os.fdopen(descriptor, "a") as file:
        file.write(f"{head}\n")
