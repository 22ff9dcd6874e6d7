"""Delivery into a directory: files, links, accounts, and the command afterwards."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from blocks._base import open_reference
from blocks.hosts.local import LocalMachine
from certrail.connectors import DeliveryTarget
from certrail.delivery.directory import DirectoryDelivery
from certrail.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    KeyUnavailable,
    Rejected,
    StorageFull,
    Unreachable,
)
from certrail.model import Bundle, Site
from certrail.remote.local import LocalHost
from certrail.x509.export import Format, Part, load
from tests.support.bundles import new_bundle

NAME = "shop.example.test"
PASSWORD = "correct horse battery"


@pytest.fixture
def target() -> DeliveryTarget:
    with LocalMachine().connect() as host:
        return DirectoryDelivery(host, open_reference)


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Site]:
    """Return a maker of sites in ``<tmp_path>/ssl``."""

    def make(name: str = NAME, *, id: str = "web1/shop", **fields: Any) -> Site:
        settings = {"kind": "directory", "path": str(tmp_path / "ssl"), **fields}
        return Site(id=id, names=(name,), settings=settings)

    return make


Place = Callable[..., Site]


def test_modes_and_owners_are_as_wanted(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """The server's account must be able to read the key, and nobody else."""
    site = place(key_mode="0640", mode="0444", owner="nobody", group="nogroup")

    target.deliver(site, new_bundle(NAME))

    found = {path.name: path.stat() for path in (tmp_path / "ssl").iterdir() if path.is_file()}
    assert {name: stat.S_IMODE(info.st_mode) for name, info in found.items()} == {
        "cert.pem": 0o444,
        "chain.pem": 0o444,
        "fullchain.pem": 0o444,
        "privkey.pem": 0o640,
    }
    assert {(info.st_uid, info.st_gid) for info in found.values()} == {(65534, 65534)}


def test_what_a_killed_worker_left_is_removed(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """It can hold a key, and the next delivery may be months away; so also by the same again."""
    site, bundle = place(), new_bundle(NAME)
    target.deliver(site, bundle)
    for again in (bundle, new_bundle(NAME)):
        for folder in (tmp_path / "ssl", next(tmp_path.rglob("live")).parent):
            (folder / ".certrail-0123456789abcdef").write_bytes(b"half a key")

        target.deliver(site, again)

        assert list(tmp_path.rglob(".certrail-*")) == []


def test_modes_that_others_changed_are_put_right(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """An opened key file is worth a delivery even when the certificate is the same."""
    bundle = new_bundle(NAME)
    target.deliver(place(), bundle)
    (tmp_path / "ssl" / "privkey.pem").chmod(0o644)

    target.deliver(place(), bundle)

    assert stat.S_IMODE((tmp_path / "ssl" / "privkey.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.PEM])
def test_every_form_is_delivered_and_read_back(
    target: DeliveryTarget,
    place: Place,
    tmp_path: Path,
    form: Format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a consumer opens with the password is the certificate delivered."""
    monkeypatch.setenv("STORE_PASSWORD", PASSWORD)
    more = {"password": "env:STORE_PASSWORD"} if form.has_password else {}
    site, bundle = place(format=form, **more), new_bundle(NAME)

    target.deliver(site, bundle)
    again = target.deliver(site, bundle)

    assert target.delivered(site) == bundle.chain.fingerprint
    assert "nothing changed" in again
    if len(form.parts) == 1:
        extension = {Format.PEM_BUNDLE: "pem", Format.JKS: "jks"}.get(form, "p12")
        content = (tmp_path / "ssl" / f"{NAME}.{extension}").read_bytes()
        assert load({form.parts[0]: content}, form, password=PASSWORD).chain == bundle.chain
    assert PASSWORD not in target.deliver(site, new_bundle(NAME))


def test_another_password_makes_another_store(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """A password is rotated by changing what the reference leads to."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    site, bundle = place(format="pkcs12", password=f"file:{secret}"), new_bundle(NAME)
    target.deliver(site, bundle)

    secret.write_text("another password")
    with pytest.raises(AuthenticationFailed):
        target.delivered(site)
    target.deliver(site, bundle)

    content = (tmp_path / "ssl" / f"{NAME}.p12").read_bytes()
    found = load({Part.STORE: content}, Format.PKCS12, password="another password")
    assert found.chain == bundle.chain


def test_a_missing_password_is_told_before_anything_is_written(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """The worker lacks a variable: the old files must stay."""
    site = place(format="jks", password="env:NOT_SET_ANYWHERE")

    with pytest.raises(KeyUnavailable, match="NOT_SET_ANYWHERE"):
        target.deliver(site, new_bundle(NAME))

    assert not (tmp_path / "ssl").exists()


def test_files_that_were_there_change_together(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """The first delivery over plain files must not mix old and new for a moment."""
    folder = tmp_path / "ssl"
    folder.mkdir()
    old, new = new_bundle(NAME), new_bundle(NAME)
    assert old.key
    (folder / "fullchain.pem").write_text(old.chain.text)
    (folder / "privkey.pem").write_bytes(old.key.reveal())
    (folder / "privkey.pem").chmod(0o640)
    (folder / "dhparam.pem").write_text("somebody else's")
    seen, over = set[tuple[str, bool]](), threading.Event()

    def watch() -> None:
        while not over.is_set():
            before = os.path.realpath(folder / "privkey.pem")
            leaf = x509.load_pem_x509_certificate((folder / "fullchain.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "privkey.pem").read_bytes(), None)
            if before == os.path.realpath(folder / "privkey.pem"):
                matches = leaf.public_key() == key.public_key()
                seen.add((leaf.serial_number.__str__(), matches))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        target.deliver(place(), new)
    finally:
        over.set()
        watcher.join()

    assert all(matches for _, matches in seen)
    assert target.delivered(place()) == new.chain.fingerprint
    assert (folder / "dhparam.pem").read_text() == "somebody else's"
    kept = list((folder / ".certrail").rglob("before-*/privkey.pem"))
    assert [path.read_bytes() for path in kept] == [old.key.reveal()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o640]


def test_the_version_before_is_kept_and_older_ones_go(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """A person can go back by hand, and keys do not pile up on a disk."""
    bundles = [new_bundle(NAME) for _ in range(4)]
    for bundle in bundles:
        target.deliver(place(), bundle)

    versions = list((tmp_path / "ssl" / ".certrail").rglob("fullchain.pem"))
    leaves = {
        path.read_text() for path in versions if not path.is_symlink() and "live" not in path.parts
    }
    assert leaves == {bundle.chain.text for bundle in bundles[2:]}


def test_endpoints_share_a_directory(target: DeliveryTarget, place: Place, tmp_path: Path) -> None:
    """HAProxy reads every file of a directory as a certificate; dot files are passed over."""
    one = place("a.example.test", id="web1/a", format="pem-bundle")
    two = place("*.example.test", id="web1/b", format="pem-bundle")
    first, second = new_bundle("a.example.test"), new_bundle("*.example.test")

    target.deliver(one, first)
    target.deliver(two, second)

    names = sorted(path.name for path in (tmp_path / "ssl").iterdir())
    assert names == [".certrail", "_wildcard_.example.test.pem", "a.example.test.pem"]
    assert target.delivered(one) == first.chain.fingerprint


def test_a_file_of_another_endpoint_is_not_taken(target: DeliveryTarget, place: Place) -> None:
    """Two endpoints with one file name would replace each other for ever."""
    target.deliver(place(id="web1/a"), new_bundle(NAME))

    with pytest.raises(Conflict, match="another endpoint"):
        target.deliver(place(id="web1/b"), new_bundle(NAME))


def test_a_directory_in_the_way_is_refused(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """Nothing is removed that we did not make."""
    (tmp_path / "ssl" / "privkey.pem").mkdir(parents=True)

    with pytest.raises(Conflict, match="is a directory"):
        target.deliver(place(), new_bundle(NAME))

    assert sorted(path.name for path in (tmp_path / "ssl").rglob("*")) == ["privkey.pem"]


def test_other_names_leave_no_stray_links(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """A key under a name that no longer changes would be used for ever."""
    bundle = new_bundle(NAME)
    target.deliver(place(), bundle)

    target.deliver(place(files={"key": "{name}.key", "chain": "", "cert": ""}), bundle)

    names = sorted(path.name for path in (tmp_path / "ssl").iterdir())
    assert names == [".certrail", "fullchain.pem", f"{NAME}.key"]
    assert all(path.exists() for path in (tmp_path / "ssl").iterdir())


def test_a_full_disk_leaves_the_old_files(place: Place, tmp_path: Path) -> None:
    """Whole or nothing: a version that could not be written is removed again."""

    class Full(LocalHost):
        room = True

        def write_file(self, path: str, content: bytes, **kwargs: Any) -> None:
            if not self.room and path.endswith("fullchain.pem"):
                raise StorageFull("no space left on device")
            super().write_file(path, content, **kwargs)

    host = Full("here")
    target = DirectoryDelivery(host, open_reference)
    old, new = new_bundle(NAME), new_bundle(NAME)
    target.deliver(place(), old)
    before = sorted(tmp_path.rglob("*"))

    host.room = False
    with pytest.raises(StorageFull):
        target.deliver(place(), new)

    assert before == sorted(tmp_path.rglob("*"))
    assert target.delivered(place()) == old.chain.fingerprint


def test_a_certificate_without_key_needs_no_key_file(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """Where a device keeps its key, the rest is delivered."""
    bundle = Bundle(new_bundle(NAME).chain, None)
    site = place(files={"key": ""})

    target.deliver(site, bundle)

    assert target.delivered(site) == bundle.chain.fingerprint
    with pytest.raises(InvalidRequest, match="without one"):
        target.deliver(place(), bundle)


def test_the_command_is_told_what_was_delivered(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """A script needs files and fingerprint, not a parser of our log; and no secret."""
    seen = tmp_path / "seen.json"
    script = f"import sys; open({str(seen)!r}, 'a').write(sys.stdin.read()); print('reloaded')"
    site = place(after=[sys.executable, "-c", script])
    old, new = new_bundle(NAME), new_bundle(NAME)

    target.deliver(site, old)
    line = target.deliver(site, new)

    first, second = (json.loads(text) for text in seen.read_text().splitlines())
    assert first["previous"] is None
    assert second == {
        "event": "delivered",
        "location": "web1/shop",
        "fingerprint": new.chain.fingerprint,
        "previous": old.chain.fingerprint,
        "names": [NAME],
        "not_after": new.chain.leaf.not_valid_after_utc.isoformat(),
        "format": "pem",
        "directory": str(tmp_path / "ssl"),
        "files": {
            "key": str(tmp_path / "ssl" / "privkey.pem"),
            "cert": str(tmp_path / "ssl" / "cert.pem"),
            "chain": str(tmp_path / "ssl" / "chain.pem"),
            "fullchain": str(tmp_path / "ssl" / "fullchain.pem"),
        },
    }
    assert "reloaded" in line
    assert "PRIVATE" not in seen.read_text()


def test_a_failed_command_fails_the_step_and_runs_again(
    target: DeliveryTarget, place: Place, tmp_path: Path
) -> None:
    """A script whose exit code nobody looks at is how services go on with old certificates."""
    marker = tmp_path / "works"
    site = place(after=["sh", "-c", f"echo $$ > {tmp_path}/ran; echo no >&2; test -e {marker}"])
    bundle = new_bundle(NAME)

    with pytest.raises(Rejected, match="exit code 1: no") as caught:
        target.deliver(site, bundle)
    inodes = {path: path.lstat().st_ino for path in (tmp_path / "ssl").rglob("*.pem")}
    marker.touch()
    line = target.deliver(site, bundle)
    ran = (tmp_path / "ran").read_text()
    quiet = target.deliver(site, bundle)

    assert caught.value.code == "1"
    assert "only the command runs again" in caught.value.remedy
    assert "ended well" in line
    assert inodes == {path: path.lstat().st_ino for path in (tmp_path / "ssl").rglob("*.pem")}
    assert (tmp_path / "ran").read_text() == ran
    assert "ended well" not in quiet


def test_a_command_that_hangs_is_ended(target: DeliveryTarget, place: Place) -> None:
    """A worker that waits for ever is a worker lost."""
    site = place(after=["sleep", "600"], after_timeout=0.3)

    with pytest.raises(Unreachable):
        target.deliver(site, new_bundle(NAME))


def test_a_talkative_command_is_cut(target: DeliveryTarget, place: Place) -> None:
    """Its last words are what matters, and they go into one line."""
    site = place(after=["sh", "-c", "yes line | head -n 5000; printf 'the\\033[31m end'"])

    line = target.deliver(site, new_bundle(NAME))

    assert len(line) < 1000
    assert line.isprintable()
    assert line.endswith("the\\x1b[31m end")
