"""A machine behind SSH as a host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from pydantic import Field, SecretStr, model_validator

from blocks._base import HostBlock, open_secret
from certrail.connectors import Host
from certrail.remote.ssh import ssh_host
from certrail.remote.ssh_settings import SshSettings


class SshMachine(HostBlock):
    """Use the files and commands of a machine over SSH. Host keys are pinned, never learnt."""

    _block_type_name = "Certrail host: SSH"
    _block_type_slug = "host-ssh"

    host: str = Field(min_length=1, description="Name or address of the machine.")
    port: int = Field(default=22, ge=1, le=65535, description="Port of its SSH server.")
    username: str = Field(min_length=1, description="Account to log in to.")
    private_key_file: str = Field(
        default="", description="Path, on the worker, of the private key to log in with."
    )
    private_key: SecretStr | None = Field(
        default=None, description="The private key itself (OpenSSH or PEM), instead of a file."
    )
    passphrase: SecretStr | None = Field(default=None, description="Passphrase of the private key.")
    password: SecretStr | None = Field(
        default=None, description="Password of the account, where keys are not used."
    )
    use_agent: bool = Field(
        default=False, description="Offer the keys of the SSH agent that the worker runs under."
    )
    known_hosts_file: str = Field(
        default="", description="Path, on the worker, of the file that pins the host key."
    )
    host_key: str = Field(
        default="",
        description="The pinned host key as text (`ssh-ed25519 AAAA…`), instead of a file.",
    )
    sudo: bool = Field(default=False, description="Do everything as root through sudo.")
    sudo_password: SecretStr | None = Field(
        default=None, description="Password that sudo asks for; leave out for a NOPASSWD rule."
    )
    sudo_listed: bool = Field(
        default=False,
        description="Run as root only the commands that sudo's rules list for the account; files "
        "are reached with its own rights.",
    )
    connect_timeout: float = Field(
        default=15, gt=0, le=300, description="Seconds for connecting, key exchange and login each."
    )
    keepalive: float = Field(
        default=15, ge=1, le=3600, description="Seconds between keep-alive messages."
    )
    jump_host: str = Field(
        default="",
        description="Log in to this machine first and go on from it, with the same credential "
        "and the same known hosts.",
    )
    jump_port: int = Field(default=22, ge=1, le=65535, description="Port of the jump host.")
    jump_username: str = Field(
        default="", description="Account on the jump host, if it is another one."
    )

    @model_validator(mode="after")
    def _one_way_of_sudo(self) -> Self:
        if self.sudo_listed and (self.sudo or self.sudo_password):
            raise ValueError("`sudo_listed` goes with neither `sudo` nor `sudo_password`")
        return self

    @contextmanager
    def connect(self) -> Iterator[Host]:
        """Open the machine; the connection is kept for a minute after use."""
        with ssh_host(
            self._settings(),
            name=self.label,
            sudo=self.sudo,
            sudo_password=open_secret(self.sudo_password),
            sudo_listed=self.sudo_listed,
        ) as host:
            yield host

    def _settings(self) -> SshSettings:
        def settings(
            host: str, port: int, username: str, jump: SshSettings | None = None
        ) -> SshSettings:
            return SshSettings(
                host=host,
                port=port,
                username=username,
                private_key_file=self.private_key_file,
                private_key=open_secret(self.private_key),
                passphrase=open_secret(self.passphrase),
                password=open_secret(self.password),
                use_agent=self.use_agent,
                known_hosts_file=self.known_hosts_file,
                host_key=self.host_key,
                connect_timeout=timedelta(seconds=self.connect_timeout),
                keepalive=timedelta(seconds=self.keepalive),
                jump=jump,
            )

        jump = (
            settings(self.jump_host, self.jump_port, self.jump_username or self.username)
            if self.jump_host
            else None
        )
        return settings(self.host, self.port, self.username, jump)
