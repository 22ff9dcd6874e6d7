"""Settings of a lighttpd target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from certrail.servers.settings import ServerSettings


class LighttpdSettings(ServerSettings):
    """How to find and change one certificate of a lighttpd."""

    kind: Literal["lighttpd"] = "lighttpd"
    config: str = Field("/etc/lighttpd/lighttpd.conf", description="Path of lighttpd.conf.")
    binary: str = Field("lighttpd", description="The program, by name or path.")
    reload: Literal["systemd", "signal"] | tuple[str, ...] = Field(
        "systemd",
        description="systemd: `systemctl restart lighttpd`, signal: SIGUSR1, after which lighttpd "
        "reads keys with the rights of its own account, or a command as a list of words.",
    )

    @field_validator("config", "directory")
    @classmethod
    def _is_quotable(cls, value: Any) -> Any:
        if re.search(r"[\"\\\n]", value):
            raise ValueError("must not contain quotes, backslashes or line ends")
        return value
