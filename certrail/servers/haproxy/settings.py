"""Settings of an HAProxy target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from certrail.errors import InvalidRequest
from certrail.servers.key_file import KeyFile

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?\Z|[0-9]+\Z")


def _text(value: object) -> object:
    # `listen: 443` in YAML is a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class HaproxySettings(BaseModel):
    """How to find and change one certificate of an HAProxy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["haproxy"] = "haproxy"
    config: str = Field("/etc/haproxy/haproxy.cfg", description="Path of the configuration.")
    site: str = Field("", description="Server name that clients ask for.")
    listen: Annotated[str, BeforeValidator(_text)] = Field(
        "", description="Address or port of the `bind` line, where several serve the name."
    )
    binary: str = Field("haproxy", description="The program, by name or path.")
    reload: Literal["signal", "systemd"] | tuple[str, ...] = Field(
        "signal",
        description="signal: SIGUSR2 to the master process, systemd: `systemctl reload haproxy`, "
        "or a command as a list of words.",
    )
    pid_file: str = Field("/run/haproxy.pid", description="File with the master's process id.")
    directory: str = Field(
        "", description="Where certificates are kept; default: certrail beside haproxy.cfg."
    )
    key_owner: str = Field("", description="Owner of the files; default: the account used.")
    key_group: str = Field("", description="Group of the files; default: the account's.")
    keep_versions: int = Field(3, ge=1, le=100, description="Old versions kept for restoring.")
    reload_timeout: float = Field(
        30.0, gt=0, le=600, description="Seconds a reload may take until a new worker serves."
    )
    test_timeout: float = Field(60.0, gt=0, le=600, description="Seconds `haproxy -c` may take.")

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
                f"server settings of haproxy: {_words(exc)}",
                remedy=f"Known fields: {', '.join(cls.model_fields)}.",
            ) from exc

    @field_validator("config", "pid_file", "directory")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError("must be an absolute path")
        # What HAProxy's own quoting would read otherwise than it stands there.
        if re.search(r"[\s\"'\\#$]|\0", value):
            raise ValueError("must not contain blanks, quotes, backslashes, # or $")
        return posixpath.normpath(value) if value else value

    @field_validator("config", "binary")
    @classmethod
    def _is_given(cls, value: str) -> str:
        if not value or value.startswith("-"):
            raise ValueError("must name a file")
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
        """How files with a key are written."""
        return KeyFile(0o600, self.key_owner, self.key_group)

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
