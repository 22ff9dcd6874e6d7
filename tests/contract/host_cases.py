"""The ways to reach a host, each under the same contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blocks._base import HostBlock
from blocks.hosts.local import LocalMachine
from blocks.hosts.ssh import SshMachine
from certrail.connectors import Host
from certrail.remote.local import SudoLocalHost
from certrail.remote.ssh_pool import POOL
from certrail.remote.sudo import Sudo
from tests.support.asyncssh_host import asyncssh_host
from tests.support.sshd import Account, Sshd, account, sshd


@dataclass(frozen=True)
class Machines:
    """What runs for the cases: SSH servers on this machine, and accounts to log in to."""

    sshd: Sshd
    plain_sshd: Sshd
    """Without the SFTP subsystem."""
    asyncssh: Sshd
    administrator: Account
    """May use sudo without a password."""
    operator: Account
    """May use sudo with the password."""

    def block(self, server: Sshd, username: str = "root", **fields: Any) -> SshMachine:
        """Return settings that log in to *server* with its key."""
        return SshMachine(
            host="127.0.0.1",
            port=server.port,
            username=username,
            private_key_file=str(server.key_file),
            known_hosts_file=str(server.known_hosts),
            **fields,
        )


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """Start everything the cases need."""
    with ExitStack() as stack:
        administrator = stack.enter_context(account(sudo="NOPASSWD: ALL"))
        operator = stack.enter_context(account(sudo="ALL"))
        yield Machines(
            stack.enter_context(sshd(folder / "sshd", password_login=True)),
            stack.enter_context(sshd(folder / "plain", sftp=False)),
            stack.enter_context(asyncssh_host(folder / "asyncssh")),
            administrator,
            operator,
        )
        POOL.close()


@dataclass(frozen=True)
class Case:
    """One way to reach this machine."""

    name: str
    block: type[HostBlock] | None
    open: Callable[[Machines], AbstractContextManager[Host]]


@contextmanager
def _sudo_here(machines: Machines) -> Iterator[Host]:
    # The block leaves sudo out for root, and the tests are root.
    yield SudoLocalHost("here", Sudo())


CASES = (
    Case("local", LocalMachine, lambda _: LocalMachine().connect()),
    Case("local-sudo", None, _sudo_here),
    Case("ssh-root", SshMachine, lambda m: m.block(m.sshd).connect()),
    Case(
        "ssh-sudo",
        SshMachine,
        lambda m: m.block(m.sshd, m.administrator.name, sudo=True).connect(),
    ),
    Case(
        "ssh-sudo-password",
        SshMachine,
        lambda m: m.block(
            m.sshd, m.operator.name, sudo=True, sudo_password=SecretStr(m.operator.password)
        ).connect(),
    ),
    Case("ssh-without-sftp", SshMachine, lambda m: m.block(m.plain_sshd).connect()),
    Case("asyncssh", SshMachine, lambda m: m.block(m.asyncssh).connect()),
)
