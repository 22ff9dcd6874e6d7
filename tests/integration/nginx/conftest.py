"""Hosts through which the same nginx is reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from certrail.connectors import Host
from certrail.remote.local import LocalHost
from certrail.remote.ssh import ssh_host
from certrail.remote.ssh_pool import SshPool
from certrail.remote.ssh_settings import SshSettings
from tests.support.sshd import sshd


@pytest.fixture(params=["local", "ssh", "ssh without sftp"])
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """This machine: directly, and behind a real sshd with and without SFTP."""
    if request.param == "local":
        yield LocalHost("here")
        return
    folder = tmp_path_factory.mktemp("sshd")
    with sshd(folder, sftp=request.param == "ssh") as server:
        settings = SshSettings(
            host="127.0.0.1",
            port=server.port,
            username="root",
            private_key_file=str(server.key_file),
            known_hosts_file=str(server.known_hosts),
        )
        pool = SshPool()
        try:
            with ssh_host(settings, name="web01", pool=pool) as host:
                yield host
        finally:
            pool.close()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A directory for nginx."""
    return tmp_path / "nginx"
