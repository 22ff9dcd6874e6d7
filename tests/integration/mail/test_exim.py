"""Which lines of an Exim configuration are changed, and what mail clients then see."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from certrail.connectors import InstallTarget
from certrail.errors import InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.discovery import discover
from certrail.servers.exim import EximTarget
from certrail.servers.exim.config import read_configuration
from certrail.servers.registry import open_target, site_of
from tests.support.exim import UNPACKED, Exim
from tests.support.mail import NAME

LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "certificate and key, continued": (
        "tls_certificate = \\\n    @dir@/old.pem\nhide tls_privatekey=@dir@/old.pem\n",
        {},
    ),
    "macros and conditions": (
        "FOLDER = @dir@\n.ifdef NOT_SET\ntls_certificate = /none\n.else\n"
        ".ifndef CERT\nCERT = FOLDER/old.pem\n.endif\ntls_certificate = CERT\n"
        "tls_privatekey = CERT\n.endif\n.ifdef _HAVE_TLS\n# yes\n.endif\n",
        {},
    ),
    "windows line ends": (
        ".include @dir@/tls.conf\n",
        {
            "tls.conf": "tls_certificate = \\\r\n  @dir@/old.pem\r\n"
            "tls_privatekey = @dir@/old.pem\r\n"
        },
    ),
    "included": (
        ".include_if_exists @dir@/none\n.include @dir@/tls.conf\n",
        {"tls.conf": "# \udcff\udcfe\ntls_certificate = @dir@/old.pem"},
    ),
}


def target(exim: Exim, **settings: object) -> InstallTarget:
    """Return the target as the endpoint's settings describe it."""
    return open_target(LocalHost("here"), {**exim.server, "site": NAME, **settings})


def files(exim: Exim) -> dict[str, bytes]:
    """Return the configuration files."""
    return {str(path): path.read_bytes() for path in exim.folder.glob("*.conf")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_edited_and_undone(layout: str) -> None:
    """Twice is once, undone is byte for byte as before, and clients see each state."""
    tls, more = LAYOUTS[layout]
    with Exim.started(tls, files=more) as exim:
        before = files(exim)
        opened, site = target(exim), site_of({"site": NAME})
        bundle = exim.ca.bundle(NAME)
        assert isinstance(opened, EximTarget)

        staged = opened.stage(site, bundle, exim.old.chain.fingerprint)
        line = opened.activate(staged)

        assert "replaced" in line
        assert "added" not in line
        assert bundle.chain.fingerprint == exim.served() == opened.serving(site)
        assert not opened.plan(site, exim.ca.bundle(NAME)).after
        (one,) = opened.sites()
        assert (one.starttls, one.listens) == ("smtp", (f"127.0.0.1:{exim.port}",))

        opened.restore(staged)

        assert files(exim) == before
        assert exim.served() == exim.old.chain.fingerprint


def test_tls_is_switched_on_when_the_endpoint_says_so() -> None:
    """A server without TLS is not changed unasked; lines belong before the first section."""
    with Exim.started("") as exim:
        before = files(exim)
        site, bundle = site_of({"site": NAME}), exim.ca.bundle(NAME)
        found = [one.settings for one in discover(LocalHost("here")) if one.running]
        assert exim.server in found
        with pytest.raises(InvalidRequest, match="no `tls_certificate`") as caught:
            target(exim).stage(site, bundle, None)
        assert "`tls_certificate = /" in caught.value.remedy
        assert files(exim) == before

        opened = target(exim, enable_tls=True)
        staged = opened.stage(site, bundle, None)
        opened.activate(staged)
        assert exim.served() == bundle.chain.fingerprint

        opened.restore(staged)
        assert files(exim) == before


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("${if eq{$tls_in_sni}{x}{/a}{/b}}", r"exim\.conf:9: `tls_certificate` is decided"),
        ("/a.pem : /b.pem", r"exim\.conf:9: `tls_certificate` is decided"),
    ],
)
def test_what_is_decided_for_each_connection_is_not_edited(
    value: str, told: str, tmp_path: Path
) -> None:
    """Only a person can tell what of it shall stay."""
    exim = Exim(tmp_path, 25, None, None)  # type: ignore[arg-type]
    exim.write(f"tls_certificate = {value}\n", {})
    opened = target(exim)
    assert isinstance(opened, EximTarget)

    with pytest.raises(InvalidRequest, match=told):
        opened.lines(opened.versions(str(tmp_path / "kept")))


def test_the_files_of_debians_package_are_read(tmp_path: Path) -> None:
    """Its options are macros in conditions, and the macro is what people set."""
    parts = tmp_path / "main"
    shutil.copytree(UNPACKED / "etc" / "exim4" / "conf.d" / "main", parts)
    host = LocalHost("here")
    given = {"_HAVE_TLS": "", "CONFDIR": "/etc/exim4"}

    def read() -> list[str]:
        return [str(path) for path in sorted(parts.iterdir())]

    off = read_configuration(host, read(), given)
    (parts / "000_localmacros").write_text(
        "MAIN_TLS_ENABLE = yes\nMAIN_TLS_CERTIFICATE = /etc/ssl/mail.pem\n"
    )
    on = read_configuration(host, read(), given)

    assert off.text("tls_certificate") == ""
    assert on.text("tls_certificate") == "/etc/ssl/mail.pem"
    certificate, key = on.source("tls_certificate"), on.source("tls_privatekey")
    assert certificate is not None
    assert certificate.place == f"{parts}/000_localmacros:2"
    assert key is not None
    assert key.path == f"{parts}/03_exim4-config_tlsoptions"
    assert on.text("tls_privatekey") == "/etc/exim4/exim.key"
