"""Settings of a lighttpd target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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

    unwritable = (r"[\"\\\n]", "quotes, backslashes or line ends")
