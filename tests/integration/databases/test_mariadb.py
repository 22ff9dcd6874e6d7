"""Which lines of a MariaDB configuration are changed, and what clients then see."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.errors import ActivationRefused, InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.discovery import discover
from certrail.servers.mariadb import MariadbTarget
from certrail.servers.mariadb.config import read_configuration
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import Wanted
from tests.support.databases import NAME, MariaDb


def test_other_files_need_a_restart_and_it_is_told() -> None:
    """It reads the names of its files only when it starts; after that FLUSH SSL is enough."""
    with MariaDb.started(
        more="[mysqldump]\r\nssl-cert=/none\r\n[mariadb-99.1]\nnonsense"
    ) as mariadb:
        before = mariadb.config.read_bytes()
        site, bundle = site_of({"site": NAME}), mariadb.ca.bundle(NAME)
        server = {**mariadb.server, "site": NAME}
        found = [one.settings for one in discover(LocalHost("here")) if one.running]
        assert {"kind": "mariadb", "config": str(mariadb.config)} in found
        careful = open_target(LocalHost("here"), {**server, "restart": "never"})
        staged = careful.stage(site, bundle, mariadb.old.chain.fingerprint)
        with pytest.raises(ActivationRefused, match="only when it starts"):
            careful.activate(staged)
        assert mariadb.config.read_bytes() == before

        opened = open_target(LocalHost("here"), server)
        assert isinstance(opened, MariadbTarget)
        line = opened.activate(staged)

        assert "2 directives replaced" in line
        assert "restarted in" in line
        assert bundle.chain.fingerprint == mariadb.served() == opened.serving(site)
        assert not opened.plan(site, mariadb.ca.bundle(NAME)).after
        (one,) = opened.sites()
        assert (one.names, one.starttls, one.listens) == (
            (NAME,),
            "mysql",
            (f"127.0.0.1:{mariadb.port}",),
        )
        renewed = mariadb.ca.bundle(NAME)
        assert "reloaded in" in opened.activate(opened.stage(site, renewed, None))
        assert mariadb.served() == renewed.chain.fingerprint


LAYOUTS = {
    "as Debian lays it out": {
        "my.cnf": "[client-server]\nsocket=/s\n!includedir @dir@/conf.d\n",
        "conf.d/50-server.cnf": "[server]\n\n[mysqld]\nbind-address = ::  # all\n"
        "ssl-cert = /old.pem\nssl-key = /old.key\n\n[embedded]\nssl-cert=/none\n",
        "conf.d/50-client.cnf": "[client]\nssl-cert = /none\n",
        "conf.d/note.txt": "[mysqld]\nssl-cert = /none\n",
    },
    "underlines, quotes, twice": {
        "my.cnf": "[mysqld]\nssl_cert=/none\n[mariadb-10.11]\n"
        "loose-ssl_cert = '/old # x.pem' # y\nssl_key\t=\t\"/old.key\"\r\n"
        "[mariadb-5.5]\nssl_key=/none\n",
    },
    "only one of two, no final newline": {"my.cnf": "; x\n[mysqld]\nport=1\nssl-cert = /old.pem"},
}


def written(tmp_path: Path, layout: dict[str, str]) -> str:
    """Write *layout* and return the path of its main file."""
    for name, text in layout.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.replace("@dir@", str(tmp_path)).encode())
    return str(tmp_path / "my.cnf")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_lines_that_count_are_changed(layout: str, tmp_path: Path) -> None:
    """Groups of clients and earlier settings are left alone; twice is once."""
    config = written(tmp_path, LAYOUTS[layout])
    opened = open_target(LocalHost("here"), {"kind": "mariadb", "config": config})
    assert isinstance(opened, MariadbTarget)
    site = site_of({"site": NAME})

    plan = opened.survey(site, Wanted("ECDSA")).plan

    ((path, after),) = plan.after.items()
    before = Path(path).read_bytes()
    Path(path).write_bytes(after)
    live = f"{tmp_path}/certrail/{NAME}/live"
    found = read_configuration(LocalHost("here"), config, "10.11")
    assert found.text("ssl_cert") == f"{live}/fullchain.pem"
    assert found.text("ssl_key") == f"{live}/privkey.pem"
    kept = [line for line in before.splitlines() if b"/old" not in line]
    assert [line for line in after.splitlines() if b"/live/" not in line] == kept
    assert not opened.survey(site, Wanted("ECDSA")).plan.after


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[mysqld]\nport=1\n", "no certificate is named"),
        ("[mysqld]\nskip-ssl\nssl-cert=/a\n", "my.cnf:2"),
        ("[mysqld]\nssl=0\nssl-cert=/a\n", "my.cnf:2"),
        ("[client]\nssl-cert=/a\n", "no group"),
    ],
)
def test_what_is_refused_says_where(text: str, told: str, tmp_path: Path) -> None:
    """A server without TLS is not changed unasked, and what is switched off stays off."""
    config = written(tmp_path, {"my.cnf": text})
    opened = open_target(LocalHost("here"), {"kind": "mariadb", "config": config})
    assert isinstance(opened, MariadbTarget)

    with pytest.raises(InvalidRequest, match=told):
        opened.survey(site_of({"site": NAME}), Wanted("ECDSA"))


def test_tls_is_switched_on_in_the_group_of_the_server(tmp_path: Path) -> None:
    """Behind its last option, not at the end of the file."""
    config = written(tmp_path, {"my.cnf": "[mysqld]\nport=1\n# end\n[client]\nport=2\n[galera]\n"})
    server = {"kind": "mariadb", "config": config, "enable_tls": True}
    opened = open_target(LocalHost("here"), server)
    assert isinstance(opened, MariadbTarget)

    (after,) = opened.survey(site_of({"site": NAME}), Wanted("ECDSA")).plan.after.values()

    live = f"{tmp_path}/certrail/{NAME}/live"
    lines = f"ssl-cert = {live}/fullchain.pem\nssl-key = {live}/privkey.pem\n"
    assert after.decode() == f"[mysqld]\nport=1\n{lines}# end\n[client]\nport=2\n[galera]\n"
