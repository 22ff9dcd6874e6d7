"""A profile: CA, key, validation, renewal, approval and notification policy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from certrail.configuration.fields import ProfileName, Slug, Strict, split_address
from certrail.errors import InvalidRequest
from certrail.events import check_pattern
from certrail.maintenance import Blackout, Calendar, MaintenanceWindow
from certrail.model import KeyAlgorithm, Workflow


class Validation(Strict):
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


class Key(Strict):
    """Which key is made."""

    algorithm: KeyAlgorithm = Field(
        default=KeyAlgorithm.ECDSA_P256, description="Kind and size of the private key."
    )
    location: Literal["store", "host"] = Field(
        default="store",
        description="store: made by Certrail and kept sealed. host: made by openssl on the machine "
        "that serves it, which it never leaves.",
    )


class Renew(Strict):
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


class Approval(Strict):
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


class Notifications(Strict):
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


class ProfileConfig(Strict):
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
    enable_tls: bool = Field(
        default=False,
        description="Give sites without TLS what they need for it, where the kind of server has "
        "the setting `enable_tls`; what the `server` of an endpoint says counts more.",
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
