"""Settings of a server known by its files and commands only."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from certrail.errors import InvalidRequest
from certrail.servers.key_file import KeyFile


class CommandSettings(BaseModel):
    """Where the files are and which commands make the server use them.

    The server's own configuration has to name ``<directory>/<site>/live/fullchain.pem``
    and ``privkey.pem`` (or ``combined.pem``) once; Certrail never edits it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["command"] = "command"
    site: str = Field("", description="Name of the place; also the name of its folder.")
    listen: str = Field("", description="Tells two places of one name apart.")
    directory: str = Field("/etc/certrail", description="Where certificates are kept.")
    combined: bool = Field(False, description="One file with chain and key, as HAProxy wants it.")
    test: tuple[str, ...] = Field(
        (), description="Command, as a list of words, that accepts or refuses the configuration."
    )
    reload: tuple[str, ...] = Field(
        (),
        description="Command, as a list of words, that makes the server read its files; empty "
        "for a server that watches them.",
    )
    timeout: float = Field(60.0, gt=0, le=600, description="Seconds a command may take.")
    key_mode: int = Field(0o600, description="Permission bits of files with a key.")
    key_owner: str = Field("", description="Owner of these files; default: the account used.")
    key_group: str = Field("", description="Group of these files; default: the account's.")
    keep_versions: int = Field(3, ge=1, le=100, description="Old versions kept for restoring.")

    @classmethod
    def parse(cls, server: Mapping[str, object]) -> Self:
        """Read the ``server`` mapping of an endpoint.

        Raises:
            InvalidRequest: an unknown field or a bad value; says which.
        """
        try:
            return cls.model_validate(dict(server))
        except ValidationError as exc:
            what = "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
                for one in exc.errors(include_url=False, include_input=False)
            )
            raise InvalidRequest(
                f"server settings of command: {what}",
                remedy=f"Known fields: {', '.join(cls.model_fields)}.",
            ) from exc

    @field_validator("directory")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if not value.startswith("/") or posixpath.normpath(value) != value or value == "/":
            raise ValueError("must be an absolute path without .. and without a trailing slash")
        return value

    @field_validator("key_mode")
    @classmethod
    def _is_closed(cls, value: int) -> int:
        if value & ~0o660 or value & 0o400 == 0:
            raise ValueError("must let the owner read, the group at most read and write")
        return value

    @property
    def key_file(self) -> KeyFile:
        """How files with a key are written."""
        return KeyFile(self.key_mode, self.key_owner, self.key_group)
