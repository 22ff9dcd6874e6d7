"""How long connections are kept, and by whom they are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from certrail.errors import Unreachable
from certrail.remote.ssh import ssh_host
from certrail.remote.ssh_pool import PER_HOST, SshPool
from certrail.remote.ssh_settings import SshSettings
from tests.support.process import wait_for
from tests.support.sshd import Sshd, sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def settings(server: Sshd) -> SshSettings:
    return SshSettings(
        "127.0.0.1",
        "root",
        server.port,
        private_key_file=str(server.key_file),
        known_hosts_file=str(server.known_hosts),
    )


def test_one_after_the_other_is_one_connection(settings: SshSettings) -> None:
    """The steps of a request follow each other on the same host."""
    pool = SshPool()
    used = set()
    for _ in range(3):
        with pool.lease(settings, "web01") as session:
            used.add(session)

    assert len(used) == 1
    assert pool.idle_count() == 1
    pool.close()
    assert pool.idle_count() == 0


def test_at_the_same_time_each_has_its_own_up_to_a_limit(settings: SshSettings) -> None:
    """Many sites on one host must not trip its limit of logins."""
    pool = SshPool()
    used = set()
    inside = threading.Semaphore(0)
    go_on = threading.Event()

    def work() -> None:
        with pool.lease(settings, "web01") as session:
            used.add(session)
            inside.release()
            assert go_on.wait(30)

    threads = [threading.Thread(target=work) for _ in range(PER_HOST + 3)]
    for thread in threads:
        thread.start()
    for _ in range(PER_HOST):
        assert inside.acquire(timeout=30)
    assert not inside.acquire(timeout=0.2)
    go_on.set()
    for thread in threads:
        thread.join()

    assert len(used) == PER_HOST
    pool.close()


def test_an_idle_connection_is_closed(server: Sshd, settings: SshSettings) -> None:
    """A host's administrator should not find us logged in all day."""
    pool = SshPool(idle_seconds=0.1)
    with pool.lease(settings, "web01"):
        pass

    wait_for(lambda: pool.idle_count() == 0, "it was closed")
    wait_for(lambda: server.sessions() == [], "the host saw it end")
    with pool.lease(settings, "web01") as session:
        assert session.answers()
    pool.close()


def test_an_old_connection_is_not_kept(settings: SshSettings) -> None:
    """Keys and accounts that were changed take effect in the end."""
    pool = SshPool(max_age=0.0)
    with pool.lease(settings, "web01"):
        pass

    assert pool.idle_count() == 0


def test_nothing_is_remembered_of_hosts_no_longer_used(settings: SshSettings) -> None:
    """Settings hold secrets."""
    pool = SshPool()
    with pool.lease(settings, "web01"):
        pass
    pool.close()

    assert pool._places == {}


def test_a_failed_login_gives_its_place_back(settings: SshSettings, server: Sshd) -> None:
    """Otherwise a host that was down for a while could never be used again."""
    pool = SshPool()
    gone = SshSettings("127.0.0.1", "root", 1, host_key=server.host_key)
    for _ in range(PER_HOST + 1):
        with pytest.raises(Unreachable), ssh_host(gone, pool=pool):
            pass

    assert pool._places == {}
