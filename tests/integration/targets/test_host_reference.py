"""Targets that write files do it through a stored host connector."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from blocks.hosts.local import LocalMachine
from blocks.targets.haproxy import HaproxyRuntime
from blocks.targets.redis_server import RedisServer
from certrail.errors import NotFound
from tests.support.haproxy_runtime import HaproxyRuntime as Running
from tests.support.haproxy_runtime import debian
from tests.support.redis_server import PASSWORD, RedisProcess


def test_the_host_is_found_by_its_name(tmp_path: Path) -> None:
    """As it is in a worker; changes wait for those of a connector to the same machine."""
    (tmp_path / "lb").mkdir()
    (tmp_path / "cache").mkdir()
    with (
        prefect_test_harness(server_startup_timeout=60),
        Running.running(tmp_path / "lb", debian()) as haproxy,
        RedisProcess.started(tmp_path / "cache") as server,
    ):
        LocalMachine().save("here", _sync=True)  # type: ignore[call-arg]
        balancer = HaproxyRuntime(socket=haproxy.socket, host="host-local/here")
        cache = RedisServer(
            address="localhost",
            port=server.port,
            ca_bundle=server.roots,
            password=PASSWORD,
            host="host-local/here",
        )
        with balancer.connect() as one, cache.connect() as other:
            assert one.check().startswith("HAProxy 2.")
            assert other.check().startswith("Redis 7.")
            assert one.lock_name == other.lock_name != ""

        balancer.host = "host-local/nowhere"
        with pytest.raises(NotFound), balancer.connect():
            pass
