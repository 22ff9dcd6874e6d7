"""Settings of a Dovecot target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from certrail.servers.settings import Address, ServerSettings


class DovecotSettings(ServerSettings):
    """How to find and change the certificate of a Dovecot."""

    kind: Literal["dovecot"] = "dovecot"
    config: str = Field("/etc/dovecot/dovecot.conf", description="Path of dovecot.conf.")
    site: str = Field(
        "", description="Name of the mail server, where it has one of its own that of `local_name`."
    )
    listen: Address = Field(
        "",
        description="Protocol (`imap`, `pop3`, `submission`, …) whose own certificate is meant; "
        "default: the one for all.",
    )
    binary: str = Field("doveadm", description="The program doveadm, by name or path.")
    enable_tls: bool = Field(
        default=False, description="Switch on TLS where the server has no certificate."
    )
