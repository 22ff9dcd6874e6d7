"""Settings of a MariaDB target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from certrail.servers.settings import ServerSettings


class MariadbSettings(ServerSettings):
    """How to find and change the certificate of a MariaDB."""

    kind: Literal["mariadb"] = "mariadb"
    config: str = Field(
        "",
        description="Path of the option file; default: /etc/my.cnf (Red Hat) or /etc/mysql/my.cnf "
        "(Debian).",
    )
    site: str = Field(
        "", description="Name of the database server; also names its folder of versions."
    )
    binary: str = Field("mariadbd", description="The program, by name or path.")
    client: str = Field("mariadb", description="The client program, by name or path.")
    client_config: str = Field(
        "",
        description="Option file with the login of an account that may RELOAD; default: that of "
        "the server, by its socket.",
    )
    restart: Literal["systemd", "never"] | tuple[str, ...] = Field(
        "systemd",
        description="Where the running server does not name our files yet, `FLUSH SSL` is not "
        "enough. systemd: `systemctl restart mariadb`, a command as a list of words, or never: "
        "the installation is refused.",
    )
    key_owner: str = Field(
        "", description="Owner of files with a key; default: the owner of the data directory."
    )
    enable_tls: bool = Field(
        default=False, description="Name a certificate where the server has none."
    )

    paths = ("config", "directory", "pid_file", "client_config")
    unwritable = (r"[\s\"'\\#]", "blanks, quotes, backslashes or #")

    @field_validator("client")
    @classmethod
    def _is_program(cls, value: str) -> str:
        if not value or value.startswith("-"):
            raise ValueError("must be a name")
        return value
