"""Which virtual host is changed, and what it costs, asked of a real Apache."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from certrail.connectors import InstallTarget
from certrail.errors import ActivationRefused, InvalidRequest
from certrail.model import Bundle
from certrail.remote.local import LocalHost
from certrail.servers.apache import ApacheTarget
from certrail.servers.registry import open_target, site_of
from tests.support.apache import ONE_HOST, Apache
from tests.support.nginx import TestCa, store
from tests.support.process import accepts, wait_for

WWW = "www.example.test"
SHOP = "shop.example.test"

TWO_HOSTS = """\
<VirtualHost *:@port@>
    ServerName www.example.test
    ServerAlias example.test *.www.example.test
    SSLEngine on
    SSLCertificateFile @dir@/old.pem
    SSLCertificateKeyFile @dir@/old.key
</VirtualHost>
<VirtualHost *:@port@>
    ServerName shop.example.test
    SSLEngine on
    SSLCertificateFile @dir@/old.pem
    SSLCertificateKeyFile @dir@/old.key
</VirtualHost>
"""
PLAIN = """\
<VirtualHost *:80>
    ServerName www.example.test
    DocumentRoot @dir@/htdocs
    <Directory @dir@/htdocs>
        Require all granted
    </Directory>
</VirtualHost>
"""


def target(apache: Apache, **settings: object) -> InstallTarget:
    """Return the target as the endpoint's settings describe it."""
    return open_target(LocalHost("here"), {**apache.server, "site": WWW, **settings})


def install(apache: Apache, bundle: Bundle, **settings: object) -> str:
    """Stage and activate *bundle*; return what was done, for people."""
    site = site_of({"site": WWW, **settings})
    opened = target(apache, **settings)
    return opened.activate(opened.stage(site, bundle, None))


def files(apache: Apache) -> dict[str, bytes]:
    """Return the configuration files."""
    found = [*apache.directory.rglob("*.conf"), *apache.directory.rglob("*.inc")]
    return {str(path): path.read_bytes() for path in found}


def test_only_the_paths_change(tmp_path: Path) -> None:
    """Comments, blanks, quotes and order are somebody's work."""
    with Apache.started(tmp_path) as apache:
        before = apache.config.read_text()
        bundle = apache.ca.bundle(WWW)

        line = install(apache, bundle)

        live = tmp_path / "certrail" / WWW / "live"
        expected = before.replace(f'"{tmp_path}/old.pem"', f"{live}/fullchain.pem")
        expected = expected.replace(f"{tmp_path}/old.key", f"{live}/privkey.pem")
        assert apache.config.read_text() == expected
        assert "1 file, 2 directives replaced, configuration tested, reloaded" in line
        assert apache.accepts_configuration()
        assert apache.served(WWW) == bundle.chain.fingerprint


def test_the_other_virtual_host_keeps_its_certificate(tmp_path: Path) -> None:
    """A name, an alias and a wildcard alias all mean the same virtual host."""
    with Apache.started(tmp_path, hosts=TWO_HOSTS) as apache:
        for name in (SHOP, "example.test", "a.www.example.test"):
            bundle = apache.ca.bundle(name)
            install(apache, bundle, site=name)
            assert apache.served(name) == bundle.chain.fingerprint

        assert apache.served(WWW) == bundle.chain.fingerprint
        assert apache.served(SHOP) != bundle.chain.fingerprint


def test_hundreds_of_hosts(tmp_path: Path) -> None:
    """Inventory lists them all, and one of them is changed among the others."""
    hosts = "".join(
        TWO_HOSTS.replace("www.example", f"w{number}.example")
        .replace("shop.example", f"s{number}.example")
        .replace("ServerAlias example.test", f"ServerAlias a{number}.example.test")
        for number in range(150)
    )
    with Apache.started(tmp_path, hosts=hosts) as apache:
        name = "w75.example.test"
        opened, bundle = target(apache, site=name), apache.ca.bundle(name)
        found = list(opened.sites())

        opened.activate(opened.stage(site_of({"site": name}), bundle, None))

        assert len({one.id for one in found}) == 300
        assert {apache.old.chain.fingerprint} == {one.fingerprint for one in found}
        assert apache.served(name) == bundle.chain.fingerprint
        assert apache.served("w76.example.test") == apache.old.chain.fingerprint
        assert sum(one.fingerprint == bundle.chain.fingerprint for one in opened.sites()) == 1


def test_a_mismatched_key_never_reaches_apache(tmp_path: Path) -> None:
    """Its own test passes such a pair, and the reload then ends the server."""
    with Apache.started(tmp_path) as apache:
        wrong = Bundle(apache.ca.bundle(WWW).chain, apache.ca.bundle(WWW).key)

        with pytest.raises(InvalidRequest):
            install(apache, wrong)

        assert apache.served(WWW) == apache.old.chain.fingerprint
        assert not (tmp_path / "certrail").exists()


def test_a_reload_that_ends_apache_is_told_and_undone(tmp_path: Path) -> None:
    """Another site's key that does not fit passes Apache's test, and ends it in any reload."""
    with Apache.started(tmp_path, hosts=TWO_HOSTS) as apache:
        before = files(apache)
        opened = target(apache)
        staged = opened.stage(site_of({"site": WWW}), apache.ca.bundle(WWW), None)
        other = apache.ca.bundle(WWW).key
        assert other is not None
        good = (tmp_path / "old.key").read_bytes()
        (tmp_path / "old.key").write_bytes(other.reveal())
        assert apache.accepts_configuration()

        with pytest.raises(ActivationRefused, match="ended while it reloaded") as caught:
            opened.activate(staged)

        assert files(apache) == before
        assert f"{tmp_path}/error.log says why" in str(caught.value)
        # What was put back begins with the same words to Apache, which start one that is gone.
        (tmp_path / "old.key").write_bytes(good)
        bundle = apache.ca.bundle(WWW)
        install(apache, bundle)
        wait_for(lambda: accepts(apache.port), "Apache runs again")
        assert apache.served(WWW) == bundle.chain.fingerprint
        _end(apache)


def _end(apache: Apache) -> None:
    """End the Apache that was started by the reload: it is no child of the test."""
    master = apache.master
    os.kill(master, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{master}").exists(), "Apache ends")


def test_two_kinds_of_key_live_side_by_side(tmp_path: Path) -> None:
    """RSA for old clients, ECDSA for the others, each renewed for itself."""
    ca = TestCa()
    both = ONE_HOST.replace(
        "</VirtualHost>",
        "    SSLCertificateFile @dir@/rsa.pem\n    SSLCertificateKeyFile @dir@/rsa.key\n"
        "</VirtualHost>",
    )
    store(tmp_path / "rsa", ca.bundle(WWW, rsa_key=True))
    with Apache.started(tmp_path, hosts=both, ca=ca) as apache:
        before_rsa = apache.served(WWW, rsa_only=True)

        ecdsa = ca.bundle(WWW)
        install(apache, ecdsa)
        assert apache.served(WWW) == ecdsa.chain.fingerprint
        assert apache.served(WWW, rsa_only=True) == before_rsa

        rsa = ca.bundle(WWW, rsa_key=True)
        install(apache, rsa)
        assert apache.served(WWW, rsa_only=True) == rsa.chain.fingerprint
        assert apache.served(WWW) == ecdsa.chain.fingerprint
        assert apache.accepts_configuration()


def test_a_plain_host_gets_a_twin_with_tls(tmp_path: Path) -> None:
    """Sites without TLS can be given TLS when the endpoint says so."""
    with Apache.started(
        tmp_path,
        files={"sites/www.conf": PLAIN},
        hosts=ONE_HOST.replace("www.example.test", "other.example.test") + "Include sites/*.conf\n",
    ) as apache:
        before = files(apache)
        with pytest.raises(InvalidRequest, match="does not serve TLS") as caught:
            install(apache, apache.ca.bundle(WWW))
        assert "SSLCertificateKeyFile" in caught.value.remedy
        assert files(apache) == before

        bundle = apache.ca.bundle(WWW)
        site = site_of({"site": WWW, "listen": str(apache.port)})
        opened = target(apache, enable_tls=True, listen=apache.port)
        staged = opened.stage(site, bundle, None)
        opened.activate(staged)

        assert apache.served(WWW) == bundle.chain.fingerprint
        assert apache.served("other.example.test") == apache.old.chain.fingerprint
        text = (tmp_path / "sites" / "www.conf").read_text()
        assert text.startswith(apache.filled(PLAIN))
        assert text.count("Require all granted") == 2
        # The second time it is there, and nothing is added.
        install(apache, apache.ca.bundle(WWW), enable_tls=True, listen=apache.port)
        assert (tmp_path / "sites" / "www.conf").read_text() == text


def test_a_redirect_to_https_gets_no_twin(tmp_path: Path) -> None:
    """A copy of it would send clients round for ever."""
    redirect = PLAIN.replace(
        "    <Directory", "    Redirect / https://www.example.test/\n    <Directory"
    )
    hosts = ONE_HOST.replace("www.example.test", "other.example.test") + redirect
    with Apache.started(tmp_path, hosts=hosts) as apache:
        with pytest.raises(InvalidRequest, match="sends clients to https") as caught:
            install(apache, apache.ca.bundle(WWW), enable_tls=True)

        assert "<VirtualHost *:443>" in caught.value.remedy


def test_a_snippet_for_many_hosts_is_refused(tmp_path: Path) -> None:
    """Changing it would change sites nobody asked about."""
    snippet = "SSLCertificateFile @dir@/old.pem\nSSLCertificateKeyFile @dir@/old.key\n"
    hosts = "".join(
        f"<VirtualHost *:@port@>\nServerName {name}\nSSLEngine on\nInclude tls.inc\n"
        "</VirtualHost>\n"
        for name in (WWW, SHOP)
    )
    with Apache.started(tmp_path, hosts=hosts, files={"tls.inc": snippet}) as apache:
        before = files(apache)

        with pytest.raises(InvalidRequest, match="2 virtual hosts include") as caught:
            install(apache, apache.ca.bundle(WWW))

        assert "Remove line 1" in caught.value.remedy
        assert files(apache) == before


def test_a_host_with_a_definition_of_the_command_line_is_asked_of_apache(tmp_path: Path) -> None:
    """The files do not say which definitions the server was started with."""
    hosts = (
        "Define PROD\n<IfDefine !PROD>\n"
        + ONE_HOST
        + "</IfDefine>\n<IfDefine PROD>\n"
        + ONE_HOST
        + "</IfDefine>\n<IfDefine STAGING>\n"
        + ONE_HOST
        + "</IfDefine>\n"
    )
    with Apache.started(tmp_path, hosts=hosts) as apache:
        bundle = apache.ca.bundle(WWW)

        install(apache, bundle)

        assert apache.served(WWW) == bundle.chain.fingerprint
        assert apache.config.read_text().count("fullchain.pem") == 1


MANY = "".join(
    f"<VirtualHost *:@port@>\n  ServerName n{number}.example.test\n  SSLEngine on\n"
    "  SSLCertificateFile @dir@/old.pem\n  SSLCertificateKeyFile @dir@/old.key\n</VirtualHost>\n"
    for number in range(300)
)
LAYOUTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "debian, behind a link": (
        "IncludeOptional sites-enabled/*.conf\n",
        {"sites-available/www.conf": ONE_HOST},
    ),
    "includes of includes": (
        "Include a.inc\n",
        {"a.inc": "IncludeOptional b/*.inc\n", "b/1.inc": "# first\n", "b/2.inc": ONE_HOST},
    ),
    "a folder with folders": ("Include conf\n", {"conf/deep/er/www.conf": ONE_HOST}),
    "no final newline": (ONE_HOST.removesuffix("\n"), {}),
    "windows line ends": (ONE_HOST.replace("\n", "\r\n"), {}),
    "bytes that are no text": (ONE_HOST.replace("last year", "\udcff\udcfe"), {}),
    "continued lines": (
        ONE_HOST.replace('SSLCertificateFile    "', 'SSLCertificateFile \\\n      "'),
        {},
    ),
    "variables": (
        "Define certs @dir@\n" + ONE_HOST.replace("@dir@/old", "${certs}/old"),
        {},
    ),
    "conditions": (
        "<IfModule mod_ssl.c>\n<IfModule !mod_nss.c>\n" + ONE_HOST + "</IfModule>\n</IfModule>\n",
        {},
    ),
    "conditions inside": (
        ONE_HOST.replace("    SSLEngine", "    <IfModule ssl_module>\n    SSLEngine").replace(
            "old.key\n", "old.key\n    </IfModule>\n"
        ),
        {},
    ),
    "version": ("<IfVersion >= 2.4>\n" + ONE_HOST + "</IfVersion>\n", {}),
    "hundreds": (MANY + ONE_HOST, {}),
    "upper case": (
        ONE_HOST.upper()
        .replace("@PORT@", "@port@")
        .replace("@DIR@/OLD.PEM", "@dir@/old.pem")
        .replace("@DIR@/OLD.KEY", "@dir@/old.key"),
        {},
    ),
    "IPv6 beside": (ONE_HOST.replace("*:@port@", "*:@port@ [::1]:@port@"), {}),
    "default address": (ONE_HOST.replace("*:@port@", "_default_:@port@"), {}),
    "no name": (ONE_HOST.replace("    ServerName www.example.test\n", ""), {}),
    "certificate of the main server": (
        "SSLCertificateFile @dir@/old.pem\nSSLCertificateKeyFile @dir@/old.key\n"
        "<VirtualHost *:@port@>\nServerName www.example.test\nSSLEngine on\n</VirtualHost>\n",
        {},
    ),
    "TLS switched on for all": (
        "SSLCertificateFile @dir@/old.pem\nSSLCertificateKeyFile @dir@/old.key\nSSLEngine on\n"
        + ONE_HOST.replace("    SSLEngine on\n", ""),
        {},
    ),
    "a chain file": (
        ONE_HOST.replace("old.key\n", "old.key\n    SSLCertificateChainFile @dir@/old.pem\n"),
        {},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_edited_and_undone(tmp_path: Path, layout: str) -> None:
    """Twice is once, undone is byte for byte as before, and Apache accepts each state."""
    hosts, more = LAYOUTS[layout]
    if "sites-enabled" in hosts:
        (tmp_path / "sites-enabled").mkdir()
        (tmp_path / "sites-enabled" / "www.conf").symlink_to("../sites-available/www.conf")
    with Apache.started(tmp_path, hosts=hosts, files=more) as apache:
        before = files(apache)
        opened = target(apache)
        site = site_of({"site": WWW})
        bundle = apache.ca.bundle(WWW)

        staged = opened.stage(site, bundle, None)
        opened.activate(staged)

        assert apache.accepts_configuration()
        assert apache.served(WWW) == bundle.chain.fingerprint == opened.serving(site)
        edited = files(apache)
        assert isinstance(opened, ApacheTarget)
        assert not opened.plan(site, apache.ca.bundle(WWW)).after
        assert files(apache) == edited

        opened.restore(staged)

        assert files(apache) == before
        assert apache.served(WWW) == apache.old.chain.fingerprint


def test_the_chain_is_sent_once(tmp_path: Path) -> None:
    """A file for certificate and chain beside a chain file must not send the leaf twice."""
    ca = TestCa()
    hosts = ONE_HOST.replace("old.key\n", "old.key\n    SSLCertificateChainFile @dir@/old.pem\n")
    with Apache.started(tmp_path, hosts=hosts, ca=ca) as apache:
        bundle = ca.bundle(WWW)
        install(apache, bundle)

        assert presented(apache.port) == len(bundle.chain.pems)


def presented(port: int) -> int:
    """Return how many certificates a client gets, as openssl counts them."""
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", WWW]
    done = subprocess.run(
        [*argv, "-showcerts"], input=b"", capture_output=True, check=False, timeout=30
    )
    return done.stdout.count(b"-----BEGIN CERTIFICATE-----")
