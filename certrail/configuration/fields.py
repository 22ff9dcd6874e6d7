"""What the fields of the configuration share: names, addresses, how a mistake is told."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
)

StartTls = Literal["smtp", "imap", "pop3", "ldap", "postgres", "mysql"]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Connector names become Prefect block names, which allow these characters only."""
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_HOST_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})$")
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


class Strict(BaseModel):
    """What is stored as it was written: it refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
