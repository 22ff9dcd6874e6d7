"""An account with a few lines of sudoers, behind a real sshd."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from blocks.hosts.ssh import SshMachine
from certrail.errors import InvalidRequest, PermissionRefused, Unreachable
from certrail.remote.local import LocalHost
from certrail.remote.posix_host import PosixHost
from certrail.servers.registry import open_target, site_of
from certrail.servers.sudoers import commands, lines
from tests.support.nginx import Nginx
from tests.support.process import let_in, wait_for
from tests.support.sshd import Account, Sshd, account, over_ssh, sshd

NAME = "www.example.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd"), options=["LogLevel DEBUG1"]) as running:
        yield running


@contextmanager
def listed(user: Account, rules: Iterable[str]) -> Iterator[None]:
    """Put *rules* into sudoers, as visudo would."""
    path = Path("/etc/sudoers.d") / user.name
    path.touch(mode=0o440)
    path.write_text("\n".join(rules) + "\n")
    try:
        subprocess.run(["visudo", "-cqf", str(path)], check=True, capture_output=True)
        yield
    finally:
        path.unlink()


@contextmanager
def machine(server: Sshd, user: Account, **changes: object) -> Iterator[PosixHost]:
    with over_ssh(server, user, "web01", changes, sudo_listed=True) as host:
        yield host


def test_these_lines_renew_nginx(server: Sshd, tmp_path: Path) -> None:
    """Exactly what `certrail connector sudoers` prints, and not a word more."""
    folder = tmp_path / "nginx"
    with Nginx.started(folder) as nginx, account() as user:
        settings = {**nginx.server, "site": NAME}
        let_in(folder)
        for owned in (folder, nginx.config):
            shutil.chown(owned, user.name, user.name)
        with machine(server, user) as host:
            target, site = open_target(host, settings), site_of(settings)
            with pytest.raises(PermissionRefused):
                target.stage(site, nginx.ca.bundle(NAME), None)
        assert not (folder / "certrail").exists()

        rules = lines(user.name, commands(settings, LocalHost("here")))
        with listed(user, rules), machine(server, user) as host:
            for bundle in (nginx.ca.bundle(NAME), nginx.ca.bundle(NAME)):
                target = open_target(host, settings)
                target.activate(target.stage(site, bundle, None))
                assert bundle.chain.fingerprint == nginx.served(NAME)
            (key,) = folder.rglob("live/privkey.pem")
            assert key.stat().st_uid == nginx.config.stat().st_uid != 0
            # Anything else is the account's own doing.
            assert host.run(["id", "-un"]).stdout.decode().strip() == user.name
            host.run(["nginx", "-p", f"{folder}/", "-c", str(nginx.config), "-s", "stop"])
            assert host.run(["sudo", "-n", "--", "id"]).exit_code != 0
            assert bundle.chain.fingerprint == nginx.served(NAME)


def test_a_hung_command_holds_nobody(server: Sshd) -> None:
    """Here it is given up at its deadline; there, sudo ends it."""
    hanging = ["sleep", "31.7"]
    with account() as user:
        (rule,) = lines(user.name, [(["/usr/bin/sleep", "31.7"], 60)])
        assert "TIMEOUT=70" in rule
        with (
            listed(user, [rule.replace("TIMEOUT=70", "TIMEOUT=3")]),
            machine(server, user) as host,
        ):
            with pytest.raises(Unreachable, match="did not finish within 1 s"):
                host.run(hanging, timeout=timedelta(seconds=1))
            assert host.run(["id", "-un"]).stdout.decode().strip() == user.name
            wait_for(lambda: not _running(hanging), "sudo ends it", within=30)


def _running(argv: list[str]) -> list[psutil.Process]:
    return [
        one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[-2:] == argv
    ]


def test_an_idle_connection_is_kept_alive(server: Sshd, tmp_path: Path) -> None:
    """Firewalls forget a connection on which nothing is said while a CA or a server takes time."""
    with account() as user, machine(server, user, keepalive=timedelta(seconds=1)) as host:
        wait_for(
            lambda: "keepalive@" in server.log.read_text(errors="replace"),
            "a keep-alive message has arrived",
            within=30,
        )
        assert host.run(["true"]).exit_code == 0


def test_lines_name_whole_commands() -> None:
    """A program without arguments in sudoers allows any; blanks and colons have a meaning there."""
    assert lines("op", [(["/opt/reload now", "a:b,c=d"], 5), (["/opt/x"], 5)]) == [
        "op ALL=(root) TIMEOUT=15 NOPASSWD: /opt/reload\\ now a\\:b\\,c\\=d",
        'op ALL=(root) TIMEOUT=15 NOPASSWD: /opt/x ""',
    ]
    with pytest.raises(InvalidRequest, match="not the name of an account"):
        lines("a b", [])


@pytest.mark.parametrize(
    "server",
    [
        {"kind": "haproxy"},
        {"kind": "nginx", "pid_file": "/run/nginx.pid"},
        {"kind": "lighttpd", "reload": "signal"},
        {"kind": "tomcat"},
    ],
)
def test_what_cannot_be_listed_is_told(server: dict[str, object]) -> None:
    """A line that would not help is worse than none."""
    with pytest.raises(InvalidRequest) as caught:
        commands(server, LocalHost("here"))

    assert caught.value.remedy


@pytest.mark.parametrize(
    "kind", ["nginx", "apache", "postfix", "dovecot", "haproxy", "lighttpd", "command"]
)
def test_the_lines_are_what_is_run(kind: str, tmp_path: Path) -> None:
    """Told by the programs themselves: each test and reload leaves its own command line behind."""
    log, stub = tmp_path / "log", tmp_path / "server"
    stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$0 $*" >> {log}\n')
    stub.chmod(0o755)
    (tmp_path / "doveconf").symlink_to(stub)
    own: dict[str, object] = {"binary": str(stub), "config": str(tmp_path / "conf")}
    if kind == "command":
        own = {"test": [str(stub), "-t"], "reload": [str(stub), "reload"]}
    if kind in ("haproxy", "lighttpd"):
        own["reload"] = [str(stub), "reload"]
    settings = {"kind": kind, "site": NAME, **own}
    target = open_target(LocalHost("here"), settings)
    control = getattr(target, "control", None) or target._control  # type: ignore[attr-defined]
    control.test()
    control.reload()

    ran = log.read_text().splitlines()
    needed = [" ".join(argv) for argv, _ in commands(settings, LocalHost("here"))]
    assert needed[0] in ran
    assert needed[-1] in ran


def test_one_way_of_sudo() -> None:
    """Everything as root and only what is listed exclude each other."""
    with pytest.raises(ValidationError, match="goes with neither"):
        SshMachine(host="h", username="u", host_key="x", sudo=True, sudo_listed=True)
