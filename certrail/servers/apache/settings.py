"""Settings of an Apache target: the ``server`` mapping of an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from certrail.servers.apache.listen import port_of
from certrail.servers.settings import ServerSettings

CONFIGS = (
    "/etc/apache2/apache2.conf",
    "/etc/apache2/httpd.conf",
    "/etc/httpd/conf/httpd.conf",
    "/usr/local/apache2/conf/httpd.conf",
)
"""Where packages keep the main file: Debian, SUSE, Red Hat, the official image."""


class ApacheSettings(ServerSettings):
    """How to find and change one virtual host of an Apache."""

    kind: Literal["apache"] = "apache"
    config: str = Field(
        "",
        description="Path of the main configuration file; default: /etc/apache2/apache2.conf "
        "(Debian), /etc/apache2/httpd.conf (SUSE) or /etc/httpd/conf/httpd.conf (Red Hat).",
    )
    binary: str = Field(
        "", description="The program, by name or path; default: apache2ctl (Debian) or httpd."
    )
    reload: Literal["graceful", "systemd"] | tuple[str, ...] = Field(
        "graceful",
        description="graceful: `apache2ctl -k graceful`, systemd: `systemctl reload apache2` (or "
        "httpd), or a command as a list of words.",
    )
    pid_file: str = Field("", description="Where the configuration does not say it.")
    enable_tls: bool = Field(
        default=False, description="Give a virtual host without TLS a twin that serves it."
    )
    key_types: Literal["replace", "add"] = Field(
        "replace",
        description="add: put a certificate with a new kind of key beside the present one.",
    )

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not value.isdigit() and not port_of(value):
            raise ValueError("must be a port or an address with a port, like 443 or 10.0.0.1:443")
        return value
