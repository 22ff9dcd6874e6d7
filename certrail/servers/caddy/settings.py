"""Settings of a Caddy target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from certrail.servers.settings import ServerSettings


class CaddySettings(ServerSettings):
    """How to find and change the certificate of one site of a Caddyfile."""

    kind: Literal["caddy"] = "caddy"
    config: str = Field("/etc/caddy/Caddyfile", description="Path of the Caddyfile.")
    binary: str = Field("caddy", description="The program, by name or path.")
    reload: Literal["caddy", "systemd"] | tuple[str, ...] = Field(
        "caddy",
        description="caddy: `caddy reload`, systemd: `systemctl reload caddy`, or a command as a "
        "list of words.",
    )
    key_owner: str = Field(
        "", description="Owner of files with a key; default: the account that Caddy runs as."
    )
    enable_tls: bool = Field(
        default=False,
        description="Give a certificate to a site for which Caddy gets one itself.",
    )

    unwritable = (r"[\s\"`{}#\\]", "blanks, quotes, braces, backslashes or #")
