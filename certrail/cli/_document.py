"""A configuration file as checked objects; every complaint has its line.

Nothing here reads or changes the installation: what the inventory has already
is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from certrail.cli import _references as references
from certrail.cli._pem import expired_trust, trust_from_file, trust_from_text
from certrail.cli._prefect_blocks import BlockType
from certrail.cli._yaml import Document, Path_, path_text
from certrail.configuration.endpoint import EndpointConfig
from certrail.configuration.fields import ProfileName, Slug
from certrail.configuration.profile import ProfileConfig
from certrail.errors import InvalidRequest
from certrail.notify.settings import NotificationSettings

_M = TypeVar("_M", bound=BaseModel)
_SECTIONS = ("connectors", "profiles", "endpoints", "notifications")
_MOST_COMPLAINTS = 20
_NAME: TypeAdapter[str] = TypeAdapter(Slug)
_EXECUTOR: TypeAdapter[str] = TypeAdapter(ProfileName)


@dataclass(frozen=True, slots=True)
class WantedConnector:
    """A connector of the file, its secrets still as they were written."""

    name: str
    type: BlockType
    block: Any = field(repr=False)
    executor: str | None = None


@dataclass(slots=True)
class Wanted:
    """What a configuration file asks for."""

    connectors: list[WantedConnector] = field(default_factory=list)
    profiles: list[ProfileConfig] = field(default_factory=list)
    endpoints: list[EndpointConfig] = field(default_factory=list)
    notifications: NotificationSettings | None = None


class Complaints:
    """All that is wrong with a document, in the order of its lines."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[tuple[int, str], None] = {}

    def add(self, path: Path_, message: str) -> None:
        """Note that *message* is the matter with the value at *path*."""
        where = path_text(path)
        text = f"{where}: {message}" if where else message
        self._found[(self._document.line(path), text)] = None

    def must_be_none(self) -> None:
        """Raise what was noted.

        Raises:
            InvalidRequest: something was.
        """
        if not self._found:
            return
        found = sorted(self._found)
        lines = [f"{self._document.name}:{line}: {text}" for line, text in found]
        if len(lines) > _MOST_COMPLAINTS:
            more = len(lines) - _MOST_COMPLAINTS
            lines = [*lines[:_MOST_COMPLAINTS], f"… and {more} more"]
        raise InvalidRequest("\n".join(lines))


def check(document: Document, types: Mapping[str, BlockType], folder: Path) -> Wanted:
    """Return the objects of *document*.

    Args:
        document: as read.
        types: the known kinds of connectors.
        folder: what relative paths in it are relative to.

    Raises:
        InvalidRequest: one line for each thing that is wrong.
    """
    complaints = Complaints(document)
    sections = _sections(document, complaints)
    wanted = Wanted()
    for path, entry in _entries(sections, "connectors", complaints):
        if connector := _connector(path, entry, types, folder, complaints):
            wanted.connectors.append(connector)
    for path, entry in _entries(sections, "profiles", complaints):
        if profile := _model(ProfileConfig, path, entry, complaints):
            wanted.profiles.append(_with_trust(profile, path, folder, complaints))
    for path, entry in _entries(sections, "endpoints", complaints):
        if endpoint := _model(EndpointConfig, path, entry, complaints):
            wanted.endpoints.append(endpoint)
    rules = sections.get("notifications")
    if isinstance(rules, dict):
        wanted.notifications = _model(NotificationSettings, ("notifications",), rules, complaints)
    elif rules is not None:
        complaints.add(("notifications",), "a mapping is expected")
    _refuse_duplicates(sections, complaints)
    complaints.must_be_none()
    return wanted


def check_references(
    document: Document,
    wanted: Wanted,
    *,
    connectors: Mapping[str, str],
    profiles: Mapping[str, ProfileConfig],
    types: Mapping[str, BlockType],
) -> None:
    """Check every name that one object uses for another.

    Args:
        document, wanted: from :func:`check`.
        connectors: slugs of the connectors in the inventory, by name.
        profiles: those in the inventory.
        types: the known kinds of connectors.

    Raises:
        InvalidRequest: one line for each name that leads nowhere or to a wrong kind.
    """
    complaints = Complaints(document)
    for index, connector in enumerate(wanted.connectors):
        present = connectors.get(connector.name)
        if present not in (None, connector.type.slug):
            complaints.add(
                ("connectors", index, "type"),
                f"the connector {connector.name} is a {present} already; "
                "give the new one another name",
            )
    slugs = {**connectors, **{c.name: c.type.slug for c in wanted.connectors}}
    kinds = {name: types[slug].kind if slug in types else "" for name, slug in slugs.items()}
    for index, profile in enumerate(wanted.profiles):
        references.check_profile(("profiles", index), profile, kinds, complaints.add)
    if wanted.notifications is not None:
        references.check_notifications(
            ("notifications",), wanted.notifications, slugs, kinds, complaints.add
        )
    known = {**profiles, **{profile.name: profile for profile in wanted.profiles}}
    for index, endpoint in enumerate(wanted.endpoints):
        references.check_endpoint(("endpoints", index), endpoint, known, kinds, complaints.add)
    complaints.must_be_none()


def _sections(document: Document, complaints: Complaints) -> Mapping[str, Any]:
    data = document.data
    if not isinstance(data, dict):
        complaints.add((), f"a mapping with {', '.join(_SECTIONS)} is expected")
        return {}
    for key in data:
        if key not in _SECTIONS:
            complaints.add((key,), _unknown(key, _SECTIONS))
    return data


def _entries(
    sections: Mapping[str, Any], section: str, complaints: Complaints
) -> list[tuple[Path_, dict[str, Any]]]:
    listed = sections.get(section)
    if listed is None:
        return []
    if not isinstance(listed, list):
        complaints.add((section,), "a list is expected")
        return []
    found: list[tuple[Path_, dict[str, Any]]] = []
    for index, entry in enumerate(listed):
        if isinstance(entry, dict):
            found.append(((section, index), entry))
        else:
            complaints.add((section, index), "a mapping is expected")
    return found


def _connector(
    path: Path_,
    entry: Mapping[str, Any],
    types: Mapping[str, BlockType],
    folder: Path,
    complaints: Complaints,
) -> WantedConnector | None:
    for key in ("name", "type"):
        if key not in entry:
            complaints.add(path, f"`{key}` is missing")
            return None
    try:
        name = _NAME.validate_python(entry["name"])
    except ValidationError:
        complaints.add(
            (*path, "name"), "a connector's name has lower-case letters, digits and hyphens only"
        )
        return None
    block_type = types.get(str(entry["type"]))
    if block_type is None:
        complaints.add((*path, "type"), _unknown(str(entry["type"]), types, "type of connector"))
        return None
    executor = _executor(path, entry.get("executor"), complaints)
    settings = {k: v for k, v in entry.items() if k not in ("name", "type", "executor")}
    block = _block(path, block_type, settings, folder, complaints.add)
    return WantedConnector(name, block_type, block, executor) if block is not None else None


def _executor(path: Path_, value: Any, complaints: Complaints) -> str | None:
    """Return the agent or sensor that reaches the connector: ours to know, not the block's."""
    if value is None:
        return None
    try:
        return _EXECUTOR.validate_python(value)
    except ValidationError:
        complaints.add((*path, "executor"), "the name of an agent or sensor is expected")
        return None


def make_block(
    block_type: BlockType, settings: Mapping[str, Any], folder: Path, complain: references.Complain
) -> Any:
    """Return a connector's block made of *settings*, None after complaining."""
    return _block((), block_type, settings, folder, complain)


def _block(
    path: Path_,
    block_type: BlockType,
    settings: Mapping[str, Any],
    folder: Path,
    complain: references.Complain,
) -> Any:
    ready: dict[str, Any] = {}
    fine = True
    for key, value in settings.items():
        if key not in block_type.fields:
            complain((*path, key), _unknown(key, block_type.fields, f"{block_type.slug} field"))
            fine = False
            continue
        try:
            ready[key] = _placed(key, value, folder)
        except InvalidRequest as exc:
            complain((*path, key), str(exc))
            fine = False
    if not fine:
        return None
    try:
        return block_type.cls(**ready)
    except ValidationError as exc:
        _complain_all(path, exc, complain, tuple(block_type.fields))
        return None


def _placed(key: str, value: Any, folder: Path) -> Any:
    """Make paths absolute; a CA bundle becomes text, since the worker may be elsewhere."""
    if not isinstance(value, str) or not value:
        return value
    if key == "ca_bundle":
        if "-----BEGIN" in value:
            return trust_from_text(value)
        return trust_from_file(_absolute(value, folder))
    if key.endswith("_file"):
        return str(_absolute(value, folder))
    if value.startswith("file:"):
        return f"file:{_absolute(value.removeprefix('file:'), folder)}"
    return value


def _absolute(text: str, folder: Path) -> Path:
    return Path(os.path.abspath(folder / Path(text).expanduser()))


def _model(
    model: type[_M], path: Path_, entry: Mapping[str, Any], complaints: Complaints
) -> _M | None:
    try:
        return model.model_validate(entry)
    except ValidationError as exc:
        _complain_all(path, exc, complaints.add, tuple(model.model_fields))
        return None


def _complain_all(
    path: Path_,
    error: ValidationError,
    complain: Callable[[Path_, str], None],
    known: Sequence[str],
) -> None:
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        where = (*path, *(part for part in one["loc"] if not str(part).startswith("function-")))
        if one["type"] == "extra_forbidden":
            message = _unknown(str(one["loc"][-1]), known if len(one["loc"]) == 1 else ())
        elif one["type"] == "missing":
            message = f"`{one['loc'][-1]}` is missing"
            where = where[:-1]
        else:
            message = one["msg"].removeprefix("Value error, ")
        complain(where, message)


def _with_trust(
    profile: ProfileConfig, path: Path_, folder: Path, complaints: Complaints
) -> ProfileConfig:
    try:
        if profile.trust is not None:
            if profile.trust_pem is not None:
                raise InvalidRequest("give either `trust` or `trust_pem`")
            pem = trust_from_file(_absolute(profile.trust, folder))
        elif profile.trust_pem is not None:
            pem = trust_from_text(profile.trust_pem)
        else:
            return profile
    except InvalidRequest as exc:
        complaints.add((*path, "trust" if profile.trust else "trust_pem"), str(exc))
        return profile
    if message := expired_trust(pem):
        complaints.add((*path, "trust" if profile.trust else "trust_pem"), message)
    return profile.model_copy(update={"trust_pem": pem})


def _refuse_duplicates(sections: Mapping[str, Any], complaints: Complaints) -> None:
    for section, key in (("connectors", "name"), ("profiles", "name"), ("endpoints", "location")):
        seen: dict[str, int] = {}
        listed = sections.get(section)
        for index, entry in enumerate(listed if isinstance(listed, list) else ()):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
                continue
            value = entry[key].lower() if section == "endpoints" else entry[key]
            if value in seen:
                complaints.add(
                    (section, index, key), f"{value} is in {section}[{seen[value]}] already"
                )
            seen.setdefault(value, index)


def _unknown(name: str, known: Sequence[str] | Mapping[str, Any], what: str = "field") -> str:
    near = get_close_matches(name, list(known), n=1)
    if near:
        return f"unknown {what} {name!r}; did you mean {near[0]!r}?"
    listed = f"; known are: {', '.join(known)}" if known else ""
    return f"unknown {what} {name!r}{listed}"
