"""The worker's own machine as a host: for an agent that runs on the server itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pydantic import Field, SecretStr, model_validator

from blocks._base import HostBlock, open_secret
from certrail.connectors import Host
from certrail.remote.local import local_host


class LocalMachine(HostBlock):
    """Use the files and commands of the machine that the worker runs on."""

    _block_type_name = "Certrail host: this machine"
    _block_type_slug = "host-local"

    sudo: bool = Field(
        default=False,
        description="Do everything as root through sudo, unless the worker is root already.",
    )
    sudo_password: SecretStr | None = Field(
        default=None, description="Password that sudo asks for; leave out for a NOPASSWD rule."
    )
    sudo_listed: bool = Field(
        default=False,
        description="Run as root only the commands that sudo's rules list for the account; files "
        "are reached with its own rights.",
    )

    @model_validator(mode="after")
    def _one_way_of_sudo(self) -> Self:
        if self.sudo_listed and (self.sudo or self.sudo_password):
            raise ValueError("`sudo_listed` goes with neither `sudo` nor `sudo_password`")
        return self

    @contextmanager
    def connect(self) -> Iterator[Host]:
        """Open the machine."""
        yield local_host(
            self.label,
            sudo=self.sudo,
            sudo_password=open_secret(self.sudo_password),
            sudo_listed=self.sudo_listed,
        )
