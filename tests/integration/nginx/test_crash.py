"""A process that dies between any two operations is followed by one that finishes or undoes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from certrail.connectors import CommandResult, Host
from certrail.model import Staged
from certrail.remote.local import LocalHost
from certrail.remote.posix_paths import temporary_beside
from certrail.servers.registry import open_target, site_of
from tests.support.nginx import Nginx

NAME = "www.example.test"


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library can catch it."""


class DyingHost(LocalHost):
    """This machine, until the process is killed in its *n*-th effect.

    What was to be written then lies half done beside its place.
    """

    def __init__(self, after: int) -> None:
        super().__init__("here")
        self.left = after

    def _effect(self) -> None:
        if not self.left:
            raise Killed
        self.left -= 1

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: timedelta | None = None
    ) -> CommandResult:
        if argv[0] == "nginx":
            self._effect()
        return super().run(argv, stdin=stdin, timeout=timeout)

    def _halfway(self, path: str) -> None:
        try:
            self._effect()
        except Killed:
            Path(temporary_beside(path)).write_bytes(b"half of it")
            raise

    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        self._halfway(path)
        super().write_file(path, content, mode=mode, owner=owner, group=group)

    def make_link(self, path: str, target: str) -> None:
        self._halfway(path)
        super().make_link(path, target)

    def remove(self, path: str, *, tree: bool = False) -> None:
        self._effect()
        super().remove(path, tree=tree)

    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        self._effect()
        super().make_directory(path, mode=mode)


def killed_at_every_step(work: Callable[[Host], object], afterwards: Callable[[], None]) -> int:
    """Run *work* again and again, killed one effect later each time; returns how many there are."""
    for step in range(100):
        try:
            work(DyingHost(step))
        except Killed:
            afterwards()
            continue
        return step
    raise AssertionError("it never ends")


def test_activation(tmp_path: Path) -> None:
    """Called again with the same staged certificate, it ends live and can still be taken back."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": NAME}
        original = nginx.config.read_bytes()
        old, here = nginx.old.chain.fingerprint, LocalHost("here")
        bundle = nginx.ca.bundle(NAME)
        staged = open_target(here, server).stage(site_of(server), bundle, old)

        def afterwards() -> None:
            assert nginx.served(NAME) in (old, bundle.chain.fingerprint)
            open_target(here, server).activate(staged)
            assert bundle.chain.fingerprint == nginx.served(NAME)
            open_target(here, server).restore(staged)
            assert old == nginx.served(NAME)
            assert original == nginx.config.read_bytes()
            assert list(nginx.config.parent.glob(".certrail-*")) == []

        steps = killed_at_every_step(
            lambda host: open_target(host, server).activate(staged), afterwards
        )

        assert steps > 8


def test_another_site_is_configured_in_the_same_file_meanwhile(tmp_path: Path) -> None:
    """Neither copy of the file is what it is now, whether ours was written already or not."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": NAME}
        old, here = nginx.old.chain.fingerprint, LocalHost("here")
        bundle = nginx.ca.bundle(NAME)
        staged = open_target(here, server).stage(site_of(server), bundle, old)
        original = nginx.config.read_bytes()

        def somebody_else() -> None:
            nonlocal original
            more = b"# another site\n"
            nginx.config.write_bytes(nginx.config.read_bytes() + more)
            original += more

        def activated() -> None:
            somebody_else()
            open_target(here, server).activate(staged)
            assert bundle.chain.fingerprint == nginx.served(NAME)
            restored()

        def restored() -> None:
            somebody_else()
            open_target(here, server).restore(staged)
            assert old == nginx.served(NAME)
            assert original == nginx.config.read_bytes()

        def restore(host: Host) -> None:
            open_target(here, server).activate(staged)
            open_target(host, server).restore(staged)

        killed_at_every_step(lambda host: open_target(host, server).activate(staged), activated)
        open_target(here, server).restore(staged)
        killed_at_every_step(restore, restored)


def test_activation_then_restore(tmp_path: Path) -> None:
    """The step may decide to give up instead of going on."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": NAME}
        before = nginx.config.read_bytes()
        old, here = nginx.old.chain.fingerprint, LocalHost("here")
        staged: list[Staged] = []

        def work(host: Host) -> None:
            target = open_target(here, server)
            staged.append(target.stage(site_of(server), nginx.ca.bundle(NAME), old))
            open_target(host, server).activate(staged[-1])

        def afterwards() -> None:
            target = open_target(here, server)
            target.restore(staged[-1])
            target.discard(staged[-1])
            assert old == nginx.served(NAME)
            assert before == nginx.config.read_bytes()
            assert not (tmp_path / "certrail").exists()
            assert list(tmp_path.rglob(".certrail-*")) == []

        killed_at_every_step(work, afterwards)


def test_another_request_takes_over(tmp_path: Path) -> None:
    """The one that died is never heard of again; the next certificate must not wait for it."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": NAME}
        here = LocalHost("here")
        target, site = open_target(here, server), site_of(server)
        abandoned = target.stage(site, nginx.ca.bundle(NAME), None)
        original = nginx.config.read_bytes()

        def afterwards() -> None:
            target.activate(waiting)
            assert waiting.fingerprint == nginx.served(NAME)
            target.restore(waiting)
            assert original == nginx.config.read_bytes()

        waiting = target.stage(site, nginx.ca.bundle(NAME), None)
        killed_at_every_step(lambda host: open_target(host, server).activate(abandoned), afterwards)


def test_restore(tmp_path: Path) -> None:
    """Called again, it ends with what was live before."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": NAME}
        old, here = nginx.old.chain.fingerprint, LocalHost("here")
        target = open_target(here, server)
        bundle = nginx.ca.bundle(NAME)

        def work(host: Host) -> None:
            staged = target.stage(site_of(server), bundle, None)
            target.activate(staged)
            open_target(host, server).restore(staged)

        def afterwards() -> None:
            staged = target.stage(site_of(server), bundle, None)
            target.restore(staged)
            assert old == nginx.served(NAME) == target.serving(site_of(server))

        killed_at_every_step(work, afterwards)


def test_staging(tmp_path: Path) -> None:
    """Half an upload is completed by the next one and removed by discard."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": NAME}
        here = LocalHost("here")
        target, site = open_target(here, server), site_of(server)

        def afterwards() -> None:
            bundle = nginx.ca.bundle(NAME)
            staged = target.stage(site, bundle, None)
            target.discard(staged)

        bundle = nginx.ca.bundle(NAME)
        killed_at_every_step(
            lambda host: open_target(host, server).stage(site, bundle, None), afterwards
        )

        staged = target.stage(site, bundle, None)
        target.activate(staged)
        assert bundle.chain.fingerprint == nginx.served(NAME)


@pytest.mark.parametrize("keep", [1, 3])
def test_discard(tmp_path: Path, keep: int) -> None:
    """Cleaning up is interrupted as often as anything else."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": NAME, "keep_versions": keep}
        here = LocalHost("here")
        target, site = open_target(here, server), site_of(server)
        live = nginx.ca.bundle(NAME)
        target.activate(target.stage(site, live, None))

        def work(host: Host) -> None:
            staged = target.stage(site, nginx.ca.bundle(NAME), None)
            open_target(host, server).discard(staged)

        killed_at_every_step(work, lambda: None)

        assert live.chain.fingerprint == nginx.served(NAME) == target.serving(site)
