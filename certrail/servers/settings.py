"""What the settings of every kind of server have in common."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from certrail.errors import InvalidRequest
from certrail.servers.key_file import KeyFile

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?\Z|[0-9]+\Z")


def _octal(value: object) -> object:
    # YAML reads a bare 0640 as octal already; "0640" in quotes comes as text.
    if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]{3,4}", value):
        return int(value.removeprefix("0o"), 8)
    return value


def _text(value: object) -> object:
    # `listen: 443` in YAML is a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Octal = Annotated[int, BeforeValidator(_octal)]
Address = Annotated[str, BeforeValidator(_text)]
Command = tuple[str, ...]


class ServerSettings(BaseModel):
    """How one server of a host is found and changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: ClassVar[tuple[str, ...]] = ("config", "directory", "pid_file")
    """Fields that hold an absolute path, or nothing."""
    written: ClassVar[tuple[str, ...]] = ("config", "directory")
    """Those that are written into the server's configuration, or their like."""
    unwritable: ClassVar[tuple[str, str]] = ("", "")
    """What the configuration would read otherwise than it stands there: a pattern, and words."""

    site: str = Field("", description="Name that clients ask for.")
    listen: Address = Field("", description="Address or port, where several places have the name.")
    directory: str = Field(
        "", description="Where certificates are kept; default: certrail beside the configuration."
    )
    key_mode: Octal = Field(0o600, description="Permission bits of files with a key, octal.")
    key_owner: str = Field("", description="Owner of these files; default: the account used.")
    key_group: str = Field("", description="Group of these files; default: the account's.")
    keep_versions: int = Field(3, ge=1, le=100, description="Old versions kept for going back.")
    reload_timeout: float = Field(30.0, gt=0, le=600, description="Seconds a reload may take.")
    test_timeout: float = Field(
        60.0, gt=0, le=600, description="Seconds the server may take to test its configuration."
    )

    @classmethod
    def parse(cls, server: Mapping[str, object]) -> Self:
        """Read the ``server`` mapping of an endpoint.

        Raises:
            InvalidRequest: an unknown field or a bad value; says which.
        """
        try:
            return cls.model_validate(dict(server))
        except ValidationError as exc:
            raise InvalidRequest(
                f"server settings of {cls.model_fields['kind'].default}: {_words(exc)}",
                remedy=f"Known fields: {', '.join(cls.model_fields)}.",
            ) from exc

    @field_validator("*")
    @classmethod
    def _is_usable(cls, value: Any, info: Any) -> Any:
        if info.field_name not in cls.paths or not value:
            return value
        if not value.startswith("/"):
            raise ValueError("must be an absolute path")
        if "\0" in value or "$" in value:
            raise ValueError("must not contain NUL or $")
        pattern, words = cls.unwritable
        if pattern and info.field_name in cls.written and re.search(pattern, value):
            raise ValueError(f"must not contain {words}")
        return posixpath.normpath(value)

    @field_validator("binary", "service", check_fields=False)
    @classmethod
    def _is_no_option(cls, value: str) -> str:
        if value.startswith("-"):
            raise ValueError("must be a name")
        return value

    @field_validator("key_mode")
    @classmethod
    def _is_private(cls, value: int) -> int:
        if value & ~0o770 or not value & 0o400:
            raise ValueError("must let the owner read and keep everybody else out, like 0600, 0640")
        return value

    @field_validator("key_owner", "key_group")
    @classmethod
    def _is_account(cls, value: str) -> str:
        if value and not _ACCOUNT.match(value):
            raise ValueError("must be the name of an account or group")
        return value

    @property
    def key_file(self) -> KeyFile:
        """How files with a key are written."""
        return KeyFile(self.key_mode, self.key_owner, self.key_group)

    @property
    def longest_reload(self) -> timedelta:
        """``reload_timeout`` as a duration."""
        return timedelta(seconds=self.reload_timeout)

    @property
    def longest_test(self) -> timedelta:
        """``test_timeout`` as a duration."""
        return timedelta(seconds=self.test_timeout)


def _words(error: ValidationError) -> str:
    parts = []
    for one in error.errors(include_url=False, include_input=False):
        field = str(one["loc"][0]) if one["loc"] else ""
        what = "unknown field" if one["type"] == "extra_forbidden" else one["msg"]
        parts.append(f"{field}: {what.removeprefix('Value error, ')}")
    return "; ".join(dict.fromkeys(parts))
