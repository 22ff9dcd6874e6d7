"""Servers on a machine that is reached over SSH, as a user with sudo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from certrail.connectors import Host
from certrail.servers.registry import open_target, site_of
from tests.contract.install_cases import Served
from tests.support.caddyfile import fresh_caddy
from tests.support.databases import NAME, fresh_mariadb, fresh_postgres
from tests.support.exim import Exim
from tests.support.lighttpd import Lighttpd
from tests.support.sshd import account, over_ssh, sshd
from tests.support.tomcat import fresh_tomcat

SERVERS: dict[str, Callable[[Path], AbstractContextManager[Served]]] = {
    "caddy": lambda _: nullcontext(fresh_caddy()),
    "exim": lambda _: Exim.started(),
    "lighttpd": Lighttpd.started,
    "mariadb": lambda _: nullcontext(fresh_mariadb()),
    "postgresql": lambda _: nullcontext(fresh_postgres()),
    "tomcat": lambda _: nullcontext(fresh_tomcat()),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """This machine behind a real sshd."""
    folder = tmp_path_factory.mktemp("sshd")
    with (
        account(sudo="NOPASSWD: ALL") as user,
        sshd(folder) as server,
        over_ssh(server, user, "db01", sudo=True) as opened,
    ):
        yield opened


@pytest.mark.parametrize("kind", SERVERS)
def test_it_is_renewed_and_put_back(kind: str, host: Host, tmp_path: Path) -> None:
    """Nobody logs in as root where sudo will do."""
    with SERVERS[kind](tmp_path) as server:
        site, bundle = site_of({"site": NAME}), server.ca.bundle(NAME)
        opened = open_target(host, {**server.server, "site": NAME})

        staged = opened.stage(site, bundle, server.old.chain.fingerprint)
        opened.activate(staged)
        assert bundle.chain.fingerprint == server.served() == opened.serving(site)

        opened.restore(staged)
        assert server.old.chain.fingerprint == server.served() == opened.serving(site)
