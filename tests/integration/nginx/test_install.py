"""A real nginx, real handshakes, on this machine and behind a real sshd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from certrail.connectors import Host
from certrail.errors import (
    ActivationRefused,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    StorageFull,
)
from certrail.model import Bundle, Fingerprint, Site, Staged
from certrail.remote.local import LocalHost
from certrail.remote.ssh import ssh_host
from certrail.remote.ssh_pool import SshPool
from certrail.remote.ssh_settings import SshSettings
from certrail.servers.nginx import NginxSettings, NginxTarget
from certrail.servers.registry import open_target, site_of
from tests.support.nginx import Nginx, store
from tests.support.process import wait_for
from tests.support.sshd import account, sshd

NAME = "www.example.test"
HERE = LocalHost("here")


def opened(nginx: Nginx, host: Host = HERE, **settings: object) -> tuple[NginxTarget, Site]:
    server = {**nginx.server, "site": NAME, **settings}
    target = open_target(host, server)
    assert isinstance(target, NginxTarget)
    return target, site_of(server)


def install(
    nginx: Nginx, bundle: Bundle, host: Host = HERE, **settings: object
) -> tuple[Staged, str]:
    target, site = opened(nginx, host, **settings)
    staged = target.stage(site, bundle, None)
    return staged, target.activate(staged)


def test_install_renew_and_restore(folder: Path, host: Host) -> None:
    """The whole life of a certificate, seen by a client after each step."""
    with Nginx.started(folder) as nginx:
        original = nginx.config.read_bytes()
        first, second = nginx.ca.bundle(NAME), nginx.ca.bundle(NAME)
        target, site = opened(nginx, host)

        staged = target.stage(site, first, nginx.old.chain.fingerprint)
        line = target.activate(staged)
        assert line.startswith(
            "nginx: 1 file, 2 directives replaced, configuration tested, reloaded in "
        )
        assert first.chain.fingerprint == nginx.served(NAME)

        renewed = target.stage(site, second, first.chain.fingerprint)
        line = target.activate(renewed)
        assert line.startswith("nginx: certificate version switched, no configuration changed")
        assert second.chain.fingerprint == nginx.served(NAME)

        target.restore(renewed)
        assert first.chain.fingerprint == nginx.served(NAME)
        target.restore(staged)
        assert nginx.old.chain.fingerprint == nginx.served(NAME)
        assert original == nginx.config.read_bytes()


def test_a_configuration_broken_before_is_reported_as_that(folder: Path, host: Host) -> None:
    """The certificate is not to blame for somebody's typo."""
    with Nginx.started(folder) as nginx:
        broken = nginx.config.read_bytes() + b"\nnonsense on;\n"
        nginx.config.write_bytes(broken)
        target, site = opened(nginx, host)

        with pytest.raises(ActivationRefused, match="before anything was changed") as caught:
            target.stage(site, nginx.ca.bundle(NAME), None)

        assert 'unknown directive "nonsense"' in str(caught.value)
        assert broken == nginx.config.read_bytes()
        assert not (folder / "certrail").exists()


def test_visitors_notice_nothing(folder: Path) -> None:
    """Clients that connect all the time see an old or a new certificate, never an error."""
    with Nginx.started(folder) as nginx, nginx.visitors(NAME) as visits:
        bundles = [nginx.ca.bundle(NAME) for _ in range(3)]
        for bundle in bundles:
            staged, _ = install(nginx, bundle)
        target, _ = opened(nginx)
        target.restore(staged)

    assert visits.failures == []
    known = {nginx.old.chain.fingerprint, *(bundle.chain.fingerprint for bundle in bundles)}
    assert set(visits.seen) <= known
    assert len(visits.seen) > 20


def test_after_activation_only_the_new_certificate_is_served(folder: Path) -> None:
    """`nginx -s reload` returns too early; a probe right after it would see the old one."""
    with Nginx.started(folder) as nginx:
        for _ in range(4):
            bundle = nginx.ca.bundle(NAME)
            install(nginx, bundle)

            assert {bundle.chain.fingerprint} == {nginx.served(NAME) for _ in range(10)}


PLAIN = """
    server {
        listen 127.0.0.1:@plain@;
        server_name www.example.test;
        location / { return 200 "plain\\n"; }
    }
"""


def test_tls_is_enabled_on_a_plain_site(folder: Path) -> None:
    """The first certificate of a site that had none."""
    with Nginx.started(folder, servers=PLAIN) as nginx:
        bundle = nginx.ca.bundle(NAME)

        staged, line = install(nginx, bundle, enable_tls=True, listen=f"127.0.0.1:{nginx.port}")

        assert "3 directives added" in line
        assert bundle.chain.fingerprint == nginx.served(NAME)
        target, site = opened(nginx, enable_tls=True, listen=f"127.0.0.1:{nginx.port}")
        assert bundle.chain.fingerprint == target.serving(site)
        target.restore(staged)
        assert nginx.filled(PLAIN) in nginx.config.read_text()


def test_a_reload_that_fails_after_a_good_test_is_noticed(folder: Path) -> None:
    """`nginx -t` does not see that a port is taken; the master goes on with the old workers."""
    with Nginx.started(folder) as nginx, Nginx.started(folder / "other") as other:
        servers = nginx.config.read_text().replace("\n}\n", f"{nginx.filled(PLAIN)}\n}}\n")
        before = servers.replace(f"{NAME};\n        location", "plain.test;\n        location")
        # Relative to the prefix, as nginx reads them.
        before = before.replace(f"pid {folder}/", "pid ").replace(f"log {folder}/", "log ")
        nginx.config.write_text(before)
        nginx.reload()
        target, site = opened(
            nginx,
            site="plain.test",
            enable_tls=True,
            listen=f"127.0.0.1:{other.port}",
            reload_timeout=3,
        )
        staged = target.stage(site, nginx.ca.bundle("plain.test"), None)

        with pytest.raises(ActivationRefused, match="did not take it over: bind"):
            target.activate(staged)

        assert before == nginx.config.read_text()
        assert nginx.accepts_configuration()
        assert nginx.old.chain.fingerprint == nginx.served(NAME)


def test_a_server_that_does_not_run_is_not_called_installed(folder: Path) -> None:
    """The files may be right, but nobody serves them."""
    with Nginx.started(folder) as nginx:
        pass
    target, site = opened(nginx)
    staged = target.stage(site, nginx.ca.bundle(NAME), None)
    before = nginx.config.read_bytes()

    with pytest.raises(ActivationRefused, match="did not take it over"):
        target.activate(staged)

    assert before == nginx.config.read_bytes()


TWO = """
    server { listen 127.0.0.1:@port@ ssl; server_name www.example.test;
        ssl_certificate @dir@/old.pem; ssl_certificate_key @dir@/old.key; return 200 a; }
    server { listen 127.0.0.1:@port@ ssl; server_name two.example.test;
        ssl_certificate @dir@/old.pem; ssl_certificate_key @dir@/old.key; return 200 b; }
"""


def test_sites_that_share_a_file_part_without_harm(folder: Path) -> None:
    """One certificate file for many sites is common; each site is renewed by itself."""
    with Nginx.started(folder, servers=TWO) as nginx:
        bundle = nginx.ca.bundle(NAME)

        install(nginx, bundle)

        assert bundle.chain.fingerprint == nginx.served(NAME)
        assert nginx.old.chain.fingerprint == nginx.served("two.example.test")
        assert nginx.old.chain.text == (folder / "old.pem").read_text()


def test_two_sites_of_one_file_staged_together_are_both_installed(folder: Path) -> None:
    """A bulk job stages many and activates them one by one; each edits what the last one left."""
    with Nginx.started(folder, servers=TWO) as nginx:
        original = nginx.config.read_bytes()
        names = (NAME, "two.example.test")
        bundles = {name: nginx.ca.bundle(name) for name in names}
        targets = {name: opened(nginx, site=name) for name in names}
        staged = {
            name: target.stage(site, bundles[name], None)
            for name, (target, site) in targets.items()
        }

        for name in names:
            targets[name][0].activate(staged[name])
        for name in names:
            assert bundles[name].chain.fingerprint == nginx.served(name)

        # The first is taken back although the second has edited the same file since.
        targets[NAME][0].restore(staged[NAME])
        assert nginx.old.chain.fingerprint == nginx.served(NAME)
        assert bundles["two.example.test"].chain.fingerprint == nginx.served("two.example.test")
        targets["two.example.test"][0].restore(staged["two.example.test"])
        assert original == nginx.config.read_bytes()


def test_a_copied_block_does_not_lose_its_names(folder: Path) -> None:
    """Somebody copied our lines to another site, which the next certificate does not cover."""
    with Nginx.started(folder, servers=TWO) as nginx:
        install(nginx, nginx.ca.bundle(NAME, "two.example.test"))
        text = nginx.config.read_text()
        live = folder / "certrail" / NAME / "live"
        nginx.config.write_text(
            text.replace(f"{folder}/old.pem", f"{live}/fullchain.pem").replace(
                f"{folder}/old.key", f"{live}/privkey.pem"
            )
        )
        target, site = opened(nginx)

        with pytest.raises(InvalidRequest, match=r"no longer covers two\.example\.test"):
            target.stage(site, nginx.ca.bundle(NAME), None)

        target.stage(site, nginx.ca.bundle(NAME, "two.example.test"), None)


PAIR = """
    server {
        listen 127.0.0.1:@port@ ssl;
        server_name www.example.test;
        ssl_certificate @dir@/rsa.pem;
        ssl_certificate_key @dir@/rsa.key;
        ssl_certificate @dir@/old.pem;
        ssl_certificate_key @dir@/old.key;
    }
"""


def test_of_an_rsa_and_an_ecdsa_certificate_each_is_renewed_alone(folder: Path) -> None:
    """Old clients get RSA, new ones ECDSA, and neither renewal disturbs the other."""
    with Nginx.started(folder, servers=PLAIN) as nginx:
        rsa = nginx.ca.bundle(NAME, rsa_key=True)
        store(folder / "rsa", rsa)
        nginx.write("nginx.conf", nginx.config.read_text().replace(nginx.filled(PLAIN), PAIR))
        nginx.reload()
        renewed = {kind: nginx.ca.bundle(NAME, rsa_key=kind == "RSA") for kind in ("EC", "RSA")}

        install(nginx, renewed["EC"])
        assert renewed["EC"].chain.fingerprint == nginx.served(NAME)
        assert rsa.chain.fingerprint == nginx.served(NAME, rsa_only=True)

        install(nginx, renewed["RSA"])
        assert renewed["EC"].chain.fingerprint == nginx.served(NAME)
        assert renewed["RSA"].chain.fingerprint == nginx.served(NAME, rsa_only=True)

        again = nginx.ca.bundle(NAME)
        install(nginx, again)
        assert again.chain.fingerprint == nginx.served(NAME)
        assert renewed["RSA"].chain.fingerprint == nginx.served(NAME, rsa_only=True)


def test_a_second_kind_is_added_beside(folder: Path) -> None:
    """`key_types: add` gives old clients a certificate of their own."""
    with Nginx.started(folder) as nginx:
        first, rsa = nginx.ca.bundle(NAME), nginx.ca.bundle(NAME, rsa_key=True)
        install(nginx, first)

        staged, line = install(nginx, rsa, key_types="add")

        assert "2 directives added" in line
        assert first.chain.fingerprint == nginx.served(NAME)
        assert rsa.chain.fingerprint == nginx.served(NAME, rsa_only=True)
        opened(nginx)[0].restore(staged)
        assert first.chain.fingerprint == nginx.served(NAME)


def test_a_site_in_a_linked_file_is_edited_where_it_lies(folder: Path) -> None:
    """Debian enables sites by links; the link stays a link, the mode stays the mode."""
    block = PAIR.replace("@dir@/rsa", "@dir@/old").replace(
        "        ssl_certificate @dir@/old.pem;\n        ssl_certificate_key @dir@/old.key;\n",
        "",
        1,
    )
    files = {"sites-available/www": block}
    (folder / "sites-enabled").mkdir(parents=True)
    (folder / "sites-enabled" / "www").symlink_to("../sites-available/www")
    with Nginx.started(folder, servers="include sites-enabled/*;", files=files) as nginx:
        real = folder / "sites-available" / "www"
        real.chmod(0o640)
        bundle = nginx.ca.bundle(NAME)

        install(nginx, bundle)

        assert bundle.chain.fingerprint == nginx.served(NAME)
        assert (folder / "sites-enabled" / "www").is_symlink()
        assert real.stat().st_mode & 0o7777 == 0o640


def test_an_edit_made_since_is_kept_when_restoring(folder: Path) -> None:
    """Someone's work of today must not vanish with our change of yesterday."""
    with Nginx.started(folder) as nginx:
        staged, _ = install(nginx, nginx.ca.bundle(NAME))
        edited = nginx.config.read_text().replace("location /", "# mine\n        location /", 1)
        nginx.config.write_text(edited)

        opened(nginx)[0].restore(staged)

        assert nginx.old.chain.fingerprint == nginx.served(NAME)
        assert "# mine" in nginx.config.read_text()
        assert "certrail" not in nginx.config.read_text()


def test_what_cannot_be_put_back_is_said_line_by_line(folder: Path) -> None:
    """A person can do what we must not guess."""
    with Nginx.started(folder) as nginx:
        bundle = nginx.ca.bundle(NAME)
        staged, _ = install(nginx, bundle)
        live = f"{folder}/certrail/{NAME}/live/fullchain.pem"
        text = nginx.config.read_text() + f"# remember: {live}\n"
        nginx.config.write_text(text)

        with pytest.raises(Conflict, match="was edited since") as caught:
            opened(nginx)[0].restore(staged)

        assert f"by `{folder}/old.pem`" in caught.value.remedy
        assert text == nginx.config.read_text()
        assert bundle.chain.fingerprint == nginx.served(NAME)
        assert "live already" in opened(nginx)[0].activate(staged)


def test_another_certificate_since_staging_is_a_conflict(folder: Path) -> None:
    """The slower of two requests must not undo the faster."""
    with Nginx.started(folder) as nginx:
        target, site = opened(nginx)
        slow = target.stage(site, nginx.ca.bundle(NAME), None)
        fast = nginx.ca.bundle(NAME)
        install(nginx, fast)

        with pytest.raises(Conflict):
            target.activate(slow)

        assert fast.chain.fingerprint == nginx.served(NAME)


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    directory.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_leaves_nothing_behind(folder: Path, tmp_path: Path, host: Host) -> None:
    """The old certificate goes on serving and the next attempt starts clean."""
    disk = tmp_path / "disk"
    with Nginx.started(folder) as nginx, small_disk(disk, "64k"):
        filler = disk / "filler"
        filler.write_bytes(b"x" * 56 * 1024)
        target, site = opened(nginx, host, directory=str(disk / "certrail"))
        bundle = nginx.ca.bundle(*(f"n{number}.example.test" for number in range(300)), NAME)

        with pytest.raises(StorageFull) as caught:
            target.stage(site, bundle, None)

        assert caught.value.retryable
        assert nginx.old.chain.fingerprint == nginx.served(NAME)
        assert [path.name for path in disk.iterdir()] == ["filler"]

        filler.unlink()
        target.activate(target.stage(site, bundle, None))
        assert bundle.chain.fingerprint == nginx.served(NAME)


def test_a_disk_that_fills_up_before_activation_changes_nothing(
    folder: Path, tmp_path: Path
) -> None:
    """The maintenance window may be days after staging."""
    disk = tmp_path / "disk"
    with Nginx.started(folder) as nginx, small_disk(disk, "64k"):
        target, site = opened(nginx, directory=str(disk / "certrail"))
        before = nginx.config.read_bytes()
        bundle = nginx.ca.bundle(NAME)
        staged = target.stage(site, bundle, None)
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"x" * 100 * 1024)

        with pytest.raises(StorageFull):
            target.activate(staged)

        assert before == nginx.config.read_bytes()
        assert nginx.old.chain.fingerprint == nginx.served(NAME)
        filler.unlink()
        target.activate(staged)
        assert bundle.chain.fingerprint == nginx.served(NAME)


def test_a_site_rearranged_since_staging_is_staged_again(folder: Path) -> None:
    """Someone put an RSA certificate of ours beside it; both in one directory would collide."""
    with Nginx.started(folder) as nginx:
        target, site = opened(nginx)
        rsa = nginx.ca.bundle(NAME, rsa_key=True)
        waiting = target.stage(site, nginx.ca.bundle(NAME), None)
        install(nginx, rsa)
        text = nginx.config.read_text().replace(
            "        location /",
            f"        ssl_certificate {folder}/old.pem; ssl_certificate_key {folder}/old.key;\n"
            "        location /",
            1,
        )
        nginx.config.write_text(text)

        with pytest.raises(ActivationRefused, match="rearranged since"):
            target.activate(waiting)

        again = target.stage(site, nginx.ca.bundle(NAME), None)
        target.activate(again)
        assert again.fingerprint == nginx.served(NAME)
        assert rsa.chain.fingerprint == nginx.served(NAME, rsa_only=True)


def test_restoring_after_a_later_certificate_is_a_conflict(folder: Path) -> None:
    """Going back two steps would bring back a certificate that is no longer wanted."""
    with Nginx.started(folder) as nginx:
        first, _ = install(nginx, nginx.ca.bundle(NAME))
        second = nginx.ca.bundle(NAME)
        install(nginx, second)

        with pytest.raises(Conflict, match="another certificate was installed since"):
            opened(nginx)[0].restore(first)

        assert second.chain.fingerprint == nginx.served(NAME)


def test_old_versions_are_removed(folder: Path) -> None:
    """Keys of certificates that nobody needs any more must not pile up."""
    with Nginx.started(folder) as nginx:
        fingerprints: list[Fingerprint] = []
        for _ in range(5):
            bundle = nginx.ca.bundle(NAME)
            staged, _ = install(nginx, bundle, keep_versions=2)
            opened(nginx, keep_versions=2)[0].discard(staged)
            fingerprints.append(bundle.chain.fingerprint)

        kept = {path.name for path in (folder / "certrail" / NAME / "versions").iterdir()}

        assert {one[:16] for one in fingerprints[-3:]} == kept
        assert nginx.served(NAME) == fingerprints[-1]


def test_key_files_get_owner_and_mode(folder: Path) -> None:
    """An nginx whose master is not root reads the key through a group."""
    with Nginx.started(folder) as nginx:
        staged, _ = install(nginx, nginx.ca.bundle(NAME), key_mode="0640", key_group="daemon")

        key = folder / "certrail" / NAME / "live" / "privkey.pem"
        assert key.stat().st_mode & 0o7777 == 0o640
        assert key.group() == "daemon"
        assert staged.summary.startswith("nginx: 1 file, 2 directives replaced (ECDSA P-256 for ")


def test_a_reload_by_pid_or_by_command(folder: Path) -> None:
    """Not every nginx is started the way its configuration says."""
    with Nginx.started(folder) as nginx:
        ways: list[dict[str, Any]] = [
            {"pid_file": str(folder / "nginx.pid")},
            {"reload": ["sh", "-c", f"kill -HUP $(cat {folder}/nginx.pid)"]},
        ]
        for way in ways:
            bundle = nginx.ca.bundle(NAME)

            install(nginx, bundle, **way)

            assert bundle.chain.fingerprint == nginx.served(NAME)


def test_hundreds_of_sites(folder: Path) -> None:
    """Inventory lists them all, and one of them is changed among the others."""
    sites = "".join(
        TWO.replace("www.example", f"w{number}.example").replace(
            "two.example", f"t{number}.example"
        )
        for number in range(150)
    )
    with Nginx.started(folder, servers=sites) as nginx:
        target, site = opened(nginx, site="w75.example.test")
        found = list(target.sites())
        bundle = nginx.ca.bundle("w75.example.test")

        target.activate(target.stage(site, bundle, None))

        assert len({one.id for one in found}) == 300
        assert {nginx.old.chain.fingerprint} == {one.fingerprint for one in found}
        assert bundle.chain.fingerprint == nginx.served("w75.example.test")
        assert nginx.old.chain.fingerprint == nginx.served("w76.example.test")
        assert sum(one.fingerprint == bundle.chain.fingerprint for one in target.sites()) == 1


def test_check_says_what_answered(folder: Path, host: Host) -> None:
    """The first thing a person tries."""
    with Nginx.started(folder) as nginx:
        target = NginxTarget(host, NginxSettings.parse(nginx.server))

        assert target.check().startswith(f"nginx/1.22.1 on {host.name}, {nginx.config}: 1 server")


def test_where_processes_cannot_be_seen_the_exit_code_decides(folder: Path) -> None:
    """A container or a stale pid file must not turn a good reload into a failed one."""
    with Nginx.started(folder) as nginx:
        command = ["sh", "-c", f"kill -HUP $(cat {folder}/nginx.pid)"]
        stale = folder / "stale.pid"
        for content in ("", "nonsense", "1"):
            stale.write_text(content)
            bundle = nginx.ca.bundle(NAME)
            expected = bundle.chain.fingerprint

            install(nginx, bundle, reload=command, pid_file=str(stale))

            wait_for(partial(lambda one: nginx.served(NAME) == one, expected), "new one served")

        target, site = opened(nginx, reload=["sh", "-c", "echo not today >&2; exit 3"])
        staged = target.stage(site, nginx.ca.bundle(NAME), None)
        with pytest.raises(ActivationRefused, match="did not take it over: not today"):
            target.activate(staged)
        # Workers of before a reload may answer once more.
        wait_for(lambda: expected == nginx.served(NAME), "the one before serves")


def test_an_account_that_may_not_test_is_told_so(tmp_path: Path) -> None:
    """Not the configuration is wrong but the login."""
    with (
        account() as user,
        Nginx.started(user.home / "nginx") as nginx,
        sshd(tmp_path / "sshd") as server,
    ):
        (nginx.directory / "old.key").chmod(0o600)
        settings = SshSettings(
            host="127.0.0.1",
            port=server.port,
            username=user.name,
            private_key_file=str(server.key_file),
            known_hosts_file=str(server.known_hosts),
        )
        pool = SshPool()
        with ssh_host(settings, pool=pool) as host:
            target, site = opened(nginx, host)
            with pytest.raises(PermissionRefused) as caught:
                target.stage(site, nginx.ca.bundle(NAME), None)
        pool.close()

        assert "sudo: true" in caught.value.remedy


def test_a_program_that_is_not_there_is_named(folder: Path) -> None:
    """Compiled by hand, it is often not on the path."""
    with Nginx.started(folder) as nginx:
        target, site = opened(nginx, binary="/opt/nginx/sbin/nginx")

        with pytest.raises(NotFound, match="/opt/nginx/sbin/nginx cannot be run") as caught:
            target.stage(site, nginx.ca.bundle(NAME), None)

        assert "binary" in caught.value.remedy


def test_a_dry_run_shows_the_lines(folder: Path) -> None:
    """People want to see the change before it is made."""
    with Nginx.started(folder) as nginx:
        target, site = opened(nginx)
        before = nginx.config.read_bytes()

        plan = target.plan(site, nginx.ca.bundle(NAME))

        live = f"{folder}/certrail/{NAME}/live"
        changed = [line for line in plan.diff().splitlines() if line[:1] in "+-"][2:]
        assert [
            f"-        ssl_certificate     {folder}/old.pem; # from last year",
            f"-        ssl_certificate_key {folder}/old.key;",
            f"+        ssl_certificate     {live}/fullchain.pem; # from last year",
            f"+        ssl_certificate_key {live}/privkey.pem;",
        ] == changed
        assert plan.summary == "1 file, 2 directives replaced"
        assert before == nginx.config.read_bytes()


def test_a_staged_certificate_of_another_directory_is_refused(folder: Path) -> None:
    """What comes back from storage decides which directory is removed."""
    with Nginx.started(folder) as nginx:
        target, site = opened(nginx)
        staged = target.stage(site, nginx.ca.bundle(NAME), None)
        for directory in ("/etc", f"{folder}/certrail/..", f"{folder}/certrail/a/../../b"):
            forged = replace(staged, data={**staged.data, "directory": directory})
            with pytest.raises(InvalidRequest, match="was staged in"):
                target.discard(forged)


def test_a_broken_configuration_after_staging_is_not_blamed_on_the_certificate(
    folder: Path,
) -> None:
    """Days may lie between staging and the maintenance window."""
    with Nginx.started(folder) as nginx:
        target, site = opened(nginx)
        staged = target.stage(site, nginx.ca.bundle(NAME), None)
        broken = nginx.config.read_bytes() + b"\nnonsense on;\n"
        nginx.config.write_bytes(broken)

        with pytest.raises(ActivationRefused, match="as it is, before anything was changed"):
            target.activate(staged)

        assert broken == nginx.config.read_bytes()
        assert nginx.old.chain.fingerprint == nginx.served(NAME)
