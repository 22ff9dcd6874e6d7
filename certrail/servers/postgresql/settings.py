"""Settings of a PostgreSQL target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from certrail.servers.settings import ServerSettings


class PostgresqlSettings(ServerSettings):
    """How to find and change the certificate of a PostgreSQL."""

    kind: Literal["postgresql"] = "postgresql"
    config: str = Field(
        "",
        description="Path of postgresql.conf; default: the only one in the usual places of Debian "
        "and Red Hat.",
    )
    site: str = Field(
        "", description="Name of the database server; also names its folder of versions."
    )
    binary: str = Field(
        "", description="The program postgres, by path; default: the one that runs."
    )
    reload: Literal["signal", "systemd"] | tuple[str, ...] = Field(
        "signal",
        description="signal: SIGHUP to the postmaster, as `pg_ctl reload` sends it, systemd: "
        "`systemctl reload postgresql`, or a command as a list of words.",
    )
    key_owner: str = Field(
        "", description="Owner of files with a key; default: the owner of the data directory."
    )
    enable_tls: bool = Field(default=False, description="Switch on `ssl` where it is off.")

    unwritable = (r"['\\\n]", "quotes, backslashes or line ends")
