"""HAProxy's Runtime API where it is at its worst, with both versions that are packaged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.targets.haproxy import HaproxyRuntimeTarget, RuntimeApi
from certrail.connectors import Host
from certrail.errors import (
    ActivationRefused,
    Busy,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    StorageFull,
    Unreachable,
)
from certrail.model import Site
from certrail.remote.local import LocalHost
from tests.contract.install_cases import staged_chain
from tests.support.haproxy_runtime import HaproxyRuntime, debian, wheel
from tests.support.process import free_port

SITE = "www.example.test"
QUICK = timedelta(seconds=2)


@pytest.fixture(params=[debian, wheel], ids=["2.6", "2.8"])
def haproxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HaproxyRuntime]:
    """A running HAProxy of each version."""
    with HaproxyRuntime.running(tmp_path, request.param()) as running:
        yield running


def target(haproxy: HaproxyRuntime, host: Host | None = None) -> HaproxyRuntimeTarget:
    """Return a target as a fresh process would."""
    return HaproxyRuntimeTarget(RuntimeApi(haproxy.socket, "lb", QUICK), host or LocalHost("here"))


def pem(haproxy: HaproxyRuntime) -> str:
    """Return another certificate with its key, as the socket takes it."""
    bundle = haproxy.ca.bundle(SITE)
    assert bundle.key is not None
    return bundle.chain.text + bundle.key.reveal().decode()


def test_a_restart_keeps_the_new_certificate(haproxy: HaproxyRuntime) -> None:
    """The API changes memory only; the file is what the next start reads."""
    bundle = haproxy.ca.bundle(SITE)
    assert bundle.key is not None
    one = target(haproxy)
    one.activate(one.stage(Site(str(haproxy.file)), bundle, None))

    content = haproxy.file.read_bytes()

    assert content == bundle.chain.text.encode() + bundle.key.reveal().strip() + b"\n"
    assert haproxy.accepts_configuration()


def test_another_ones_transaction_is_left_alone(haproxy: HaproxyRuntime) -> None:
    """HAProxy 2.6 would put our pair into it and report success."""
    haproxy.command("new ssl cert /elsewhere.pem")
    haproxy.command("set ssl cert /elsewhere.pem", pem(haproxy))
    theirs = haproxy.command("show ssl cert */elsewhere.pem")
    one = target(haproxy)
    staged = one.stage(Site(str(haproxy.file)), haproxy.ca.bundle(SITE), None)

    with pytest.raises(Busy, match=r"elsewhere\.pem") as caught:
        one.activate(staged)

    assert "abort ssl cert" in caught.value.remedy
    assert theirs == haproxy.command("show ssl cert */elsewhere.pem")
    assert haproxy.old.chain.fingerprint == haproxy.served(SITE)


def test_a_transaction_of_our_own_is_finished_after_a_crash(haproxy: HaproxyRuntime) -> None:
    """Killed between `set` and `commit`: nobody has to clean up by hand."""
    bundle = haproxy.ca.bundle(SITE)
    assert bundle.key is not None
    staged = target(haproxy).stage(Site(str(haproxy.file)), bundle, None)
    haproxy.command(
        f"set ssl cert {haproxy.file}", bundle.chain.text + bundle.key.reveal().decode()
    )

    target(haproxy).activate(staged)

    assert bundle.chain.fingerprint == haproxy.served(SITE)
    assert "# transaction" not in haproxy.command("show ssl cert")


def test_killed_between_memory_and_file(haproxy: HaproxyRuntime) -> None:
    """The other half is done by the next try, and can still be undone."""
    bundle = haproxy.ca.bundle(SITE)
    assert bundle.key is not None
    site = Site(str(haproxy.file))
    before = haproxy.file.read_bytes()
    staged = target(haproxy).stage(site, bundle, None)
    haproxy.command(
        f"set ssl cert {haproxy.file}", bundle.chain.text + bundle.key.reveal().decode()
    )
    haproxy.command(f"commit ssl cert {haproxy.file}")
    assert before == haproxy.file.read_bytes()

    assert staged.fingerprint == target(haproxy).serving(site)
    target(haproxy).activate(staged)
    assert bundle.chain.text.encode() in haproxy.file.read_bytes()
    target(haproxy).restore(staged)

    assert before == haproxy.file.read_bytes()
    assert haproxy.old.chain.fingerprint == haproxy.served(SITE)


def test_memory_that_is_in_no_file_is_a_conflict(haproxy: HaproxyRuntime) -> None:
    """Without its key it could never be put back."""
    haproxy.command(f"set ssl cert {haproxy.file}", pem(haproxy))
    haproxy.command(f"commit ssl cert {haproxy.file}")

    with pytest.raises(Conflict) as caught:
        target(haproxy).serving(Site(str(haproxy.file)))

    assert "reload" in caught.value.remedy


def test_changed_by_somebody_between_stage_and_activate(haproxy: HaproxyRuntime) -> None:
    """Their certificate stays."""
    one = target(haproxy)
    staged = one.stage(Site(str(haproxy.file)), haproxy.ca.bundle(SITE), None)
    theirs = haproxy.ca.bundle(SITE)
    haproxy.store("old.pem", theirs)
    content = haproxy.file.read_text()
    haproxy.command(f"set ssl cert {haproxy.file}", content)
    haproxy.command(f"commit ssl cert {haproxy.file}")

    with pytest.raises(Conflict):
        one.activate(staged)

    assert theirs.chain.fingerprint == haproxy.served(SITE)


class FullDisk(LocalHost):
    """A machine whose disk is full by the time the live file is written."""

    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        if path.endswith("/old.pem"):
            raise StorageFull("no space left on device")
        super().write_file(path, content, mode=mode, owner=owner, group=group)


def test_a_full_disk_is_said_and_healed_by_a_retry(haproxy: HaproxyRuntime) -> None:
    """Memory has the new certificate and the file the old one: a restart would go back."""
    bundle = haproxy.ca.bundle(SITE)
    staged = target(haproxy).stage(Site(str(haproxy.file)), bundle, None)

    with pytest.raises(StorageFull) as caught:
        target(haproxy, FullDisk("here")).activate(staged)
    assert "memory has it" in caught.value.remedy

    target(haproxy).activate(staged)
    assert bundle.chain.text.encode() in haproxy.file.read_bytes()


def test_an_unknown_file_names_those_there_are(haproxy: HaproxyRuntime) -> None:
    """Its name is what HAProxy calls it, not what people do."""
    with pytest.raises(NotFound) as caught:
        target(haproxy).serving(Site("/etc/haproxy/other.pem"))

    assert str(haproxy.file) in caught.value.remedy


@pytest.mark.parametrize("site", ["old.pem", "/a b.pem", "/a;del", "/a\nshutdown", "/a/../b", ""])
def test_a_site_is_never_a_second_command(site: str) -> None:
    """The socket takes several commands on one line."""
    one = HaproxyRuntimeTarget(RuntimeApi("/nowhere", "lb"), LocalHost("here"))

    with pytest.raises(InvalidRequest):
        one.serving(Site(site))


def test_a_socket_without_rights_is_told_at_the_check(haproxy: HaproxyRuntime) -> None:
    """`level operator` shows certificates and refuses to change them."""
    api = RuntimeApi(str(haproxy.directory / "operator.sock"), "lb", QUICK)

    with pytest.raises(PermissionRefused) as caught:
        HaproxyRuntimeTarget(api, LocalHost("here")).check()
    assert "level admin" in caught.value.remedy
    staged = target(haproxy).stage(Site(str(haproxy.file)), haproxy.ca.bundle(SITE), None)
    with pytest.raises(PermissionRefused):
        HaproxyRuntimeTarget(api, LocalHost("here")).activate(staged)


def test_the_socket_on_tcp(haproxy: HaproxyRuntime) -> None:
    """The same API on a port."""
    api = RuntimeApi.at(f"127.0.0.1:{haproxy.other}", label="lb", timeout=QUICK)

    assert HaproxyRuntimeTarget(api, LocalHost("here")).check().startswith("HAProxy 2.")


@pytest.mark.parametrize("address", ["lb.example.test:9999", "192.0.2.1:9999"])
def test_keys_do_not_travel_in_clear_text_unasked(address: str) -> None:
    """The socket has neither encryption nor a password."""
    with pytest.raises(InvalidRequest, match="clear text"):
        RuntimeApi.at(address, label="lb", timeout=QUICK)
    assert RuntimeApi.at(address, label="lb", timeout=QUICK, allow_cleartext=True)


@pytest.mark.parametrize("address", ["admin.sock", "host:", "host:0", ":99", "host:99999", ""])
def test_addresses_that_are_none(address: str) -> None:
    """Told at once, not after a time-out."""
    with pytest.raises(InvalidRequest):
        RuntimeApi.at(address, label="lb", timeout=QUICK)


def test_nothing_listens(tmp_path: Path) -> None:
    """Said with what to look for."""
    for address in (("127.0.0.1", free_port()), str(tmp_path / "none.sock")):
        with pytest.raises(Unreachable) as caught:
            HaproxyRuntimeTarget(RuntimeApi(address, "lb"), LocalHost("here")).check()
        assert "stats socket" in caught.value.remedy


LISTED = """\
frontend www
    bind 127.0.0.1:@port@ ssl crt-list @dir@/list.txt alpn http/1.1
    http-request return status 200
"""


@pytest.fixture(params=[debian, wheel], ids=["2.6", "2.8"])
def listed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HaproxyRuntime]:
    """A running HAProxy whose listener has a crt-list."""
    (tmp_path / "list.txt").write_text(f"# kept\n{tmp_path}/old.pem [alpn http/1.1]\n")
    with HaproxyRuntime.running(tmp_path, request.param(), frontends=LISTED) as running:
        yield running


def test_a_new_name_is_added_to_a_list_and_taken_back(listed: HaproxyRuntime) -> None:
    """Without a reload, and the next start has it as well."""
    name = "new.example.test"
    before = (listed.directory / "list.txt").read_text()
    file = listed.directory / "new.pem"
    site = Site(str(file), settings={"crt_list": str(listed.directory / "list.txt")})
    one = target(listed)
    assert one.serving(site) is None
    staged = one.stage(site, listed.ca.bundle(name), None)

    one.activate(staged)
    target(listed).activate(staged)
    assert staged.fingerprint == listed.served(name) == one.serving(site)
    assert listed.old.chain.fingerprint == listed.served(SITE)
    assert (listed.directory / "list.txt").read_text() == f"{before}{file}\n"
    assert file.stat().st_mode & 0o7777 == 0o600
    assert listed.accepts_configuration()

    target(listed).restore(staged)
    target(listed).restore(staged)
    one.discard(staged)
    assert listed.old.chain.fingerprint == listed.served(name)
    assert not file.exists()
    assert str(file) not in listed.command("show ssl cert")
    assert (listed.directory / "list.txt").read_text() == before


@pytest.mark.parametrize("done", ["new ssl cert", "committed", "listed"])
def test_killed_while_a_new_one_is_added(listed: HaproxyRuntime, done: str) -> None:
    """Every half can be finished."""
    name = "new.example.test"
    file = listed.directory / "new.pem"
    crt_list = str(listed.directory / "list.txt")
    bundle = listed.ca.bundle(name)
    assert bundle.key is not None
    one = target(listed)
    staged = one.stage(Site(str(file), settings={"crt_list": crt_list}), bundle, None)
    listed.command(f"new ssl cert {file}")
    if done != "new ssl cert":
        content = bundle.chain.text + bundle.key.reveal().decode()
        listed.command(f"set ssl cert {file}", content)
        listed.command(f"commit ssl cert {file}")
    if done == "listed":
        listed.command(f"add ssl crt-list {crt_list} {file}")

    target(listed).activate(staged)

    assert bundle.chain.fingerprint == listed.served(name)
    assert str(file) in (listed.directory / "list.txt").read_text()


def test_a_refused_new_one_leaves_nothing(listed: HaproxyRuntime) -> None:
    """The pair does not match by the time HAProxy sees it."""
    before = listed.command("show ssl cert"), (listed.directory / "list.txt").read_text()
    file = listed.directory / "new.pem"
    site = Site(str(file), settings={"crt_list": str(listed.directory / "list.txt")})
    one = target(listed)
    staged = one.stage(site, listed.ca.bundle("new.example.test"), None)
    (pem_file,) = listed.directory.glob(".new.pem.*.new")
    other = listed.ca.bundle(SITE).key
    assert other is not None
    pem_file.write_bytes(staged_chain(pem_file.read_bytes()) + other.reveal())

    with pytest.raises(ActivationRefused):
        one.activate(staged)

    after = listed.command("show ssl cert"), (listed.directory / "list.txt").read_text()
    assert before == after
    assert not file.exists()


def test_an_unknown_list_names_those_there_are(listed: HaproxyRuntime) -> None:
    """Before anything is written."""
    site = Site(str(listed.directory / "new.pem"), settings={"crt_list": "/etc/none.txt"})
    with pytest.raises(NotFound) as caught:
        target(listed).stage(site, listed.ca.bundle("new.example.test"), None)

    assert "list.txt" in caught.value.remedy
    assert not list(listed.directory.glob(".new.pem*"))
