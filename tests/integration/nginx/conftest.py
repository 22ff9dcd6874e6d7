"""Hosts through which the same nginx is reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from certrail.connectors import Host
from certrail.remote.local import LocalHost
from certrail.remote.ssh import ssh_host
from certrail.remote.ssh_pool import SshPool
from certrail.remote.ssh_settings import SshSettings
from tests.support.sshd import account, sshd


@pytest.fixture(params=["local", "ssh", "ssh with sudo"])
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """This machine: directly, behind a real sshd as root, and there as a user with sudo."""
    if request.param == "local":
        yield LocalHost("here")
        return
    folder = tmp_path_factory.mktemp("sshd")
    sudo = request.param == "ssh with sudo"
    with (
        account(sudo="NOPASSWD: ALL") if sudo else nullcontext() as user,
        sshd(folder) as server,
    ):
        settings = SshSettings(
            host="127.0.0.1",
            port=server.port,
            username=user.name if user else "root",
            private_key_file=str(server.key_file),
            known_hosts_file=str(server.known_hosts),
        )
        pool = SshPool()
        try:
            with ssh_host(settings, name="web01", sudo=sudo, pool=pool) as host:
                yield host
        finally:
            pool.close()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A directory for nginx."""
    return tmp_path / "nginx"
