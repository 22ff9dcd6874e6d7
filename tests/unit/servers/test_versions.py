"""Certificate versions on a host: names that stay inside, links that switch at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.errors import Conflict, InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.key_file import KeyFile
from certrail.servers.versions import Versions, slug, version_of
from tests.support.nginx import TestCa

CA = TestCa()


@settings(deadline=None)
@given(st.text())
def test_a_slug_is_one_harmless_component(site: str) -> None:
    """Names come from files and people; a directory name must stay in its place."""
    name = slug(site)

    assert name
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
    assert name not in (".", "..")
    assert not name.startswith(".")
    assert len(name) < 200


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_different_sites_have_different_slugs(one: str, other: str) -> None:
    """Two sites in one directory would serve each other's certificate."""
    assert (one == other) == (slug(one) == slug(other))


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("www.example.test", "www.example.test"),
        ("*.example.test", "_wildcard_.example.test"),
        ("xn--bcher-kva.test", "xn--bcher-kva.test"),
    ],
)
def test_ordinary_names_stay_readable(site: str, expected: str) -> None:
    """People look into that directory."""
    assert expected == slug(site)


def test_staging_writes_a_private_key_and_a_chain(tmp_path: Path) -> None:
    """The layout that server configurations point into."""
    bundle = CA.bundle("a.test")
    versions = Versions(LocalHost("here"), str(tmp_path / "base" / "a.test"))

    version = versions.stage(bundle)

    directory = tmp_path / "base" / "a.test" / "versions" / version
    assert version == bundle.chain.fingerprint[:16] == version_of(bundle.chain.fingerprint)
    assert bundle.chain.text == (directory / "fullchain.pem").read_text()
    assert (directory / "privkey.pem").stat().st_mode & 0o7777 == 0o600
    assert directory.stat().st_mode & 0o7777 == 0o755
    assert versions.live() == ""


def test_a_half_written_version_is_completed(tmp_path: Path) -> None:
    """A crash in the middle of an upload."""
    bundle = CA.bundle("a.test")
    versions = Versions(LocalHost("here"), str(tmp_path / "a.test"), key_file=KeyFile(0o640))
    version = versions.stage(bundle)
    key = tmp_path / "a.test" / "versions" / version / "privkey.pem"
    whole = key.read_bytes()
    key.write_bytes(whole[:50])

    versions.stage(bundle)

    assert whole == key.read_bytes()
    assert key.stat().st_mode & 0o7777 == 0o640


def test_what_a_broken_connection_left_is_removed(tmp_path: Path) -> None:
    """A file is written beside its place first: the next try clears up, and nothing but that."""
    versions = Versions(LocalHost("here"), str(tmp_path / "site"))
    bundle = TestCa().bundle("www.example.test")
    version = versions.stage(bundle)
    directory = Path(versions.path(version))
    for name in (".certrail-0123456789abcdef", ".certrail-notes"):
        (directory / name).write_bytes(b"half a k")

    versions.stage(bundle)

    left = {path.name for path in directory.iterdir()}
    assert left == {"fullchain.pem", "privkey.pem", ".certrail-notes"}


def test_only_a_link_of_ours_is_live(tmp_path: Path) -> None:
    """Something else at that place belongs to somebody else."""
    versions = Versions(LocalHost("here"), str(tmp_path))
    (tmp_path / "live").symlink_to("/etc/passwd")
    assert versions.live() == ""

    (tmp_path / "live").unlink()
    (tmp_path / "live").mkdir()
    with pytest.raises(Conflict):
        versions.live()


def test_the_live_version_is_never_removed(tmp_path: Path) -> None:
    """Whatever the caller thinks."""
    versions = Versions(LocalHost("here"), str(tmp_path / "a.test"))
    version = versions.stage(CA.bundle("a.test"))
    versions.switch(versions.target(version))

    versions.remove(version)

    assert (tmp_path / "a.test" / "live" / "privkey.pem").exists()


def test_pruning_keeps_what_was_never_live(tmp_path: Path) -> None:
    """Another request may be waiting for its maintenance window."""
    versions = Versions(LocalHost("here"), str(tmp_path / "a.test"))
    used = []
    for _ in range(4):
        used.append(versions.stage(CA.bundle("a.test")))
        versions.switch(versions.target(used[-1]))
        versions.remember(used[-1])
    waiting = versions.stage(CA.bundle("a.test"))

    gone = versions.prune(keep=2)

    assert used[:1] == gone
    left = {path.name for path in (tmp_path / "a.test" / "versions").iterdir()}
    assert {*used[1:], waiting} == left


def test_pruning_removes_what_broken_connections_left(tmp_path: Path) -> None:
    """A file is written beside its place first; where the connection broke, that stays."""
    versions = Versions(LocalHost("here"), str(tmp_path / "a.test"))
    live = versions.stage(CA.bundle("a.test"))
    versions.switch(versions.target(live))
    versions.remember(live)
    changes = Path(versions.changes(live))
    changes.mkdir(parents=True)
    (changes / "journal.json").write_text("{}")
    left = [folder / f".certrail-{'0' * 16}" for folder in (changes, tmp_path / "a.test")]
    for path in left:
        path.touch()

    versions.prune(keep=2)

    assert [path for path in left if path.exists()] == []
    assert (changes / "journal.json").exists()
    assert versions.live() == live


@pytest.mark.parametrize("version", ["", "..", "../../etc", "0123456789ABCDEF", "0" * 15])
def test_a_version_is_sixteen_digits(tmp_path: Path, version: str) -> None:
    """It comes back from stored data and becomes part of a path that is removed."""
    with pytest.raises(InvalidRequest):
        Versions(LocalHost("here"), str(tmp_path)).path(version)
