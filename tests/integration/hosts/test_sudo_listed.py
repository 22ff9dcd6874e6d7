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
from certrail.connectors import MakesKeyFiles
from certrail.errors import InvalidRequest, PermissionRefused, Unreachable
from certrail.model import Bundle, SubjectSpec
from certrail.remote.local import LocalHost
from certrail.remote.posix_host import PosixHost
from certrail.remote.sudo import handing_over
from certrail.servers.registry import open_target
from certrail.servers.sudoers import Needed, commands, lines
from tests.contract.install_cases import CASES, Case, World
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


SIGNALS = {"haproxy": "-USR2", "exim": "-HUP", "lighttpd": "-USR1", "postgresql": "-HUP"}
"""How those are reloaded that a unit of systemd reloads elsewhere."""
GIVEN = {"mariadb": "mysql", "postgresql": "postgres", "tomcat": "tomcat", "exim": "Debian-exim"}
"""Accounts that alone may read their keys."""


def listable(kind: str, world: World) -> dict[str, object]:
    """Return the settings of a server, reloaded by a command that a line can list."""
    server = dict(world.server)
    folder = Path(str(server.get("config", ""))).parent
    if kind in SIGNALS:
        files = [server.get("pid_file", ""), folder / "pid", folder / "lighttpd.pid"]
        files.append(folder.parent / "data/postmaster.pid")
        (pid_file, *_) = [one for one in map(str, files) if one and Path(one).is_file()]
        server["reload"] = ["/usr/bin/pkill", SIGNALS[kind], "-F", pid_file]
    if kind == "exim":
        server["key_mode"] = "0640"
    if kind == "command":
        server["reload"] = ["/usr/bin/sh", *server["reload"][1:]]  # type: ignore[index]
    if kind in ("tomcat", "mariadb"):
        server.update(restart="never", key_owner=GIVEN[kind])
    return server


def give_folder(user: Account, folder: Path) -> None:
    """Make the folder of the certificates the account's own, as the documentation says."""
    let_in(folder)
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            shutil.chown(path, user.name, user.name)


def serves(world: World, bundle: Bundle) -> bool:
    """Return whether *bundle* is served; commands return before a server has started anew."""
    try:
        return world.served() == bundle.chain.fingerprint
    except OSError:
        return False


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_these_lines_renew(case: Case, server: Sshd, tmp_path: Path) -> None:
    """Exactly what `certrail connector sudoers` prints, and not a word more."""
    with case.world(tmp_path) as world, account() as user:
        settings = listable(case.kind, world)
        site = world.site
        here = open_target(LocalHost("here"), settings)
        first = here.stage(site, world.bundle(), None)
        here.activate(first)
        give_folder(user, Path(str(first.data["directory"])).parent)

        needed = commands(settings, LocalHost("here"))
        bundle = world.bundle()
        if case.kind in GIVEN:
            with machine(server, user) as host, pytest.raises(PermissionRefused):
                open_target(host, settings).stage(site, bundle, None)
        with listed(user, lines(user.name, needed)), machine(server, user) as host:
            target = open_target(host, settings)
            staged = target.stage(site, bundle, None)
            assert staged == target.stage(site, bundle, None)
            target.activate(staged)
            wait_for(lambda: serves(world, bundle), "it is served", within=30)
            target.discard(staged)
            assert bundle.chain.fingerprint == target.serving(site)
        (key,) = Path(str(staged.data["directory"]), "live").glob("[pc][ro]*.pem")
        assert key.owner() == GIVEN.get(case.kind, world.server.get("key_owner") or user.name)


def test_a_key_that_stays_there_is_given_to_who_reads_it(server: Sshd, tmp_path: Path) -> None:
    """By the same lines: the request is made while the key is the account's own, then it is not."""
    (case,) = [one for one in CASES if one.kind == "postgresql"]
    with case.world(tmp_path) as world, account() as user:
        settings = listable(case.kind, world)
        site = world.site
        here = open_target(LocalHost("here"), settings)
        first = here.stage(site, world.bundle(), None)
        here.activate(first)
        folder = Path(str(first.data["directory"]))
        give_folder(user, folder.parent)
        rules = lines(user.name, commands(settings, LocalHost("here")))

        with machine(server, user) as host:
            target = open_target(host, settings)
            assert isinstance(target, MakesKeyFiles)
            subject = SubjectSpec((NAME,))
            csr = target.make_csr(site, subject, "r-1")
            again = target.make_csr(site, subject, "r-1")
            assert csr.public_key_der() == again.public_key_der()
            bundle = Bundle(world.ca.signed(csr, NAME), None)
            with pytest.raises(PermissionRefused):
                target.stage(site, bundle, None)
        with listed(user, rules), machine(server, user) as host:
            target = open_target(host, settings)
            staged = target.stage(site, bundle, None)
            assert staged == target.stage(site, bundle, None)
            key = folder / "keys" / "r-1.pem"
            assert (key.owner(), key.stat().st_mode & 0o777) == (GIVEN[case.kind], 0o600)
            with pytest.raises(PermissionRefused):
                host.read_file(str(key))
            target.activate(staged)
            wait_for(lambda: serves(world, bundle), "it is served", within=30)
            target.discard(staged)


def test_a_key_of_somebody_else_is_not_given_away(tmp_path: Path) -> None:
    """The line leaves the file open: chown itself keeps to files of the account."""
    folder = tmp_path / "kept"
    folder.mkdir()
    let_in(folder)
    with account() as user:
        shutil.chown(folder, user.name)
        other = tmp_path / "other.pem"
        other.write_text("not theirs")
        (folder / "link.pem").symlink_to(other)
        needed = [Needed((), 60, str(folder), "nobody")]
        with listed(user, lines(user.name, needed)):
            for path in (folder / "link.pem", folder / ".." / "other.pem"):
                rule = handing_over(user.name, "nobody", str(path))
                argv = ["setpriv", f"--reuid={user.name}", "--clear-groups", "sudo", "-n", *rule]
                subprocess.run(argv, capture_output=True, check=False)
                assert other.owner() == "root"
            (folder / "own.pem").write_text("theirs")
            shutil.chown(folder / "own.pem", user.name)
            own = handing_over(user.name, "nobody", str(folder / "own.pem"))
            subprocess.run([*argv[:5], *own], capture_output=True, check=True)
            assert (folder / "own.pem").owner() == "nobody"
            more = ["--from=root", str(folder / "link.pem")]
            for words in ([*rule[:2], *more, *rule[2:]], [*rule, *more]):
                subprocess.run([*argv[:5], *words], capture_output=True, check=False)
                assert other.owner() == "root"


def test_nothing_else_runs_as_root(server: Sshd, tmp_path: Path) -> None:
    """What is not in a line is the account's own doing."""
    with Nginx.started(tmp_path) as nginx, account() as user:
        settings = {**nginx.server, "site": NAME}
        rules = lines(user.name, commands(settings, LocalHost("here")))
        with listed(user, rules), machine(server, user) as host:
            assert host.run(["id", "-un"]).stdout.decode().strip() == user.name
            host.run(["nginx", "-p", f"{tmp_path}/", "-c", str(nginx.config), "-s", "stop"])
            assert host.run(["sudo", "-n", "--", "id"]).exit_code != 0
            assert nginx.old.chain.fingerprint == nginx.served(NAME)


def test_a_hung_command_holds_nobody(server: Sshd) -> None:
    """Here it is given up at its deadline; there, sudo ends it."""
    hanging = ["sleep", "31.7"]
    with account() as user:
        (rule,) = lines(user.name, [Needed(["/usr/bin/sleep", "31.7"], 60)])
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
    needed = [Needed(["/opt/reload now", "a:b,c=d"], 5), Needed(["/opt/x"], 5)]
    assert lines("op", [*needed, Needed((), 5, "/etc/x y", "www")]) == [
        "op ALL=(root) TIMEOUT=15 NOPASSWD: /opt/reload\\ now a\\:b\\,c\\=d",
        'op ALL=(root) TIMEOUT=15 NOPASSWD: /opt/x ""',
        "op ALL=(root) TIMEOUT=15 NOPASSWD: /usr/bin/chown --from\\=op -- www /etc/x\\ y/*",
    ]
    assert not lines("www", [Needed((), 5, "/etc/x", "www")])
    with pytest.raises(InvalidRequest, match="not the name of an account"):
        lines("a b", [])


@pytest.mark.parametrize(
    "server",
    [
        {"kind": "haproxy"},
        {"kind": "nginx", "pid_file": "/run/nginx.pid"},
        {"kind": "lighttpd", "reload": "signal"},
        {"kind": "exim", "binary": "/bin/true"},
        {"kind": "postgresql", "config": "/etc/postgresql.conf"},
    ],
)
def test_what_cannot_be_listed_is_told(server: dict[str, object]) -> None:
    """A line that would not help is worse than none."""
    with pytest.raises(InvalidRequest) as caught:
        commands(server, LocalHost("here"))

    assert caught.value.remedy


@pytest.mark.parametrize(
    "kind",
    ["nginx", "apache", "postfix", "dovecot", "haproxy", "lighttpd", "caddy", "command"],
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
    needed = [" ".join(one.argv) for one in commands(settings, LocalHost("here"))]
    assert needed[0] in ran
    assert needed[-1] in ran


def test_one_way_of_sudo() -> None:
    """Everything as root and only what is listed exclude each other."""
    with pytest.raises(ValidationError, match="goes with neither"):
        SshMachine(host="h", username="u", host_key="x", sudo=True, sudo_listed=True)
