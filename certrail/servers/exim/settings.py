"""Settings of an Exim target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from certrail.servers.settings import ServerSettings


class EximSettings(ServerSettings):
    """How to find and change the certificate of an Exim."""

    kind: Literal["exim"] = "exim"
    config: str = Field(
        "",
        description="Path of the configuration; default: what Exim says, on Debian the files "
        "from which update-exim4.conf makes it.",
    )
    site: str = Field("", description="Name of the mail server; also names its folder of versions.")
    binary: str = Field(
        "", description="The program, by name or path; default: exim4 (Debian) or exim."
    )
    reload: Literal["signal", "systemd"] | tuple[str, ...] = Field(
        "signal",
        description="signal: SIGHUP to the daemon, systemd: `systemctl reload` of exim4 or exim, "
        "or a command as a list of words.",
    )
    key_owner: str = Field(
        "", description="Owner of files with a key; default: the account that Exim runs as."
    )
    enable_tls: bool = Field(
        default=False, description="Switch on STARTTLS where the server has no certificate."
    )

    unwritable = (r"[\s\"'\\:$<]", "blanks, quotes, backslashes, colons, < or $")
