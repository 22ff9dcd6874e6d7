"""Settings of a Postfix target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from certrail.servers.settings import Address, ServerSettings


class PostfixSettings(ServerSettings):
    """How to find and change the certificate of a Postfix."""

    kind: Literal["postfix"] = "postfix"
    config: str = Field("/etc/postfix", description="Folder of main.cf and master.cf.")
    site: str = Field("", description="Name of the mail server; also names its folder of versions.")
    listen: Address = Field(
        "",
        description="Service of master.cf (`submission`, `465`) whose own certificate is meant; "
        "default: the one of main.cf.",
    )
    binary: str = Field("postfix", description="The program, by name or path.")
    enable_tls: bool = Field(
        default=False, description="Switch on STARTTLS where the server has no certificate."
    )
