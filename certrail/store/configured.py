"""Creating and updating connectors, profiles and endpoints, and telling what changed.

Everything here works in the caller's transaction: a configuration file is
applied whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Text, any_, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from certrail.configuration.endpoint import EndpointConfig
from certrail.configuration.profile import ProfileConfig
from certrail.store import audit
from certrail.store.schema import connectors, endpoints, profiles

_BATCH = 1000


class Effect(StrEnum):
    """What applying did to one object."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field before and after, as plain data; never a secret."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """What applying did to one connector, profile or endpoint."""

    kind: str
    name: str
    effect: Effect
    fields: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectorRow:
    """A connector as the inventory knows it; its settings are a Prefect block."""

    name: str
    slug: str
    checked_at: Any = None
    check_ok: bool | None = None
    check_message: str | None = None
    executor: str | None = None

    @property
    def reference(self) -> str:
        """What Prefect loads the block by."""
        return f"{self.slug}/{self.name}"


def all_connectors(connection: Connection) -> list[ConnectorRow]:
    """Return every connector, sorted by name."""
    return [
        ConnectorRow(
            row.name, row.slug, row.checked_at, row.check_ok, row.check_message, row.executor
        )
        for row in connection.execute(select(connectors).order_by(connectors.c.name))
    ]


def all_profiles(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return the settings of all profiles by name."""
    return {
        row.name: row.settings
        for row in connection.execute(select(profiles.c.name, profiles.c.settings))
    }


def keep_connector(connection: Connection, change: Change, slug: str, actor: str) -> None:
    """Write down that a connector was created or changed."""
    if change.effect is Effect.UNCHANGED:
        return
    if change.effect is Effect.CREATED:
        connection.execute(insert(connectors).values(name=change.name, slug=slug))
    else:
        # What an earlier check found was found with other settings.
        connection.execute(
            update(connectors)
            .where(connectors.c.name == change.name)
            .values(
                slug=slug,
                updated_at=func.now(),
                checked_at=None,
                check_ok=None,
                check_message=None,
            )
        )
    _note(connection, change, actor)


def keep_executor(connection: Connection, name: str, executor: str | None) -> None:
    """Write down which agent or sensor reaches what the connector stands for."""
    connection.execute(
        update(connectors).where(connectors.c.name == name).values(executor=executor)
    )


def keep_check(connection: Connection, name: str, *, ok: bool, message: str) -> None:
    """Write down what a check of the connector found."""
    connection.execute(
        update(connectors)
        .where(connectors.c.name == name)
        .values(checked_at=func.now(), check_ok=ok, check_message=message)
    )


def apply_profiles(
    connection: Connection, wanted: Iterable[ProfileConfig], actor: str
) -> list[Change]:
    """Create or update profiles."""
    stored = {
        row.name: (row.id, row.settings)
        for row in connection.execute(
            select(profiles.c.id, profiles.c.name, profiles.c.settings).with_for_update()
        )
    }
    changes = []
    for profile in wanted:
        settings = profile.model_dump(mode="json")
        values = {"workflow": profile.workflow, "ca": profile.ca, "settings": settings}
        if profile.name not in stored:
            change = Change("profile", profile.name, Effect.CREATED)
            connection.execute(insert(profiles).values(name=profile.name, **values))
        else:
            profile_id, before = stored[profile.name]
            change = compare("profile", profile.name, _as_now(before), settings)
            if change.effect is Effect.CHANGED:
                connection.execute(
                    update(profiles)
                    .where(profiles.c.id == profile_id)
                    .values(updated_at=func.now(), **values)
                )
        _note(connection, change, actor)
        changes.append(change)
    return changes


def apply_endpoints(
    connection: Connection, wanted: Sequence[EndpointConfig], actor: str
) -> list[Change]:
    """Create or update endpoints; their profiles and targets must exist."""
    ids: dict[str, UUID] = {
        row.name: row.id for row in connection.execute(select(profiles.c.id, profiles.c.name))
    }
    changes: list[Change] = []
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        stored = stored_endpoints(connection, [endpoint.location for endpoint in batch])
        created = []
        for endpoint in batch:
            after = endpoint_settings(endpoint)
            values = _endpoint_values(endpoint, ids)
            if endpoint.location not in stored:
                change = Change("endpoint", endpoint.location, Effect.CREATED)
                created.append({"location": endpoint.location, **values})
            else:
                change = compare("endpoint", endpoint.location, stored[endpoint.location], after)
                if change.effect is Effect.CHANGED:
                    connection.execute(
                        update(endpoints)
                        .where(endpoints.c.location == endpoint.location)
                        .values(updated_at=func.now(), **values)
                    )
            changes.append(change)
        if created:
            connection.execute(insert(endpoints), created)
        for change in changes[start:]:
            _note(connection, change, actor)
    return changes


def stored_endpoints(connection: Connection, locations: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what is configured now of those endpoints that are known, by location."""
    query = (
        select(endpoints, profiles.c.name.label("profile"))
        .select_from(endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id))
        .where(
            endpoints.c.location == any_(literal([one.lower() for one in locations], ARRAY(Text)))
        )
        .with_for_update(of=endpoints)
    )
    return {
        row.location: {
            "address": row.addresses,
            "sni": row.sni,
            "names": row.names,
            "profile": row.profile,
            "target": row.target,
            "server": row.server,
            "also_on": row.also_on,
            "starttls": row.starttls,
            "tags": row.tags,
            "auto_renew": row.auto_renew,
            "criticality": row.criticality,
            "executor": row.executor,
        }
        for row in connection.execute(query)
    }


def compare(kind: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    """Return which fields differ, nested ones as dotted names."""
    flat_before, flat_after = _flat(before), _flat(after)
    fields = tuple(
        FieldChange(field, flat_before.get(field), flat_after.get(field))
        for field in sorted({*flat_before, *flat_after})
        if flat_before.get(field) != flat_after.get(field)
    )
    return Change(kind, name, Effect.CHANGED if fields else Effect.UNCHANGED, fields)


def _as_now(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored profile with what this version says for fields it did not have."""
    try:
        return ProfileConfig.model_validate(settings).model_dump(mode="json")
    except ValidationError:
        return settings


def endpoint_settings(endpoint: EndpointConfig) -> dict[str, Any]:
    """Return what is compared of an endpoint."""
    return endpoint.model_dump(mode="json", exclude={"location"})


def _endpoint_values(endpoint: EndpointConfig, ids: Mapping[str, UUID]) -> dict[str, Any]:
    return {
        "addresses": list(endpoint.address),
        "sni": endpoint.sni,
        "names": list(endpoint.names),
        "profile_id": ids[endpoint.profile] if endpoint.profile else None,
        "target": endpoint.target,
        "server": endpoint.server,
        "also_on": [place.model_dump(mode="json") for place in endpoint.also_on],
        "starttls": endpoint.starttls,
        "tags": list(endpoint.tags),
        "auto_renew": endpoint.auto_renew,
        "criticality": endpoint.criticality,
        "executor": endpoint.executor,
    }


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif value not in (None, [], (), ""):
            found[name] = value
    return found


def _note(connection: Connection, change: Change, actor: str) -> None:
    if change.effect is Effect.UNCHANGED:
        return
    audit.note(
        connection,
        actor,
        f"{change.kind}.{change.effect}",
        change.name,
        {"fields": [field.field for field in change.fields]} if change.fields else None,
    )
