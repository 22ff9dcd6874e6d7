"""An endpoint: a place that serves or holds a certificate, and the further ones that share it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from certrail.configuration.fields import Addresses, ProfileName, StartTls, Strict, split_address
from certrail.errors import InvalidRequest
from certrail.names import Name, parse_names

Criticality = Literal["critical", "high", "normal", "low"]
_OBJECT = re.compile(r"^[a-z0-9][a-z0-9-]*/\S+$")


class FurtherPlace(Strict):
    """Another machine or appliance that serves the same certificate."""

    target: str = Field(description="Connector of the machine or appliance.")
    address: Addresses = Field(
        min_length=1,
        description="Where to connect for testing what it serves, past any load balancer: "
        "host:port or a list.",
    )
    server: dict[str, Any] = Field(
        default_factory=dict,
        description="As of the endpoint; default: what the endpoint says.",
    )

    @field_validator("server")
    @classmethod
    def _no_plain_secret(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_server(value)


def check_server(value: dict[str, Any]) -> dict[str, Any]:
    """Return *value* unless there is a plain secret in it.

    Raises:
        ValueError: there is one.
    """
    password = value.get("password")
    if password and not str(password).startswith(("env:", "file:", "sealed:")):
        # Endpoints are shown to everybody and stored as they are.
        raise ValueError("`password` must be a reference: env:NAME, file:/path or sealed:…")
    return value


KINDS_THAT_ENABLE_TLS = frozenset(
    ("apache", "caddy", "dovecot", "exim", "mariadb", "nginx", "postfix", "postgresql")
)
"""Kinds of server that have the setting ``enable_tls``."""


def with_tls(server: Mapping[str, Any], *, enabled: bool) -> dict[str, Any]:
    """Return *server* as a profile that enables TLS has it; what *server* says counts more."""
    if enabled and server.get("kind") in KINDS_THAT_ENABLE_TLS:
        return {"enable_tls": True, **server}
    return dict(server)


def with_object(server: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Return *server* with the object of *location* as its site, where only its case says which.

    A location is kept in lower case; vaults and appliances tell `MyCert` from `mycert`.
    """
    object_ = location.partition("/")[2]
    if object_ == object_.lower() or server.get("site") or server.get("kind"):
        return dict(server)
    return {**server, "site": object_}


class EndpointConfig(Strict):
    """A place that serves or holds a certificate."""

    location: str = Field(
        description="Unique name: host:port, or connector/object. It is kept in lower case; an "
        "object with capital letters becomes the server's `site` as it is written, unless that "
        "is given."
    )
    address: Addresses = Field(
        default=(),
        description="Where to connect for testing, one host:port or a list; default: the location.",
    )
    sni: str | None = Field(
        default=None, description="Server name to ask for; default: the host of the location."
    )
    names: tuple[str, ...] = Field(
        default=(), description="Names of the certificate: DNS names, wildcards, IP addresses."
    )
    profile: str | None = Field(default=None, description="The profile that applies.")
    target: str | None = Field(
        default=None, description="Connector of the machine, appliance or store."
    )
    server: dict[str, Any] = Field(
        default_factory=dict,
        description="On a machine: `kind` of the server program and its settings.",
    )
    also_on: tuple[FurtherPlace, ...] = Field(
        default=(),
        description="Further machines that serve the same certificate: ordered once, installed "
        "on all.",
    )
    starttls: StartTls | None = Field(
        default=None, description="Protocol in which TLS is asked for after connecting."
    )
    tags: tuple[str, ...] = Field(default=(), description="Words to filter by.")
    auto_renew: bool | None = Field(
        default=None, description="Renew without being asked; default: as the profile says."
    )
    criticality: Criticality = Field(
        default="normal", description="Who goes first when a CA has all certificates replaced."
    )
    executor: ProfileName | None = Field(
        default=None,
        description="Name of the agent or sensor that reaches it; default: the target's, or any.",
    )

    @model_validator(mode="before")
    @classmethod
    def _object_keeps_its_case(cls, data: Any) -> Any:
        location = data.get("location") if isinstance(data, Mapping) else None
        if not isinstance(location, str) or not _OBJECT.match(location):
            return data
        found = {**data}
        if isinstance(server := data.get("server", {}), Mapping) and (
            named := with_object(server, location)
        ):
            found["server"] = named
        if isinstance(further := data.get("also_on"), list | tuple):
            found["also_on"] = [_of_same_object(place, location) for place in further]
        return found

    @field_validator("criticality", mode="before")
    @classmethod
    def _unsaid(cls, value: object) -> object:
        return value or "normal"

    @field_validator("location")
    @classmethod
    def _location(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("has characters that cannot be shown")
        if not _OBJECT.match(value):
            split_address(value)
        return value.lower()

    @field_validator("server")
    @classmethod
    def _no_plain_secret(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_server(value)

    @field_validator("names")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(name.text for name in parse_names(value)) if value else ()
        except InvalidRequest as exc:
            raise ValueError(str(exc)) from exc

    @field_validator("sni")
    @classmethod
    def _sni(cls, value: str | None) -> str | None:
        try:
            return Name.parse(value).text if value else value
        except InvalidRequest as exc:
            raise ValueError(str(exc)) from exc


def _of_same_object(place: Any, location: str) -> Any:
    # One that says nothing of its server has that of the endpoint.
    if isinstance(place, Mapping) and isinstance(server := place.get("server"), Mapping) and server:
        return {**place, "server": with_object(server, location)}
    return place
