"""Which certificate of which line is changed, asked of a real HAProxy."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from certrail.connectors import InstallTarget
from certrail.errors import ActivationRefused, Conflict, InvalidRequest, NotFound
from certrail.model import Bundle
from certrail.remote.local import LocalHost
from certrail.servers.haproxy import HaproxyTarget
from certrail.servers.registry import open_target, site_of
from tests.support.haproxy import Haproxy
from tests.support.nginx import TestCa
from tests.support.process import binary, free_port, running

WWW = "www.example.test"
SHOP = "shop.example.test"


def target(haproxy: Haproxy, **settings: object) -> InstallTarget:
    """Return the target as the endpoint's settings describe it."""
    return open_target(LocalHost("here"), {**haproxy.server, "site": WWW, **settings})


def install(haproxy: Haproxy, bundle: Bundle, **settings: object) -> str:
    """Stage and activate *bundle*; return what was done, for people."""
    site = site_of({"site": WWW, **settings})
    opened = target(haproxy, **settings)
    return opened.activate(opened.stage(site, bundle, None))


def changed_lines(before: str, after: str) -> list[str]:
    """Return the lines that are not as they were."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return [new.strip() for old, new in pairs if old != new]


def test_only_the_path_changes(tmp_path: Path) -> None:
    """Comments, blanks and order are somebody's work."""
    with Haproxy.started(tmp_path) as haproxy:
        before = haproxy.config.read_text()

        line = install(haproxy, haproxy.ca.bundle(WWW))

        after = haproxy.config.read_text()
        live = tmp_path / "certrail" / WWW / "live" / "combined.pem"
        assert after == before.replace(f"{tmp_path}/old.pem", str(live))
        assert "1 directive replaced" in line
        assert haproxy.accepts_configuration()


def test_a_new_name_gets_its_certificate_beside_the_first(tmp_path: Path) -> None:
    """The default certificate of the line stays what it was."""
    with Haproxy.started(tmp_path) as haproxy:
        bundle = haproxy.ca.bundle(SHOP)

        line = install(haproxy, bundle, site=SHOP)

        assert "1 directive added" in line
        assert haproxy.served(SHOP) == bundle.chain.fingerprint
        assert haproxy.served(WWW) == haproxy.old.chain.fingerprint
        assert haproxy.served("unknown.test") == haproxy.old.chain.fingerprint


def test_a_wildcard_stays_for_the_other_names(tmp_path: Path) -> None:
    """HAProxy prefers the exact name, so nothing has to be taken away."""
    ca = TestCa()
    wild = ca.bundle("*.example.test", "example.test")
    frontend = "frontend a\n    bind 127.0.0.1:@port@ ssl crt wild.pem\n"
    with Haproxy.started(tmp_path, frontends=frontend, pems={"wild.pem": wild}) as haproxy:
        bundle = haproxy.ca.bundle(WWW)

        install(haproxy, bundle)

        assert haproxy.served(WWW) == bundle.chain.fingerprint
        assert haproxy.served("other.example.test") == wild.chain.fingerprint


def test_names_are_not_lost(tmp_path: Path) -> None:
    """A site nobody asked about must not lose its certificate."""
    both = TestCa().bundle(WWW, SHOP)
    frontend = "frontend a\n    bind 127.0.0.1:@port@ ssl crt both.pem\n"
    with Haproxy.started(tmp_path, frontends=frontend, pems={"both.pem": both}) as haproxy:
        before = haproxy.config.read_text()

        with pytest.raises(InvalidRequest, match=SHOP) as caught:
            install(haproxy, haproxy.ca.bundle(WWW))

        assert SHOP in caught.value.remedy or "these names" in caught.value.remedy
        assert haproxy.config.read_text() == before
        assert haproxy.served(WWW) == both.chain.fingerprint
        assert not (tmp_path / "certrail").exists()


def test_all_names_together_replace_it(tmp_path: Path) -> None:
    """The remedy of the refusal works."""
    both = TestCa().bundle(WWW, SHOP)
    frontend = "frontend a\n    bind 127.0.0.1:@port@ ssl crt both.pem\n"
    with Haproxy.started(tmp_path, frontends=frontend, pems={"both.pem": both}) as haproxy:
        bundle = haproxy.ca.bundle(WWW, SHOP)

        install(haproxy, bundle)

        assert haproxy.served(SHOP) == haproxy.served(WWW) == bundle.chain.fingerprint


def test_the_same_file_on_two_lines_is_replaced_on_both(tmp_path: Path) -> None:
    """IPv4 and IPv6 are two lines of one site."""
    frontend = (
        "frontend a\n"
        "    bind 127.0.0.1:@port@ ssl crt old.pem\n"
        "    bind 127.0.0.1:@other@ ssl crt old.pem\n"
    )
    with Haproxy.started(tmp_path, frontends=frontend) as haproxy:
        bundle = haproxy.ca.bundle(WWW)

        line = install(haproxy, bundle)

        assert "2 directives replaced" in line
        for port in (haproxy.port, haproxy.other):
            assert haproxy.served(WWW, port=port) == bundle.chain.fingerprint


def test_the_address_tells_two_lines_apart(tmp_path: Path) -> None:
    """Two services may have one name and certificates of their own."""
    second = TestCa().bundle(WWW)
    frontend = (
        "frontend a\n    bind 127.0.0.1:@port@ ssl crt old.pem\n"
        "frontend b\n    bind 127.0.0.1:@other@ ssl crt second.pem\n"
    )
    with Haproxy.started(tmp_path, frontends=frontend, pems={"second.pem": second}) as haproxy:
        bundle = haproxy.ca.bundle(WWW)
        with pytest.raises(InvalidRequest, match="several certificates"):
            install(haproxy, bundle)

        install(haproxy, bundle, listen=str(haproxy.other))

        assert haproxy.served(WWW, port=haproxy.other) == bundle.chain.fingerprint
        assert haproxy.served(WWW) == haproxy.old.chain.fingerprint
        found = {site.id: site.fingerprint for site in target(haproxy).sites()}
        assert len(found) == 2


def test_ecdsa_and_rsa_side_by_side(tmp_path: Path) -> None:
    """The one with the same kind of key is replaced; old clients keep theirs."""
    rsa = TestCa().bundle(WWW, rsa_key=True)
    frontend = "frontend a\n    bind 127.0.0.1:@port@ ssl crt old.pem crt rsa.pem\n"
    with Haproxy.started(tmp_path, frontends=frontend, pems={"rsa.pem": rsa}) as haproxy:
        bundle = haproxy.ca.bundle(WWW)
        before = haproxy.config.read_text()

        install(haproxy, bundle)

        (line,) = changed_lines(before, haproxy.config.read_text())
        assert "crt rsa.pem" in line
        assert "old.pem" not in line
        assert haproxy.served(WWW) == bundle.chain.fingerprint


LIST = (
    "# what the shop needs\r\n/@dir@/other.pem\nold.pem\t[alpn http/1.1 ]  *.shop.test "
    f"{WWW}  !old.shop.test\n"
)


def test_a_list_is_edited_where_it_names_the_certificate(tmp_path: Path) -> None:
    """Settings, names and the other lines stay, for both lines that use it; then it is undone."""
    frontend = (
        "frontend a\n    bind 127.0.0.1:@port@ ssl crt-list @dir@/list.txt\n"
        "    bind 127.0.0.1:@other@ ssl crt-list @dir@/list.txt crt old.pem\n"
    )
    list_file = tmp_path / "list.txt"
    list_file.write_text(LIST.replace("@dir@", str(tmp_path)))
    before = list_file.read_bytes()
    pems = {"other.pem": TestCa().bundle(SHOP)}
    with Haproxy.started(tmp_path, frontends=frontend, pems=pems) as haproxy:
        config = haproxy.config.read_bytes()
        names = {WWW, "a.shop.test", "b.shop.test", "*.shop.test"}
        few, all_of_them = haproxy.ca.bundle(WWW), haproxy.ca.bundle(*names)
        opened, site = target(haproxy, listen=str(haproxy.port)), site_of({"site": WWW})
        assert {one.settings["site"]: one.fingerprint for one in opened.sites()} == {
            SHOP: pems["other.pem"].chain.fingerprint,
            "*.shop.test": haproxy.old.chain.fingerprint,
            WWW: haproxy.old.chain.fingerprint,
        }
        with pytest.raises(InvalidRequest, match=r"also serves \*\.shop\.test"):
            opened.stage(site, few, None)

        staged = opened.stage(site, all_of_them, None)
        opened.activate(staged)

        (live,) = (tmp_path / "certrail").glob("*/live/combined.pem")
        assert list_file.read_bytes() == before.replace(b"old.pem", str(live).encode())
        assert haproxy.config.read_bytes() == config
        assert haproxy.served(WWW) == all_of_them.chain.fingerprint == opened.serving(site)
        assert haproxy.served("b.shop.test") == all_of_them.chain.fingerprint
        assert haproxy.served(SHOP) == pems["other.pem"].chain.fingerprint
        assert isinstance(opened, HaproxyTarget)
        assert not opened.plan(site, haproxy.ca.bundle(*names)).after

        opened.restore(staged)

        assert list_file.read_bytes() == before
        assert haproxy.served(WWW) == haproxy.old.chain.fingerprint


def test_a_folder_of_certificates_is_left_alone(tmp_path: Path) -> None:
    """Which file is meant cannot be said in its line; what the remedy says to write can be."""
    frontend = "frontend a\n    bind 127.0.0.1:@port@ ssl crt @dir@/certs\n"
    (tmp_path / "certs").mkdir()
    ca = TestCa()
    pems = {"certs/1.pem": ca.bundle(SHOP), "certs/2.pem": ca.bundle(WWW)}
    with Haproxy.started(tmp_path, frontends=frontend, pems=pems) as haproxy:
        (tmp_path / "certs" / "2.pem.ocsp").write_bytes(b"no certificate")
        before = haproxy.config.read_text()
        assert {one.settings["site"] for one in target(haproxy).sites()} == {SHOP, WWW}
        bundle = haproxy.ca.bundle(WWW)

        with pytest.raises(InvalidRequest, match=r"haproxy\.cfg:\d+ takes .*2\.pem") as caught:
            install(haproxy, bundle)

        assert haproxy.config.read_text() == before
        added = f"crt {tmp_path}/certs/2.pem crt {tmp_path}/certs"
        assert f"`{added}`" in caught.value.remedy
        haproxy.config.write_text(before.replace(f"crt {tmp_path}/certs", added))
        install(haproxy, bundle)
        assert haproxy.served(WWW) == bundle.chain.fingerprint
        assert haproxy.served(SHOP) == pems["certs/1.pem"].chain.fingerprint

        new = haproxy.ca.bundle("new.example.test")
        install(haproxy, new, site="new.example.test")
        assert haproxy.served("new.example.test") == new.chain.fingerprint


def test_a_list_that_cannot_be_found_is_named(tmp_path: Path) -> None:
    """It is relative to where HAProxy was started, and may have the name already."""
    frontend = f"frontend a\n    bind 127.0.0.1:@port@ ssl crt {tmp_path}/other.pem\n"
    with Haproxy.started(
        tmp_path, frontends=frontend, pems={"other.pem": TestCa().bundle(SHOP)}
    ) as haproxy:
        text = haproxy.config.read_text().replace("other.pem", "other.pem crt-list list.txt")
        haproxy.config.write_text(text)

        with pytest.raises(InvalidRequest, match=r"haproxy\.cfg:\d+ .* list\.txt"):
            target(haproxy).serving(site_of({"site": WWW}))


def test_without_a_tls_line_it_says_what_to_write(tmp_path: Path) -> None:
    """HAProxy has no half-configured TLS that could be completed."""
    frontend = "frontend a\n    bind 127.0.0.1:@port@\n"
    with (
        Haproxy.started(tmp_path, frontends=frontend) as haproxy,
        pytest.raises(InvalidRequest) as caught,
    ):
        install(haproxy, haproxy.ca.bundle(WWW))

    assert "ssl crt" in caught.value.remedy


def test_a_mistake_of_others_is_told_before_anything_is_changed(tmp_path: Path) -> None:
    """A reload would have been refused, and a restart would have been an outage."""
    with Haproxy.started(tmp_path) as haproxy:
        haproxy.config.write_text(haproxy.config.read_text() + "    bnd :1\n")

        with pytest.raises(ActivationRefused, match="before anything was changed"):
            install(haproxy, haproxy.ca.bundle(WWW))

        assert haproxy.served(WWW) == haproxy.old.chain.fingerprint
        assert not (tmp_path / "certrail").exists()


def test_a_certificate_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    """Between staging and activation another hand was at work."""
    with Haproxy.started(tmp_path) as haproxy:
        opened = target(haproxy)
        staged = opened.stage(site_of({"site": WWW}), haproxy.ca.bundle(WWW), None)
        haproxy.store("old.pem", haproxy.ca.bundle(WWW))

        with pytest.raises(Conflict, match="installed since"):
            target(haproxy).activate(staged)


def test_a_single_process_is_not_signalled(tmp_path: Path) -> None:
    """SIGUSR2 would end a HAProxy that has no master."""
    with Haproxy.started(tmp_path) as first:
        alone = tmp_path / "alone.cfg"
        port = free_port()
        alone.write_text(first.config.read_text().replace(str(first.port), str(port)))
        pid = tmp_path / "alone.pid"
        argv = [binary("haproxy", "haproxy"), "-db", "-f", str(alone), "-p", str(pid)]

        def ready() -> bool:
            try:
                first.served(WWW, port=port)
            except OSError:
                return False
            return True

        with running(argv, log=tmp_path / "alone.log", ready=ready) as process:
            pid.write_text(f"{process.pid}\n")

            with pytest.raises(ActivationRefused, match="no master process"):
                install(first, first.ca.bundle(WWW), config=str(alone), pid_file=str(pid))

            assert process.poll() is None
            assert first.served(WWW, port=port) == first.old.chain.fingerprint


def test_a_stale_pid_file_signals_nobody(tmp_path: Path) -> None:
    """The number may be another program's by now."""
    with (
        Haproxy.started(tmp_path) as haproxy,
        running(["sleep", "60"], log=tmp_path / "sleep.log") as stranger,
    ):
        stale = tmp_path / "stale.pid"
        stale.write_text(f"{stranger.pid}\n")

        with pytest.raises(ActivationRefused, match="no master process"):
            install(haproxy, haproxy.ca.bundle(WWW), pid_file=str(stale))

        assert stranger.poll() is None
        assert haproxy.served(WWW) == haproxy.old.chain.fingerprint


def test_a_reload_command_of_ones_own(tmp_path: Path) -> None:
    """Service managers other than systemd have theirs."""
    with Haproxy.started(tmp_path) as haproxy:
        bundle = haproxy.ca.bundle(WWW)
        command = ["kill", f"-{int(signal.SIGUSR2)}", str(haproxy.master)]

        install(haproxy, bundle, reload=command)

        assert haproxy.served(WWW) == bundle.chain.fingerprint


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """With what to set."""
    with (
        Haproxy.started(tmp_path) as haproxy,
        pytest.raises(NotFound, match="hapr0xy") as caught,
    ):
        target(haproxy, binary="hapr0xy").check()

    assert "binary" in caught.value.remedy


LAYOUTS = {
    "several addresses, IPv6, RSA beside ECDSA": "frontend a\n    bind 127.0.0.1:@port@,"
    "[::1]:@port@ ssl crt rsa.pem crt old.pem alpn http/1.1\n",
    "in a condition that holds, quoted": ".if version_atleast(2.4)\nfrontend b\n    bind "
    "127.0.0.1:@other@\n.endif\nfrontend a\n\n\tbind  :@port@\tssl  crt '@dir@/old.pem' # ours\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_edited_and_undone(layout: str, tmp_path: Path) -> None:
    """With windows line ends and bytes that are no text; twice is once, undone as before."""
    pems = {"rsa.pem": TestCa().bundle(WWW, rsa_key=True)}
    with Haproxy.started(tmp_path, frontends=LAYOUTS[layout], pems=pems) as haproxy:
        before = b"# \xff\xfe\r\n" + haproxy.config.read_bytes().replace(b"\n", b"\r\n")
        haproxy.config.write_bytes(before)
        opened, site = target(haproxy), site_of({"site": WWW})
        bundle = haproxy.ca.bundle(WWW)

        staged = opened.stage(site, bundle, haproxy.old.chain.fingerprint)
        opened.activate(staged)

        after = haproxy.config.read_bytes()
        changed = [line for line in after.splitlines() if line not in before.splitlines()]
        assert len(changed) == 1
        assert b"/certrail/" in changed[0]
        assert haproxy.accepts_configuration()
        assert haproxy.served(WWW) == bundle.chain.fingerprint == opened.serving(site)
        assert isinstance(opened, HaproxyTarget)
        assert not opened.plan(site, haproxy.ca.bundle(WWW)).after

        opened.restore(staged)

        assert haproxy.config.read_bytes() == before
        assert haproxy.accepts_configuration()
        assert haproxy.served(WWW) == haproxy.old.chain.fingerprint
