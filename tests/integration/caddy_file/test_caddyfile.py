"""Which lines of a Caddyfile are changed, and what clients then see."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.connectors import InstallTarget
from certrail.errors import InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.caddy import CaddyTarget
from certrail.servers.discovery import discover
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import Wanted
from tests.support.caddyfile import ONE, Caddyfile, fresh_caddy
from tests.support.databases import NAME

TWO = """\
# é \udcff
(common) {
	header X-Note `a "quoted" {brace`
	tls "@dir@/old.pem" @dir@/old.pem {
		protocols tls1.2 tls1.3
	}
}
www.example.test:@port@ {
	import common
	respond <<END
		www.example.test {
			tls none
		END 200
}
:@other@ {
	tls internal
}
"""
LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "in the main file": (ONE, {}),
    "snippets, quotes, bytes that are no text": (TWO, {}),
    "imported": ("import *.caddy\n", {"a.caddy": ONE}),
    "without braces, windows line ends, no final newline": (
        "www.example.test:@port@\r\ntls @dir@/old.pem \\\r\n  @dir@/old.pem # both",
        {},
    ),
    "several addresses": (
        "http://www.example.test:@other@ {\n respond x\n}\n"
        "a.example.test:@port@, *.other.test:@port@,\nwww.example.test:@port@ {\n"
        "\ttls @dir@/old.pem @dir@/old.pem\n}\n*.example.test:@port@ {\n\ttls internal\n}\n",
        {},
    ),
}


def target(caddy: Caddyfile, **settings: object) -> InstallTarget:
    """Return the target as the endpoint's settings describe it."""
    return open_target(LocalHost("here"), {**caddy.server, "site": NAME, **settings})


def files(caddy: Caddyfile) -> dict[str, bytes]:
    """Return the configuration files."""
    return {str(path): path.read_bytes() for path in (caddy.config, *caddy.folder.glob("*.caddy"))}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_edited_and_undone(layout: str) -> None:
    """Twice is once, undone is byte for byte as before, and clients see each state."""
    text, more = LAYOUTS[layout]
    caddy = fresh_caddy(text, files=more)
    before = files(caddy)
    opened, site = target(caddy, listen=caddy.port), site_of({"site": NAME, "listen": caddy.port})
    bundle = caddy.ca.bundle(NAME)
    assert isinstance(opened, CaddyTarget)
    assert NAME in [name for one in opened.sites() for name in one.names]

    staged = opened.stage(site, bundle, caddy.old.chain.fingerprint)
    line = opened.activate(staged)

    assert "2 directives replaced" in line
    assert bundle.chain.fingerprint == caddy.served() == opened.serving(site)
    assert not opened.plan(site, caddy.ca.bundle(NAME)).after

    opened.restore(staged)

    assert files(caddy) == before
    assert caddy.served() == caddy.old.chain.fingerprint


def test_a_site_gets_a_certificate_when_the_endpoint_says_so() -> None:
    """Caddy gets one itself otherwise, and that is not taken from it unasked."""
    caddy = fresh_caddy("www.example.test:@port@ {\n\trespond hello\n}\n")
    before = files(caddy)
    site, bundle = site_of({"site": NAME}), caddy.ca.bundle(NAME)
    with pytest.raises(InvalidRequest, match="gets the certificate of this site itself"):
        target(caddy).stage(site, bundle, None)
    assert files(caddy) == before

    opened = target(caddy, enable_tls=True)
    opened.activate(opened.stage(site, bundle, None))

    assert caddy.served() == bundle.chain.fingerprint


def test_a_running_server_is_found() -> None:
    """Its command line says where the Caddyfile is."""
    caddy = fresh_caddy()
    found = [one.settings for one in discover(LocalHost("here")) if one.running]

    assert str(caddy.config) in [one.get("config") for one in found if one["kind"] == "caddy"]


REFUSED = {
    "a snippet for several sites": (
        "(c) {\n tls /a.pem /a.key\n}\nwww.example.test {\n import c\n}\nb.test {\n import c\n}\n",
        r"Caddyfile:2 .* of other sites too: .*Caddyfile:7",
    ),
    "a variable": (
        "www.example.test {\n tls {$CERT} /a.key\n}\n",
        "Caddyfile:2: it cannot be told",
    ),
    "its own authority": ("www.example.test {\n tls internal\n}\n", "Caddyfile:2: `tls` says how"),
    "two ports": (
        "www.example.test:1 {\n tls /a /b\n}\nwww.example.test:2 {\n tls /a /b\n}\n",
        "2 sites answer",
    ),
    "no such site": ("other.test {\n}\n", "no site for"),
    "plain": ("http://www.example.test {\n}\n", "no site for"),
    "an open block": ("www.example.test {\n", "Caddyfile:1: the block is not closed"),
    "an open quote": ('a.test {\n respond "x\n}\n', "Caddyfile:2: a quote"),
    "an address that is a variable": ("{$HOST} {\n}\n", "Caddyfile:1: the address"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_where(case: str, tmp_path: Path) -> None:
    """The person who has to do it by hand needs to know the line."""
    text, told = REFUSED[case]
    (tmp_path / "Caddyfile").write_text(text)
    config = str(tmp_path / "Caddyfile")
    server = {"kind": "caddy", "config": config, "enable_tls": True}
    opened = open_target(LocalHost("here"), server)
    assert isinstance(opened, CaddyTarget)

    with pytest.raises(InvalidRequest, match=told):
        opened.survey(site_of({"site": NAME}), Wanted("ECDSA"))
