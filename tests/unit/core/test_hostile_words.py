"""Names, words and files of others: no shell, no path, no forged line, no turned text."""

from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from blocks._base import open_reference
from certrail import log
from certrail.cli import _archive
from certrail.configuration.endpoint import EndpointConfig
from certrail.errors import InvalidRequest, KeyUnavailable
from certrail.names import Name
from deployments import logs

HOSTILE = [
    "$(id).example.test",
    "`id`.example.test",
    "a.example.test;reboot",
    "a.example.test|sh",
    "a.example.test\nb.example.test",
    "../../etc/cron.d/x",
    "/etc/passwd",
    "-oProxyCommand=id",
    "a.example.test\x1b[2J",
    "\u202etset.elpmaxe.a",
    "a.example.test\0",
    "{{ config }}.example.test",
    "<script>.example.test",
    "=cmd|' /C calc'!A0",
]
SIGNS = ["\n", "\r", "\x1b[31m", "\x85", "\u2028", "\u2029", "\u202e"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_name_has_no_room_for_anything_else(text: str) -> None:
    """What is issued for and written into configurations is a host name or an address."""
    with pytest.raises(InvalidRequest):
        Name.parse(text)


@pytest.mark.parametrize("sign", SIGNS, ids=ascii)
def test_a_location_can_be_shown(sign: str) -> None:
    """It is in every list, and becomes file names and the names of runs."""
    for location in (f"a.example{sign}.test:443", f"f5/obj{sign}ect", f"a.example.test{sign}:443"):
        with pytest.raises(ValidationError):
            EndpointConfig.model_validate({"location": location})


@pytest.mark.parametrize("sign", SIGNS, ids=ascii)
def test_a_remote_word_forges_no_line_of_the_log(
    sign: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that looks like ours would be believed."""
    with caplog.at_level(logging.INFO, logger="certrail"):
        log.effect("order.opened", order=f"https://ca/1{sign}certificate.kept serial=00")

    (line,) = caplog.messages
    assert len(line.splitlines()) == 1
    assert line.startswith("order.opened order=https://ca/1\\")
    assert line.isprintable()


@pytest.mark.parametrize("name", ["certrail", "prefect.flow_runs", "prefect.task_runs"])
@pytest.mark.parametrize("sign", SIGNS, ids=ascii)
def test_what_a_server_said_stays_in_its_line(
    sign: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings and the logs of runs tell its words too, as an error or as text."""
    logs.simplify()
    stream = io.StringIO()
    # Those of Prefect's runs hand nothing on to others.
    monkeypatch.setattr(logging.getLogger(name), "handlers", [logging.StreamHandler(stream)])
    said = f"no{sign}certificate.kept serial=00"

    logging.getLogger(name).warning("%d refused, %s: %s", 2, said, RuntimeError(said))

    line = stream.getvalue().removesuffix("\n")
    assert line.startswith("2 refused, no\\")
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_a_secret_file_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    """Any account could put its own password, and a server of its own, into our hands."""
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    path.chmod(0o622)

    with pytest.raises(KeyUnavailable, match="changed by every account"):
        open_reference(f"file:{path}")


def test_a_secret_file_that_everybody_may_read_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Container platforms mount them so; elsewhere it is a mistake."""
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    path.chmod(0o644)

    with caplog.at_level(logging.WARNING, logger="certrail"):
        found = {open_reference(f"file:{path}") for _ in range(3)}

    assert found == {"s3cret"}
    (said,) = caplog.messages
    assert "chmod 600" in said
    assert "s3cret" not in said


def test_a_private_secret_file_is_read_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As it should be."""
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text("s3cret\n")

    assert open_reference(f"file:{path}") == "s3cret"
    assert not caplog.messages


def archive(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """Write a tar file of files, and of links where the content is text."""
    with tarfile.open(path, "w") as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                made.addfile(member)
            else:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", b"x")],
        [("/tmp/outside", b"x")],
        [("manifest.json", b"{}"), ("prefect.dump", b""), ("inventory.dump", "/etc/passwd")],
        [("manifest.json", b"{}"), ("prefect.dump", b""), ("inventory.dump", "../../outside")],
        [("manifest.json", b"[" * 100_000), ("prefect.dump", b""), ("inventory.dump", b"")],
        [
            ("manifest.json", b'{"format": 1}'),
            ("prefect.dump", b""),
            ("inventory.dump", b""),
        ],
    ],
    ids=["above", "absolute", "link away", "link above", "nested", "incomplete"],
)
def test_a_backup_of_somebody_else_writes_nothing_elsewhere(
    members: list[tuple[str, bytes | str]], tmp_path: Path
) -> None:
    """A backup may have been in other hands."""
    (inside := tmp_path / "a" / "inside").mkdir(parents=True)
    made = archive(tmp_path / "a" / "backup.tar", *members)

    with pytest.raises(InvalidRequest), _archive.opened(made, inside):
        pass

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "backup.tar", "inside"]
