"""Which lines of a lighttpd configuration are changed, and what clients then see."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.connectors import InstallTarget
from certrail.errors import ActivationRefused, InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.discovery import discover
from certrail.servers.lighttpd import LighttpdTarget
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import Wanted
from tests.support.lighttpd import NAME, ONE, Lighttpd

LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "as Debian lays it out": (
        'include "@dir@/conf-enabled/*.conf"\n',
        {
            "conf-enabled/10-ssl.conf": '# -*- conflicts: gnutls -*-\nssl.pemfile="@dir@/old.pem"\n'
            '$SERVER["socket"] == "127.0.0.1:@port@" { ssl.engine = "enable" }\n',
            "conf-enabled/20-mime.conf": '\nmimetype.assign = (\n  ".a" => "b/c", # d\n)\n',
        },
    ),
    "by name, with a variable": (
        ONE + 'var.certs = "@dir@"\n$HTTP["host"] =~ "(^|\\.)example\\.test$" {\n'
        '\tssl.pemfile = var.certs + "/old.pem"\n\tssl.privkey = var.certs + "/old.pem"\n}\n'
        'else $HTTP["host"] == "else.test" {\n ssl.pemfile = "@dir@/old.pem"\n}\n',
        {},
    ),
    "windows line ends, no final newline": (ONE.strip().replace("\n", "\r\n"), {}),
    "bytes that are no text": ("# \udcff\udcfe\n" + ONE, {}),
    "a command that prints settings": (
        ONE + 'include_shell "echo \'server.tag = \\"x\\"\'"\n',
        {},
    ),
}


def target(lighttpd: Lighttpd, **settings: object) -> InstallTarget:
    """Return the target as the endpoint's settings describe it."""
    return open_target(LocalHost("here"), {**lighttpd.server, "site": NAME, **settings})


def files(lighttpd: Lighttpd) -> dict[str, bytes]:
    """Return the configuration files."""
    return {str(path): path.read_bytes() for path in lighttpd.directory.rglob("*.conf")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_edited_and_undone(layout: str, tmp_path: Path) -> None:
    """Twice is once, undone is byte for byte as before, and lighttpd accepts each state."""
    tls, more = LAYOUTS[layout]
    with Lighttpd.started(tmp_path, tls, files=more) as lighttpd:
        before = files(lighttpd)
        opened, site = target(lighttpd), site_of({"site": NAME})
        bundle = lighttpd.ca.bundle(NAME)
        assert isinstance(opened, LighttpdTarget)
        assert site.id in [one.id for one in opened.sites()]

        staged = opened.stage(site, bundle, lighttpd.old.chain.fingerprint)
        line = opened.activate(staged)

        assert "restarted" in line
        assert bundle.chain.fingerprint == lighttpd.served() == opened.serving(site)
        assert lighttpd.accepts_configuration()
        assert not opened.plan(site, lighttpd.ca.bundle(NAME)).after

        opened.restore(staged)

        assert files(lighttpd) == before
        assert lighttpd.served() == lighttpd.old.chain.fingerprint


SOCKETS = (
    'ssl.engine = "enable"\nssl.pemfile = "@dir@/old.pem"\n'
    '$SERVER["socket"] == "127.0.0.1:@plain@" {\n  ssl.pemfile = "@dir@/old.pem"\n}\n'
)


def test_a_long_download_arrives_whole(tmp_path: Path) -> None:
    """It goes on with the old certificate while new clients get the new one, there and back."""
    with Lighttpd.started(tmp_path) as lighttpd:
        opened, site = target(lighttpd), site_of({"site": NAME})
        bundle = lighttpd.ca.bundle(NAME)
        with lighttpd.connection() as ends_whole:
            staged = opened.stage(site, bundle, None)
            opened.activate(staged)
            assert lighttpd.served() == bundle.chain.fingerprint
            with lighttpd.connection() as second_ends_whole:
                opened.restore(staged)
                assert lighttpd.served() == lighttpd.old.chain.fingerprint

                assert ends_whole()
                assert second_ends_whole()


def test_a_signal_that_would_keep_new_clients_waiting_is_not_sent(tmp_path: Path) -> None:
    """Without the setting lighttpd answers nobody while a download goes on."""
    with Lighttpd.started(tmp_path) as lighttpd:
        text = lighttpd.config.read_text().replace('"enable" )', '"disable" )')
        lighttpd.config.write_text(text)
        opened = target(lighttpd)

        with pytest.raises(ActivationRefused, match="graceful-restart-bg"):
            opened.activate(opened.stage(site_of({"site": NAME}), lighttpd.ca.bundle(NAME), None))

        assert lighttpd.config.read_text() == text
        assert lighttpd.served() == lighttpd.old.chain.fingerprint
        assert "graceful shutdown started" not in lighttpd.error_log


def test_one_of_two_addresses_is_changed(tmp_path: Path) -> None:
    """A certificate for each address: it must be said which is meant."""
    with Lighttpd.started(tmp_path, SOCKETS) as lighttpd:
        before, port = lighttpd.config.read_bytes(), lighttpd.plain
        bundle = lighttpd.ca.bundle(NAME)
        with pytest.raises(InvalidRequest, match="several certificates") as caught:
            target(lighttpd).stage(site_of({"site": NAME}), bundle, None)
        assert "listen" in caught.value.remedy
        assert before == lighttpd.config.read_bytes()

        opened = target(lighttpd, listen=port)
        opened.activate(opened.stage(site_of({"site": NAME, "listen": port}), bundle, None))

        assert lighttpd.served(port=port) == bundle.chain.fingerprint
        assert lighttpd.served() == lighttpd.old.chain.fingerprint
        found = [one.settings for one in discover(LocalHost("here"))]
        assert {"kind": "lighttpd", "config": str(lighttpd.config)} in found
        listens = sorted(listen for site in opened.sites() for listen in site.listens)
        assert listens == sorted(f"127.0.0.1:{one}" for one in (lighttpd.port, port))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ssl.pemfile = env.CERTS\n", "conf:10: it cannot be told which file"),
        ('include_shell "echo \'ssl.pemfile = \\"/x.pem\\"\'"\n', r"a command .*conf:10"),
        ("ssl.pemfile = @\n", "conf:10: not understood"),
        ("} ssl.pemfile = 1\n", "conf:10: `}` is not expected"),
    ],
    ids=["environment", "command", "unknown", "bracket"],
)
def test_what_cannot_be_changed_is_refused_with_its_place(
    tmp_path: Path, line: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person who has to do it by hand needs to know where."""
    monkeypatch.setenv("CERTS", str(tmp_path / "old.pem"))
    with Lighttpd.started(tmp_path) as lighttpd:
        sound = lighttpd.config.read_bytes()
        lighttpd.config.write_bytes(sound.replace(sound.splitlines()[9] + b"\n", line.encode()))
        opened = target(lighttpd)
        assert isinstance(opened, LighttpdTarget)

        with pytest.raises(InvalidRequest, match=told):
            opened.survey(site_of({"site": NAME}), Wanted("ECDSA"))
