"""A key that is made on the host, over every way of reaching it."""

from __future__ import annotations

from pathlib import Path

from certrail.connectors import Host, MakesKeyFiles
from certrail.model import Bundle, SubjectSpec
from certrail.servers.registry import open_target, site_of
from tests.support.apache import Apache
from tests.support.nginx import Nginx

NAME = "www.example.test"


def install(host: Host, web: Nginx | Apache) -> None:
    """Make a key, have it certified, install, and go back."""
    server = {**web.server, "site": NAME}
    target, site = open_target(host, server), site_of(server)
    assert isinstance(target, MakesKeyFiles)
    original = web.config.read_bytes()

    csr = target.make_csr(site, SubjectSpec((NAME,)), "request-1")
    bundle = Bundle(web.ca.signed(csr, NAME), None)
    staged = target.stage(site, bundle, target.serving(site))
    target.activate(staged)

    assert bundle.chain.fingerprint == web.served(NAME)
    (key,) = web.directory.rglob("keys/*.pem")
    assert key.stat().st_mode & 0o7777 == 0o600
    assert [key] == [found.resolve() for found in web.directory.rglob("live/privkey.pem")]
    target.restore(staged)
    assert web.old.chain.fingerprint == web.served(NAME)
    assert original == web.config.read_bytes()
    target.discard(staged)
    # A second try of the same order needs it again.
    assert key.exists()


def test_nginx(folder: Path, host: Host) -> None:
    """The certificate comes, the key is there already."""
    with Nginx.started(folder) as nginx:
        install(host, nginx)


def test_apache(tmp_path: Path, host: Host) -> None:
    """Its own test passes a key that does not fit, so the key is asked for its public part."""
    with Apache.started(tmp_path / "apache") as apache:
        install(host, apache)
