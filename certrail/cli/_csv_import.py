"""Endpoints from a CSV file: the whole file or nothing of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from certrail.cli._output import defused
from certrail.configuration.endpoint import EndpointConfig
from certrail.errors import InvalidRequest
from certrail.store import audit, configured
from certrail.store.configured import Change
from certrail.store.database import transaction

_LARGEST = 32 * 1024 * 1024
_MOST_COMPLAINTS = 20
_LISTS = ("address", "names", "tags")
_TEXTS = ("sni", "profile", "target", "starttls", "criticality", "executor")
_SERVER = "server."
_BETWEEN = re.compile(r"[\s;,]+")
_ALIASES = {"addresses": "address", "tag": "tags", "name": "names"}


class _Undo(BaseException):
    """Ends a dry run's transaction without keeping it."""


def import_file(path: Path, *, dry_run: bool = False) -> list[Change]:
    """Create or update the endpoints of a CSV file.

    Raises:
        InvalidRequest: one line for each thing that is wrong, with its line number.
        Unreachable: the database does not answer.
    """
    rows = list(_rows(path))
    changes: list[Change] = []
    try:
        with transaction() as connection:
            known = configured.stored_endpoints(
                connection, [str(row["location"]) for _, row in rows]
            )
            wanted = _endpoints(path, rows, known)
            _check_names(
                path,
                rows,
                profiles=set(configured.all_profiles(connection)),
                connectors={c.name for c in configured.all_connectors(connection)},
            )
            changes += configured.apply_endpoints(connection, wanted, audit.local_actor())
            if dry_run:
                raise _Undo
    except _Undo:
        pass
    return changes


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return line number and settings of each line."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InvalidRequest(f"{path} is larger than {_LARGEST // 1024 // 1024} MiB")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{path} is not UTF-8 text", remedy="Save it as UTF-8.") from exc
    first = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text), delimiter=";" if ";" in first and "," not in first else ","
    )
    try:
        headings = [_heading(path, name) for name in next(reader, [])]
        if "location" not in headings:
            raise InvalidRequest(
                f"{path}:1: there is no column `location`",
                remedy="The first line names the columns: location,names,profile,target,tags …",
            )
        found = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(headings):
                raise InvalidRequest(
                    f"{path}:{reader.line_num}: {len(cells)} cells, but {len(headings)} headings"
                )
            found.append((reader.line_num, _settings(dict(zip(headings, cells, strict=False)))))
    except csv.Error as exc:
        raise InvalidRequest(f"{path}:{reader.line_num}: not CSV: {exc}") from exc
    return found


def _heading(path: Path, name: str) -> str:
    heading = name.strip().lower()
    heading = _ALIASES.get(heading, heading)
    if heading in ("location", *_LISTS, *_TEXTS) or heading.startswith(_SERVER):
        return heading
    known = ", ".join(("location", *_LISTS, *_TEXTS, "server.kind", "server.site", "server.…"))
    raise InvalidRequest(f"{path}:1: unknown column {name.strip()!r}", remedy=f"Known: {known}")


def _settings(cells: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    server: dict[str, Any] = {}
    for heading, raw in cells.items():
        # What our own export put before a formula sign is taken off again.
        text = raw.strip()
        if text.startswith("'") and defused(text[1:]) == text:
            text = text[1:]
        if heading in _LISTS:
            found[heading] = [word for word in _BETWEEN.split(text) if word]
        elif heading.startswith(_SERVER):
            if text:
                server[heading.removeprefix(_SERVER)] = text
        elif heading == "location":
            found[heading] = text
        else:
            found[heading] = text or None
    if any(heading.startswith(_SERVER) for heading in cells):
        found["server"] = server
    return found


def _endpoints(
    path: Path,
    rows: list[tuple[int, dict[str, Any]]],
    known: Mapping[str, Mapping[str, Any]],
) -> list[EndpointConfig]:
    wanted: dict[str, EndpointConfig] = {}
    wrong: list[str] = []
    for line, row in rows:
        before = known.get(str(row["location"]).lower(), {})
        try:
            endpoint = EndpointConfig.model_validate({**before, **row})
        except ValidationError as exc:
            for one in exc.errors(include_url=False, include_input=False, include_context=False):
                where = ".".join(str(part) for part in one["loc"])
                wrong.append(f"{path}:{line}: {where}: {one['msg'].removeprefix('Value error, ')}")
            continue
        if endpoint.location in wanted:
            wrong.append(f"{path}:{line}: location: {endpoint.location} is there twice")
        wanted[endpoint.location] = endpoint
    _refuse(wrong)
    return list(wanted.values())


def _check_names(
    path: Path,
    rows: list[tuple[int, dict[str, Any]]],
    *,
    profiles: set[str],
    connectors: set[str],
) -> None:
    wrong = []
    for line, row in rows:
        if row.get("profile") and row["profile"] not in profiles:
            wrong.append(f"{path}:{line}: profile: there is no profile {row['profile']!r}")
        if row.get("target") and row["target"] not in connectors:
            wrong.append(f"{path}:{line}: target: there is no connector {row['target']!r}")
    _refuse(wrong)


def _refuse(wrong: list[str]) -> None:
    if len(wrong) > _MOST_COMPLAINTS:
        wrong = [*wrong[:_MOST_COMPLAINTS], f"… and {len(wrong) - _MOST_COMPLAINTS} more"]
    if wrong:
        raise InvalidRequest("\n".join(wrong))
