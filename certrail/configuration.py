"""The configuration file: connectors, profiles and endpoints as people write them.

Unknown fields are refused everywhere. What is stored is what these models
dump; what a request works with is a :class:`Plan`, taken when it is made.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from certrail.errors import InvalidRequest
from certrail.model import KeyAlgorithm, Workflow
from certrail.names import Name, parse_names

StartTls = Literal["smtp", "imap", "pop3", "ldap", "postgres"]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Connector names become Prefect block names, which allow these characters only."""
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_HOST_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})$")
_OBJECT = re.compile(r"^[a-z0-9][a-z0-9-]*/\S+$")
_LAST_PORT = 65535
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Validation(_Strict):
    """How control of the names is proven."""

    method: Literal["dns-01", "http-01"] = Field(description="The kind of challenge.")
    dns: str | None = Field(default=None, description="DNS connector, for dns-01.")
    webroot: str | None = Field(default=None, description="Folder on the target, for http-01.")
    listen: str | None = Field(
        default=None, description="address:port of the built-in responder, for http-01."
    )
    timeout_seconds: int = Field(
        default=300, ge=5, le=86400, description="How long the CA may take to decide."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.method == "dns-01" and not self.dns:
            raise ValueError("dns-01 needs `dns`: the name of a DNS connector")
        if self.method == "http-01" and bool(self.webroot) == bool(self.listen):
            raise ValueError("http-01 needs either `webroot` or `listen`")
        if self.method == "dns-01" and (self.webroot or self.listen):
            raise ValueError("`webroot` and `listen` are for http-01")
        if self.webroot and not self.webroot.startswith("/"):
            raise ValueError("`webroot` must be an absolute path")
        if self.listen:
            split_address(self.listen)
        return self


class Key(_Strict):
    """Which key is made."""

    algorithm: KeyAlgorithm = Field(
        default=KeyAlgorithm.ECDSA_P256, description="Kind and size of the private key."
    )


class Renew(_Strict):
    """When a certificate is renewed."""

    at_lifetime_fraction: float = Field(
        default=0.67, gt=0, lt=1, description="Renew when this part of the lifetime has passed."
    )
    use_ari: bool = Field(
        default=True, description="Let the CA's renewal information decide, where it has any."
    )
    auto: bool = Field(default=True, description="Renew without being asked.")


class MaintenanceWindow(_Strict):
    """When a certificate may be installed. A window may pass midnight."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=(), description="Days on which it opens; every day if empty."
    )
    start: time = Field(description="When it opens, by the wall clock of its time zone.")
    end: time = Field(description="When it closes; before `start` means on the next day.")
    timezone: str = Field(default="UTC", description="Time zone, such as Europe/Berlin.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise ValueError(f"unknown time zone {value!r}") from exc
        return value

    def next_opening(self, now: datetime) -> datetime:
        """Return when the window is open next: *now* itself while it is.

        The wall clock of the window's zone counts, so that "02:00" stays
        02:00 when the clocks change. A window without days is open every day.

        Args:
            now: aware datetime.
        """
        zone = ZoneInfo(self.timezone)
        today = now.astimezone(zone).date()
        # A window that passes midnight may have opened yesterday.
        for offset in range(-1, 9):
            day = today + timedelta(days=offset)
            if self.days and _DAYS[day.weekday()] not in self.days:
                continue
            opens = datetime.combine(day, self.start, zone)
            last_day = day if self.start < self.end else day + timedelta(days=1)
            if now < datetime.combine(last_day, self.end, zone):
                return max(now, opens.astimezone(UTC))
        raise AssertionError("a window opens at least once a week")


class Notifications(_Strict):
    """Who is told of what."""

    email: tuple[str, ...] = Field(default=(), description="Addresses that are written to.")
    events: tuple[str, ...] = Field(default=(), description="Events that are worth a message.")


class ProfileConfig(_Strict):
    """A profile: CA, key, validation, renewal and notification policy."""

    name: ProfileName = Field(description="What endpoints call it by.")
    workflow: Workflow = Field(description="Which documented list of steps its requests follow.")
    ca: str = Field(description="Connector of the certificate authority.")
    ca_profile: str = Field(default="", description="The CA's name for a certificate profile.")
    validation: Validation | None = Field(
        default=None, description="How control of the names is proven; omit for private CAs."
    )
    key: Key = Field(default=Key(), description="Which key is made.")
    trust: str | None = Field(
        default=None,
        description="PEM file with what `Testing installation` trusts; default: the system.",
    )
    trust_pem: str | None = Field(
        default=None, description="The certificates themselves; `trust` is read into it."
    )
    renew: Renew = Field(default=Renew(), description="When a certificate is renewed.")
    maintenance_window: MaintenanceWindow | None = Field(
        default=None, description="When certificates may be installed; at any time if omitted."
    )
    notifications: Notifications = Field(
        default=Notifications(), description="Who is told of what."
    )
    issue_timeout_seconds: int = Field(
        default=600, ge=5, le=7 * 86400, description="How long the CA may take once it has the CSR."
    )
    install_timeout_seconds: int = Field(
        default=30, ge=1, le=3600, description="How long the new certificate may take to appear."
    )


class EndpointConfig(_Strict):
    """A place that serves or holds a certificate."""

    location: str = Field(description="Unique name: host:port, or connector/object.")
    address: tuple[str, ...] = Field(
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
    starttls: StartTls | None = Field(
        default=None, description="Protocol in which TLS is asked for after connecting."
    )
    tags: tuple[str, ...] = Field(default=(), description="Words to filter by.")

    @field_validator("address", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("address")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            split_address(address)
        return value

    @field_validator("location")
    @classmethod
    def _location(cls, value: str) -> str:
        if _OBJECT.match(value):
            return value
        split_address(value)
        return value.lower()

    @field_validator("server")
    @classmethod
    def _no_plain_secret(cls, value: dict[str, Any]) -> dict[str, Any]:
        password = value.get("password")
        if password and not str(password).startswith(("env:", "file:", "sealed:")):
            # Endpoints are shown to everybody and stored as they are.
            raise ValueError("`password` must be a reference: env:NAME, file:/path or sealed:…")
        return value

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


class ConnectorRef(_Strict):
    """Where a connector's settings are: block type and name."""

    name: str
    slug: str

    @property
    def reference(self) -> str:
        """What Prefect loads the block by."""
        return f"{self.slug}/{self.name}"


class Plan(_Strict):
    """All that a request needs to know, frozen when it is made. No secret is in it."""

    location: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    sni: str | None
    starttls: StartTls | None = None
    server: dict[str, Any] = Field(default_factory=dict)
    target: ConnectorRef | None = None
    workflow: Workflow
    profile: str
    ca: ConnectorRef
    ca_profile: str = ""
    validation: Validation | None = None
    dns: ConnectorRef | None = None
    key_algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    trust_pem: str | None = None
    replaces: bool = True
    issue_timeout_seconds: int = 600
    install_timeout_seconds: int = 30

    @property
    def host(self) -> str:
        """The host part of the location; for an object, the whole of it."""
        return self.location.rsplit(":", 1)[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of the location; 443 for an object."""
        tail = self.location.rsplit(":", 1)[-1]
        return int(tail) if tail.isdigit() else 443

    @property
    def issue_timeout(self) -> timedelta:
        """How long the CA may take once it has the CSR."""
        return timedelta(seconds=self.issue_timeout_seconds)

    @property
    def install_timeout(self) -> timedelta:
        """How long the new certificate may take to be served after a reload."""
        return timedelta(seconds=self.install_timeout_seconds)


def split_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it has another form, or the port is out of range.
    """
    match = _HOST_PORT.match(text)
    if not match or not 0 < int(match[2]) <= _LAST_PORT:
        raise ValueError(f"{text!r} is not host:port")
    return match[1].strip("[]"), int(match[2])
