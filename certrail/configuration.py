"""The configuration file: connectors, profiles and endpoints as people write them.

Unknown fields are refused everywhere. What is stored is what these models
dump; what a request works with is a :class:`Plan`, taken when it is made.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from certrail.errors import InvalidRequest
from certrail.events import check_pattern
from certrail.maintenance import Blackout, Calendar, MaintenanceWindow
from certrail.model import KeyAlgorithm, Workflow
from certrail.names import Name, parse_names

Criticality = Literal["critical", "high", "normal", "low"]
StartTls = Literal["smtp", "imap", "pop3", "ldap", "postgres", "mysql"]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Connector names become Prefect block names, which allow these characters only."""
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_HOST_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})$")
_OBJECT = re.compile(r"^[a-z0-9][a-z0-9-]*/\S+$")
_LAST_PORT = 65535


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _all_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    for address in value:
        split_address(address)
    return value


Addresses = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_many), AfterValidator(_all_addresses)
]
"""``host:port``, one or several."""


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
    location: Literal["store", "host"] = Field(
        default="store",
        description="store: made by Certrail and kept sealed. host: made by openssl on the machine "
        "that serves it, which it never leaves.",
    )


class Renew(_Strict):
    """When a certificate is renewed."""

    at_lifetime_fraction: float = Field(
        default=0.67, gt=0, lt=1, description="Renew when this part of the lifetime has passed."
    )
    spread: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Renewals are spread over this part of the lifetime before that moment.",
    )
    use_ari: bool = Field(
        default=True, description="Let the CA's renewal information decide, where it has any."
    )
    auto: bool = Field(default=True, description="Renew without being asked.")
    enroll: bool = Field(
        default=False,
        description="Obtain a certificate without being asked where there is none of ours.",
    )
    deadline_fraction: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="The hard deadline: this part of the lifetime has passed.",
    )
    deadline_overrides_window: bool = Field(
        default=False,
        description="Install at the hard deadline even if no maintenance window is open by then.",
    )
    max_per_hour: int = Field(
        default=300,
        ge=1,
        description="Renewals that begin in an hour; of all profiles of a CA the least counts.",
    )
    distrusted_issuers: tuple[str, ...] = Field(
        default=(), description="Issuers (as shown in the inventory) that are to be replaced now."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.deadline_fraction <= self.at_lifetime_fraction:
            raise ValueError("`deadline_fraction` must be more than `at_lifetime_fraction`")
        if self.spread >= self.at_lifetime_fraction:
            raise ValueError("`spread` must be less than `at_lifetime_fraction`")
        return self


class Approval(_Strict):
    """Who has to agree before a certificate is issued."""

    by: Literal["anyone", "second-person"] = Field(
        default="second-person",
        description="Whether whoever asked for the certificate may approve it too.",
    )
    approvers: tuple[str, ...] = Field(
        default=(), description="Accounts that may approve, as in the audit trail; all if empty."
    )
    expires_hours: float = Field(
        default=72, gt=0, le=24 * 90, description="How long an approval is waited for."
    )


class Notifications(_Strict):
    """Who is told of what, beside or instead of what the account-wide rules say."""

    mode: Literal["add", "replace"] = Field(
        default="add",
        description="Whether these rules come on top of the account-wide ones or replace them.",
    )
    email: tuple[str, ...] = Field(default=(), description="Addresses that are written to.")
    channels: tuple[Slug, ...] = Field(
        default=(), description="Notifier connectors that need no address: webhooks, chats, pagers."
    )
    events: tuple[str, ...] = Field(
        default=(),
        description="Events that are worth a message: names, `*` patterns, or `all`; empty: those "
        "of the account-wide rules.",
    )

    @field_validator("events")
    @classmethod
    def _events(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_events(value)

    @field_validator("email")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_address(value)


def check_events(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return *value* if each of it means an event.

    Raises:
        ValueError: one of it means none.
    """
    for pattern in value:
        try:
            check_pattern(pattern)
        except InvalidRequest as exc:
            raise ValueError(f"{exc}. {exc.remedy}") from exc
    return value


def check_address(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return *value* if each of it can be an e-mail address.

    Raises:
        ValueError: one of it cannot.
    """
    for address in value:
        local, at, host = address.rpartition("@")
        if not (local and at and host) or not address.isprintable() or " " in address:
            raise ValueError(f"{address!r} is no e-mail address")
    return value


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
    client: Literal["web-pki", "rfc5280", "openssl"] | None = Field(
        default=None,
        description="How strictly `Testing installation` judges: `web-pki` like browsers judge "
        "public certificates (default without `trust`), `rfc5280` (default with it), `openssl` "
        "for a private CA whose certificates break rules that its clients do not mind.",
    )
    trust_pem: str | None = Field(
        default=None, description="The certificates themselves; `trust` is read into it."
    )
    renew: Renew = Field(default=Renew(), description="When a certificate is renewed.")
    maintenance_window: tuple[MaintenanceWindow, ...] = Field(
        default=(),
        description="When certificates may be installed, one window or a list; at any time if "
        "omitted.",
    )
    blackout: Blackout | None = Field(
        default=None, description="Days on which nothing is installed, whatever the windows say."
    )
    approval: Approval | None = Field(
        default=None,
        description="Who has to agree before a certificate is issued; nobody if omitted.",
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

    @field_validator("maintenance_window", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if value is None:
            return ()
        return value if isinstance(value, list | tuple) else (value,)

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.key.location == "host" and self.workflow is Workflow.DELIVERY:
            raise ValueError("`key.location: host` is for servers; what is delivered has its key")
        return self

    @property
    def calendar(self) -> Calendar:
        """When certificates may be installed."""
        return Calendar(windows=self.maintenance_window, blackout=self.blackout)


class FurtherPlace(_Strict):
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


class EndpointConfig(_Strict):
    """A place that serves or holds a certificate."""

    location: str = Field(description="Unique name: host:port, or connector/object.")
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

    @field_validator("criticality", mode="before")
    @classmethod
    def _unsaid(cls, value: object) -> object:
        return value or "normal"

    @field_validator("location")
    @classmethod
    def _location(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("has characters that cannot be shown")
        if _OBJECT.match(value):
            return value
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


class ConnectorRef(_Strict):
    """Where a connector's settings are: block type and name."""

    name: str
    slug: str

    @property
    def reference(self) -> str:
        """What Prefect loads the block by."""
        return f"{self.slug}/{self.name}"


class Place(_Strict):
    """Where else the certificate of a plan is installed, and where that is tested."""

    target: ConnectorRef
    server: dict[str, Any]
    addresses: tuple[str, ...]


class Hold(_Strict):
    """When a certificate that was obtained may be installed.

    Attributes:
        calendar: the windows.
        deadline: moment from which the windows no longer count, None if they always do.
    """

    calendar: Calendar
    deadline: datetime | None = None


class Plan(_Strict):
    """All that a request needs to know, frozen when it is made. No secret is in it."""

    location: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    sni: str | None
    starttls: StartTls | None = None
    server: dict[str, Any] = Field(default_factory=dict)
    target: ConnectorRef | None = None
    also_on: tuple[Place, ...] = ()
    workflow: Workflow
    profile: str
    ca: ConnectorRef
    ca_profile: str = ""
    validation: Validation | None = None
    dns: ConnectorRef | None = None
    key_algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    key_location: Literal["store", "host"] = "store"
    trust_pem: str | None = None
    client: Literal["web-pki", "rfc5280", "openssl"] | None = None
    replaces: bool = True
    issue_timeout_seconds: int = 600
    install_timeout_seconds: int = 30
    executor: str | None = None
    approval: Approval | None = None
    hold: Hold | None = None
    takes_back: dict[str, Any] | None = Field(
        default=None, description="What was staged, where the target itself takes it back."
    )

    def as_ordered(self, ordered: Plan) -> Plan:
        """Return this plan, but for what was ordered already with another.

        An order stands for its names, at its CA, and a CSR for its key;
        changing them would need another order.
        """
        return self.model_copy(
            update={
                "names": ordered.names,
                "key_algorithm": ordered.key_algorithm,
                "key_location": ordered.key_location,
                "ca": ordered.ca,
                "ca_profile": ordered.ca_profile,
                "workflow": ordered.workflow,
                "takes_back": ordered.takes_back,
            }
        )

    def at(self, number: int) -> Plan:
        """Return the plan of one place alone: 0 is the endpoint's own, then those of `also_on`."""
        if number == 0:
            return self
        place = self.also_on[number - 1]
        return self.model_copy(
            update={
                "target": place.target,
                "server": place.server,
                "addresses": place.addresses,
            }
        )

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


def complaints(error: ValidationError) -> str:
    """Return what is wrong with settings, field by field; never a value, it may be secret."""
    told = []
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in one["loc"] if not str(part).startswith("function-"))
        said = one["msg"].removeprefix("Value error, ")
        told.append(f"{where}: {said}" if where else said)
    return "; ".join(told)


def split_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it has another form, or the port is out of range.
    """
    match = _HOST_PORT.match(text)
    if not match or not 0 < int(match[2]) <= _LAST_PORT:
        raise ValueError(f"{text!r} is not host:port")
    return match[1].strip("[]"), int(match[2])
