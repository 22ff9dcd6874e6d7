"""Settings of an nginx target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

import posixpath
from typing import Literal

from pydantic import Field, field_validator

from certrail.errors import InvalidRequest
from certrail.servers.nginx.listen import parse_wanted
from certrail.servers.settings import Address, ServerSettings


class NginxSettings(ServerSettings):
    """How to find and change one server of an nginx."""

    paths = ("config", "prefix", "pid_file", "directory")

    kind: Literal["nginx"] = "nginx"
    config: str = Field("/etc/nginx/nginx.conf", description="Path of nginx.conf.")
    site: str = Field("", description="Server name, as in server_name.")
    listen: Address = Field(
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
    enable_tls: bool = Field(
        default=False, description="Add a TLS listener to a server block without one."
    )
    key_types: Literal["replace", "add"] = Field(
        "replace",
        description="add: put a certificate with a new kind of key beside the present one.",
    )

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

    @property
    def base(self) -> str:
        """Directory that holds the certificates of all sites."""
        return self.directory or posixpath.join(posixpath.dirname(self.config), "certrail")
