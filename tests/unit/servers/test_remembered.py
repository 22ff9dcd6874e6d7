"""Sites of one server share what its files were read as."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.errors import InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.nginx.tree import load, parse
from certrail.servers.remembered import Remembered


def test_the_same_text_is_read_once() -> None:
    """But not the same text of another file, whose name is in what was read."""
    read: list[str] = []

    def reader(data: bytes, path: str) -> tuple[str, bytes]:
        read.append(path)
        return path, data

    remembered = Remembered(reader)

    assert remembered(b"a", "/one") == remembered(b"a", "/one") == ("/one", b"a")
    assert remembered(b"b", "/one") == ("/one", b"b")
    assert remembered(b"a", "/two") == ("/two", b"a")
    assert read == ["/one", "/one", "/two"]


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    """It holds so many bytes, and the latest whatever its size."""
    read: list[bytes] = []

    def reader(data: bytes, _: str) -> bytes:
        read.append(data)
        return data

    remembered = Remembered(reader, most=4)
    for data in (b"aa", b"bb", b"aa", b"cc", b"aa", b"bb", b"long text", b"long text"):
        assert remembered(data, "/f") == data

    assert read == [b"aa", b"bb", b"cc", b"bb", b"long text"]


def test_what_cannot_be_read_is_told_each_time() -> None:
    """Somebody may correct it meanwhile, and the message names the line."""
    remembered = Remembered(parse)

    for _ in range(2):
        with pytest.raises(InvalidRequest, match="/f:2"):
            remembered(b"user www;\n}", "/f")


def test_an_edited_file_is_read_anew(tmp_path: Path) -> None:
    """Every request looks at the file as it is now."""
    root = tmp_path / "nginx.conf"
    root.write_text("user a;")
    host = LocalHost("here")
    first, second = (load(host, str(root)).file(str(root)) for _ in range(2))
    root.write_text("user b;")

    assert first is second
    assert load(host, str(root)).file(str(root)).directives[0].arguments == ("b",)
