"""Settings of an HAProxy target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from certrail.servers.settings import Address, ServerSettings


class HaproxySettings(ServerSettings):
    """How to find and change one certificate of an HAProxy."""

    kind: Literal["haproxy"] = "haproxy"
    config: str = Field("/etc/haproxy/haproxy.cfg", description="Path of the configuration.")
    site: str = Field("", description="Server name that clients ask for.")
    listen: Address = Field(
        "", description="Address or port of the `bind` line, where several serve the name."
    )
    binary: str = Field("haproxy", description="The program, by name or path.")
    reload: Literal["signal", "systemd"] | tuple[str, ...] = Field(
        "signal",
        description="signal: SIGUSR2 to the master process, systemd: `systemctl reload haproxy`, "
        "or a command as a list of words.",
    )
    pid_file: str = Field("/run/haproxy.pid", description="File with the master's process id.")

    unwritable = (r"[\s\"'\\#$]", "blanks, quotes, backslashes, # or $")
    written = ("config", "directory", "pid_file")

    @field_validator("config", "binary")
    @classmethod
    def _is_given(cls, value: str) -> str:
        if not value or value.startswith("-"):
            raise ValueError("must name a file")
        return value
