"""Which bytes of a server.xml are changed, and what clients then see."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import ActivationRefused, InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.discovery import discover
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import Wanted
from certrail.servers.tomcat import TomcatTarget
from certrail.servers.tomcat.xml import parse
from certrail.x509.export import Format, Part, export, load
from tests.support.databases import NAME, write_pem
from tests.support.nginx import TestCa
from tests.support.tomcat import LIVE, fresh_tomcat

PASSWORD = "lab-store-password"


def test_a_key_store_is_replaced_and_a_restart_is_told() -> None:
    """Other paths count after a restart; renewals go through the manager, connections stay."""
    tomcat = fresh_tomcat()
    try:
        store = tomcat.folder / "conf" / "old.p12"
        old = tomcat.ca.bundle(NAME)
        store.write_bytes(export(old, Format.PKCS12, password=PASSWORD)[Part.STORE])
        tomcat.write(
            f'<Certificate certificateKeystoreFile="conf/old.p12" type="EC"\n'
            f'  certificateKeystorePassword="{PASSWORD}" certificateKeystoreType="JKS" />'
        )
        before = tomcat.config.read_bytes()
        site = site_of({"site": NAME})
        server = {**tomcat.server, "site": NAME}
        found = [one.settings for one in discover(LocalHost("here")) if one.running]
        assert {"kind": "tomcat", "config": str(tomcat.config)} in found
        careful = open_target(LocalHost("here"), {**server, "restart": "never"})
        bundle = tomcat.ca.bundle(NAME)
        staged = careful.stage(site, bundle, old.chain.fingerprint)
        with pytest.raises(ActivationRefused, match="only when Tomcat starts"):
            careful.activate(staged)
        assert tomcat.config.read_bytes() == before

        opened = open_target(LocalHost("here"), server)
        line = opened.activate(staged)

        assert "2 directives replaced" in line
        assert "restarted in" in line
        assert bundle.chain.fingerprint == tomcat.served() == opened.serving(site)
        renewed = tomcat.ca.bundle(NAME)
        assert "reloaded in" in opened.activate(opened.stage(site, renewed, None))
        assert tomcat.served() == renewed.chain.fingerprint
        live = tomcat.folder / "conf" / "certrail" / NAME / "live" / "keystore.p12"
        kept = load({Part.STORE: live.read_bytes()}, Format.PKCS12, password=PASSWORD)
        assert kept.chain.fingerprint == renewed.chain.fingerprint
        assert live.stat().st_mode & 0o777 == 0o600
    finally:
        # The others expect it to name these.
        tomcat.renew()
        tomcat.write(LIVE)
        restart = open_target(LocalHost("here"), tomcat.server)
        assert isinstance(restart, TomcatTarget)
        restart.control.edited = True
        assert not restart.control.reload()


def opened_at(config: Path) -> TomcatTarget:
    """Return the target for a server.xml that nothing runs with."""
    opened = open_target(LocalHost("here"), {"kind": "tomcat", "config": str(config)})
    assert isinstance(opened, TomcatTarget)
    return opened


def connector(inner: str) -> str:
    """Return a server.xml with one TLS connector."""
    start = '<Server>\n<Connector port="8443" SSLEnabled="true">'
    return f"{start}\n{inner}\n</Connector></Server>"


EDITED = {
    "pem": (
        "<SSLHostConfig><Certificate\tcertificateKeyFile = 'k.pem'\n certificateFile=\"c.pem\"\r\n"
        ' certificateChainFile="chain.pem"/></SSLHostConfig>',
        "<SSLHostConfig><Certificate\tcertificateKeyFile = '{live}/privkey.pem'\n "
        'certificateFile="{live}/fullchain.pem"/></SSLHostConfig>',
    ),
    "one file for both": (
        "<!-- <SSLHostConfig/> --><SSLHostConfig><Certificate certificateFile='a&amp;b.pem' />"
        "</SSLHostConfig>",
        "<!-- <SSLHostConfig/> --><SSLHostConfig><Certificate certificateFile="
        "'{live}/fullchain.pem' certificateKeyFile=\"{live}/privkey.pem\" /></SSLHostConfig>",
    ),
    "on the host, as 8.5 has it": (
        '<SSLHostConfig certificateFile="c" certificateKeyFile="k"></SSLHostConfig>',
        '<SSLHostConfig certificateFile="{live}/fullchain.pem" '
        'certificateKeyFile="{live}/privkey.pem"></SSLHostConfig>',
    ),
    "by name and kind": (
        '<SSLHostConfig><Certificate certificateFile="d"/></SSLHostConfig>\n'
        '<SSLHostConfig hostName="*.example.test"><Certificate certificateFile="w"/>'
        '</SSLHostConfig><SSLHostConfig hostName="www.example.test">'
        '<Certificate type="RSA" certificateFile="r"/>'
        '<Certificate type="EC" certificateFile="e" certificateKeyFile="k"/></SSLHostConfig>',
        '<SSLHostConfig><Certificate certificateFile="d"/></SSLHostConfig>\n'
        '<SSLHostConfig hostName="*.example.test"><Certificate certificateFile="w"/>'
        '</SSLHostConfig><SSLHostConfig hostName="www.example.test">'
        '<Certificate type="RSA" certificateFile="r"/>'
        '<Certificate type="EC" certificateFile="{live}/fullchain.pem" '
        'certificateKeyFile="{live}/privkey.pem"/></SSLHostConfig>',
    ),
}


@pytest.mark.parametrize("case", EDITED)
def test_only_the_values_are_changed(case: str, tmp_path: Path) -> None:
    """Blanks, quotes, comments and line ends are those of the person who wrote them."""
    before, after = EDITED[case]
    config = tmp_path / "server.xml"
    config.write_bytes(connector(before).encode())
    opened, site = opened_at(config), site_of({"site": NAME})

    (changed,) = opened.survey(site, Wanted("ECDSA")).plan.after.values()
    config.write_bytes(changed)

    live = f"{tmp_path}/certrail/{NAME}/live"
    assert changed.decode() == connector(after.replace("{live}", live))
    assert not opened.survey(site, Wanted("ECDSA")).plan.after


CERTIFICATE = '<SSLHostConfig><Certificate certificateFile="c"/></SSLHostConfig>'
OLD = {
    "a key store": (
        'keystoreFile="conf/x.jks" keystorePass="hidden" keyAlias="www"',
        '<SSLHostConfig><Certificate certificateKeystoreFile="conf/x.jks" '
        'certificateKeystorePassword="…" certificateKeyAlias="www"/></SSLHostConfig>',
    ),
    "APR": (
        'SSLCertificateFile="/c.pem" SSLCertificateKeyFile="/k.pem"',
        '<SSLHostConfig><Certificate certificateFile="/c.pem" certificateKeyFile="/k.pem"/>',
    ),
}


@pytest.mark.parametrize("case", OLD)
def test_connectors_of_old_versions_say_what_to_write(case: str, tmp_path: Path) -> None:
    """For a scan too: it would find nothing and not say why."""
    attributes, written = OLD[case]
    config = tmp_path / "server.xml"
    config.write_text(f'<Server>\n<Connector port="1" SSLEnabled="true" {attributes}/></Server>')
    opened = opened_at(config)

    for ask in (
        lambda: list(opened.sites()),
        lambda: opened.survey(site_of({"site": NAME}), Wanted("ECDSA")),
    ):
        with pytest.raises(InvalidRequest, match=r"server\.xml:2: .*Tomcat 8\.5") as caught:
            ask()
        assert written in caught.value.remedy
        assert "hidden" not in caught.value.remedy


REFUSED = {
    "two ports": (
        connector(CERTIFICATE).replace("</Server>", connector(CERTIFICATE)[9:]),
        "2 connectors",
    ),
    "a property": (
        connector(CERTIFICATE.replace('"c"', '"${tls}"')),
        r"server\.xml:3: .*prop",
    ),
    "the password a property": (
        connector(
            '<SSLHostConfig><Certificate certificateKeystoreFile="c"\n'
            'certificateKeystorePassword="${p}"/></SSLHostConfig>'
        ),
        r"server\.xml:4: the value is a property",
    ),
    "no certificate": (connector("<SSLHostConfig/>"), r"server\.xml:3: no certificate"),
    "two of a kind": (
        connector(CERTIFICATE.replace("<Cert", '<Certificate certificateFile="d"/><Cert')),
        "2 certificates are configured",
    ),
    "no TLS": ('<Server><Connector port="80"/></Server>', "no TLS connector"),
    "not well formed": ("<Server>\n<Connector></Server>", "line 2: mismatched tag"),
    "entities": ('<!DOCTYPE a [<!ENTITY b "c">]>\n' + connector(CERTIFICATE), "declares entities"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_where(case: str, tmp_path: Path) -> None:
    """The person who has to do it by hand needs to know the line."""
    text, told = REFUSED[case]
    config = tmp_path / "server.xml"
    config.write_text(text)

    with pytest.raises(InvalidRequest, match=told):
        opened_at(config).survey(site_of({"site": NAME}), Wanted("ECDSA"))


def test_sites_are_told_with_their_ports(tmp_path: Path) -> None:
    """Names of the hosts; for the last one those of its certificate."""
    ca = TestCa()
    write_pem(tmp_path / "c.pem", ca.bundle("a.example.test", "b.example.test"), "root")
    config = tmp_path / "server.xml"
    certificate = f'<Certificate certificateFile="{tmp_path}/c.pem"/>'
    named = f'<SSLHostConfig hostName="b.example.test">{certificate}</SSLHostConfig>'
    config.write_text(connector(f"<SSLHostConfig>{certificate}</SSLHostConfig>{named}"))

    found = {one.names: one.listens for one in opened_at(config).sites()}

    assert found == {("a.example.test",): ("*:8443",), ("b.example.test",): ("*:8443",)}


@given(st.dictionaries(st.sampled_from("abc"), st.text("aé€ ='>/!-?]", max_size=9)))
def test_attributes_lie_where_they_say(values: dict[str, str]) -> None:
    """Edits go by these offsets."""
    text = "".join(f' {name} = "{value}"' for name, value in values.items())
    data = f"<r><!-- <x a='1'> --><e{text}/></r>".encode()

    element = next(parse(data, "x").all("e"))

    assert {n: a.value for n, a in element.attributes.items()} == values
    assert {n: data[a.start : a.end].decode() for n, a in element.attributes.items()} == values
