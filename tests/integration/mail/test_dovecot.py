"""Which lines of a Dovecot configuration are changed, and what mail readers then see."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.connectors import InstallTarget
from certrail.errors import InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.dovecot import DovecotTarget
from certrail.servers.dovecot.config import read_configuration
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import Wanted
from tests.support.mail import NAME, Dovecot

PAIR = "ssl_cert = <@dir@/old.pem\nssl_key = <@dir@/old.pem\n"
LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "in the main file": ("ssl = yes\n" + PAIR, {}),
    "as Debian lays it out": (
        "!include_try missing.conf\n!include conf.d/*.conf\n",
        {"conf.d/10-ssl.conf": "##\n## SSL\n##\nssl = yes\n" + PAIR, "conf.d/20-imap.conf": "#\n"},
    ),
    "set twice": (PAIR + PAIR, {}),
    "comments and blanks": (
        "ssl_cert=<@dir@/old.pem   # last year's\n  ssl_key  =  <@dir@/old.pem  \n",
        {},
    ),
    "windows line ends": (PAIR.replace("\n", "\r\n"), {}),
    "no final newline": (
        "!include tls.conf\n",
        {"tls.conf": PAIR.removesuffix("\n")},
    ),
    "bytes that are no text": ("!include tls.conf\n", {"tls.conf": "# \udcff\udcfe\n" + PAIR}),
    "by name": (
        PAIR + 'local_name "www.example.test other.test" {\n' + PAIR + "}\n",
        {},
    ),
}


def target(dovecot: Dovecot, **settings: object) -> InstallTarget:
    """Return the target as the endpoint's settings describe it."""
    return open_target(LocalHost("here"), {**dovecot.server, "site": NAME, **settings})


def files(dovecot: Dovecot) -> dict[str, bytes]:
    """Return the configuration files."""
    found = [*dovecot.folder.glob("*.conf"), *dovecot.folder.glob("conf.d/*.conf")]
    return {str(path): path.read_bytes() for path in found}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_edited_and_undone(layout: str) -> None:
    """Twice is once, undone is byte for byte as before, and Dovecot accepts each state."""
    tls, more = LAYOUTS[layout]
    with Dovecot.started(tls, files=more) as dovecot:
        before = files(dovecot)
        opened, site = target(dovecot), site_of({"site": NAME})
        bundle = dovecot.ca.bundle(NAME)

        staged = opened.stage(site, bundle, dovecot.old.chain.fingerprint)
        line = opened.activate(staged)

        assert "2 directives replaced" in line
        assert opened.serving(site) == bundle.chain.fingerprint
        if layout != "by name":
            assert dovecot.served() == bundle.chain.fingerprint
        assert dovecot.accepts_configuration()
        assert isinstance(opened, DovecotTarget)
        assert not opened.plan(site, dovecot.ca.bundle(NAME)).after

        opened.restore(staged)

        assert files(dovecot) == before
        assert dovecot.served() == dovecot.old.chain.fingerprint


def test_tls_is_switched_on_when_the_endpoint_says_so() -> None:
    """A server without TLS is not changed unasked."""
    with Dovecot.started("ssl = no\n") as dovecot:
        before = files(dovecot)
        opened, site = target(dovecot), site_of({"site": NAME})
        bundle = dovecot.ca.bundle(NAME)
        with pytest.raises(InvalidRequest, match="ssl = no") as caught:
            opened.stage(site, bundle, None)
        assert "ssl_cert = <" in caught.value.remedy
        assert files(dovecot) == before

        opened = target(dovecot, enable_tls=True)
        staged = opened.stage(site, bundle, None)
        opened.activate(staged)
        assert dovecot.served() == bundle.chain.fingerprint

        opened.restore(staged)
        assert files(dovecot) == before


def test_sites_and_ports_are_told() -> None:
    """A scan must know where the server answers and how clients ask for TLS there."""
    with Dovecot.started() as dovecot:
        (site,) = target(dovecot).sites()

        assert site.names == (NAME,)
        assert f"*:{dovecot.port}" in site.listens
        assert site.starttls == "imap"


NEW = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
ssl_server {
}
ssl_server_cert_file = /etc/dovecot/ssl/cert.pem  # file, not <file
ssl_server_key_file = /etc/dovecot/ssl/key.pem
local_name imap.example.test {
  ssl_server_cert_file = /etc/dovecot/ssl/imap.pem
  ssl_server_key_file = /etc/dovecot/ssl/imap.key
}
"""


def test_the_settings_of_2_4_are_read(tmp_path: Path) -> None:
    """The version renamed them, and a line of 2.3 keeps it from starting."""
    path = tmp_path / "dovecot.conf"
    path.write_text(NEW)
    host = LocalHost("here")

    configuration = read_configuration(host, str(path))
    server = {"kind": "dovecot", "config": str(path), "site": "imap.example.test"}
    opened = open_target(host, server)
    assert isinstance(opened, DovecotTarget)

    assert configuration.scope("imap.example.test", "") == ("local_name imap.example.test",)
    assert configuration.scope("other.example.test", "") == ()
    plan = opened.survey(site_of(server), Wanted("ECDSA")).plan
    live = tmp_path / "certrail" / "imap.example.test" / "live"
    expected = NEW.replace("/etc/dovecot/ssl/imap.pem", f"{live}/fullchain.pem")
    expected = expected.replace("/etc/dovecot/ssl/imap.key", f"{live}/privkey.pem")
    assert plan.after == {str(path): expected.encode()}
