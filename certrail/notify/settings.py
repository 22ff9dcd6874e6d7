"""The account-wide rules of notifications, as people write them.

They stand under ``notifications:`` at the top of a configuration file; what
a profile says under the same name adds to them or replaces them.
"""

from __future__ import annotations

from datetime import time
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from certrail.configuration.fields import Slug
from certrail.configuration.profile import check_address, check_events
from certrail.events import DEFAULT_SLUGS
from certrail.maintenance import MaintenanceWindow
from certrail.notify.sandbox import check_template


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Digest(_Strict):
    """What is collected and told once a day."""

    events: tuple[str, ...] = Field(description="Events that can wait for it.")
    at: time = Field(description="When it is sent, by the wall clock of its time zone.")
    timezone: str = Field(default="UTC", description="Time zone, such as Europe/Berlin.")

    @field_validator("events")
    @classmethod
    def _events(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_events(value)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise ValueError(f"unknown time zone {value!r}") from exc
        return value


class Template(_Strict):
    """Words of your own for one event; what is left out stays as it is."""

    subject: str | None = Field(default=None, description="One line.")
    text: str | None = Field(default=None, description="The message without markup.")
    html: str | None = Field(default=None, description="The message with markup.")

    @model_validator(mode="after")
    def _can_be_rendered(self) -> Self:
        for part in ("subject", "text", "html"):
            source = getattr(self, part)
            if source is not None:
                check_template(source, part)
        return self


class NotificationSettings(_Strict):
    """Account-wide rules: who is told of what, and when."""

    email: tuple[str, ...] = Field(default=(), description="Addresses that are written to.")
    channels: tuple[Slug, ...] = Field(
        default=(), description="Notifier connectors that need no address: webhooks, chats, pagers."
    )
    mail: Slug | None = Field(
        default=None,
        description="Connector that carries e-mail; may be left out while there is one only.",
    )
    events: tuple[str, ...] = Field(
        default=DEFAULT_SLUGS,
        description="Events that are worth a message: names, `*` patterns, or `all`.",
    )
    expiring_days: tuple[int, ...] = Field(
        default=(14, 7, 3, 1),
        description="How many days before its end a certificate is told to expire.",
    )
    quiet_hours: MaintenanceWindow | None = Field(
        default=None,
        description="When only what is critical is told; the rest comes as one message after it.",
    )
    digest: Digest | None = Field(
        default=None, description="What is collected and told once a day."
    )
    templates: dict[str, Template] = Field(
        default_factory=dict, description="Words of your own, by event; `all` for the others."
    )

    @field_validator("events")
    @classmethod
    def _events(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_events(value)

    @field_validator("email")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_address(value)

    @field_validator("templates")
    @classmethod
    def _of_known_events(cls, value: dict[str, Template]) -> dict[str, Template]:
        check_events(tuple(value))
        return value

    @field_validator("expiring_days")
    @classmethod
    def _sensible_days(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 < days <= 365 for days in value):
            raise ValueError("days are whole numbers from 1 to 365")
        return tuple(sorted(set(value), reverse=True))
