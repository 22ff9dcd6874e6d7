"""Settings of a Tomcat target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from certrail.servers.settings import ServerSettings


class TomcatSettings(ServerSettings):
    """How to find and change one certificate of a Tomcat."""

    kind: Literal["tomcat"] = "tomcat"
    config: str = Field(
        "",
        description="Path of server.xml; default: the only one in the usual places of Debian, Red "
        "Hat and /opt/tomcat.",
    )
    base: str = Field(
        "",
        description="CATALINA_BASE, to which relative paths belong; default: by the place of "
        "server.xml.",
    )
    manager: str = Field(
        "",
        description="Address of the manager as the machine itself reaches it, like "
        "`http://127.0.0.1:8080/manager`; default: none, so that Tomcat is restarted.",
    )
    manager_netrc: str = Field(
        "",
        description="File on the machine, in the form of curl's netrc, with the login of an "
        "account of role manager-script.",
    )
    restart: Literal["systemd", "never"] | tuple[str, ...] = Field(
        "systemd",
        description="Where the manager cannot do it. systemd: `systemctl restart` of tomcat10, "
        "tomcat9 or tomcat, a command as a list of words, or never: the installation is refused.",
    )
    reload_timeout: float = Field(
        120.0, gt=0, le=600, description="Seconds a reload or restart may take."
    )
    key_owner: str = Field(
        "", description="Owner of files with a key; default: the account that Tomcat runs as."
    )

    paths = ("config", "base", "directory", "pid_file", "manager_netrc")
    unwritable = (r"[<>&\"'$\n]", "quotes, <, >, &, $ or line ends")

    @field_validator("manager")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not re.match(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._/-]*)?\Z", value):
            raise ValueError("must be an http or https address")
        return value.rstrip("/")
