"""Settings of an nginx target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from certrail.errors import InvalidRequest
from certrail.servers.key_file import KeyFile
from certrail.servers.nginx.listen import parse_wanted

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?\Z|[0-9]+\Z")


def _octal(value: object) -> object:
    # YAML reads a bare 0640 as octal already; "0640" in quotes comes as text.
    if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]{3,4}", value):
        return int(value.removeprefix("0o"), 8)
    return value


def _text(value: object) -> object:
    # `listen: 443` in YAML is a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class NginxSettings(BaseModel):
    """How to find and change one server of an nginx."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["nginx"] = "nginx"
    config: str = Field("/etc/nginx/nginx.conf", description="Path of nginx.conf.")
    site: str = Field("", description="Server name, as in server_name.")
    listen: Annotated[str, BeforeValidator(_text)] = Field(
        "", description="Address or port, where several server blocks have the name."
    )
    prefix: str = Field("", description="nginx's -p, where it runs under another prefix.")
    binary: str = Field("nginx", description="The program, by name or path.")
    reload: Literal["signal", "systemd"] | tuple[str, ...] = Field(
        "signal",
        description="signal: `nginx -s reload`, systemd: `systemctl reload nginx`, "
        "or a command as a list of words.",
    )
    pid_file: str = Field("", description="Where the configuration does not say it.")
    directory: str = Field(
        "", description="Where certificates are kept; default: certrail beside nginx.conf."
    )
    enable_tls: bool = Field(
        default=False, description="Add a TLS listener to a server block without one."
    )
    key_types: Literal["replace", "add"] = Field(
        "replace",
        description="add: put a certificate with a new kind of key beside the present one.",
    )
    key_mode: Annotated[int, BeforeValidator(_octal)] = Field(
        0o600, description="Permission bits of key files, octal."
    )
    key_owner: str = Field("", description="Owner of key files; default: the account used.")
    key_group: str = Field("", description="Group of key files; default: the account's.")
    keep_versions: int = Field(3, ge=1, le=100, description="Old versions kept for restoring.")
    reload_timeout: float = Field(
        30.0, gt=0, le=600, description="Seconds a reload may take until new workers serve."
    )
    test_timeout: float = Field(60.0, gt=0, le=600, description="Seconds `nginx -t` may take.")

    @classmethod
    def parse(cls, server: Mapping[str, object]) -> Self:
        """Read the mapping.

        Raises:
            InvalidRequest: an unknown field or a bad value; says which.
        """
        try:
            return cls.model_validate(dict(server))
        except ValidationError as exc:
            raise InvalidRequest(
                f"server settings of nginx: {_words(exc)}",
                remedy=f"Known fields: {', '.join(cls.model_fields)}.",
            ) from exc

    @field_validator("config", "prefix", "pid_file", "directory")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError("must be an absolute path")
        if "\0" in value or "$" in value:
            raise ValueError("must not contain NUL or $")
        return posixpath.normpath(value) if value else value

    @field_validator("config", "binary")
    @classmethod
    def _is_given(cls, value: str) -> str:
        if not value or value.startswith("-"):
            raise ValueError("must name a file")
        return value

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value:
            try:
                parse_wanted(value)
            except InvalidRequest as exc:
                raise ValueError(str(exc)) from exc
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
    def base(self) -> str:
        """Directory that holds the certificates of all sites."""
        return self.directory or posixpath.join(posixpath.dirname(self.config), "certrail")

    @property
    def key_file(self) -> KeyFile:
        """How key files are written."""
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
