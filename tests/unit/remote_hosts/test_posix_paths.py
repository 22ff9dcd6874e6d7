"""Paths and patterns, without a host."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certrail.errors import (
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    StorageFull,
    UnexpectedReply,
)
from certrail.remote.posix_errors import refusal_in_words
from certrail.remote.posix_paths import (
    checked_entry,
    checked_removal,
    expand,
    readable,
    temporary_beside,
    to_bytes,
    to_text,
)


@given(st.binary())
def test_bytes_survive_the_way_to_text_and_back(raw: bytes) -> None:
    """Names on a host are bytes, and not always UTF-8."""
    assert to_bytes(to_text(raw)) == raw


@given(st.text())
def test_a_path_in_a_message_is_one_printable_line(text: str) -> None:
    """A file name must not forge a line of a log."""
    shown = readable(text)

    assert shown.isprintable()


@pytest.mark.parametrize("path", ["/a/", "/a/.", "/a/..", "/", "a", ""])
def test_what_names_no_entry(path: str) -> None:
    """There would be nothing to replace."""
    with pytest.raises(InvalidRequest):
        checked_entry(path)


def test_a_file_below_the_root_may_be_removed_but_no_tree() -> None:
    """One file is a mistake, a tree there is the machine."""
    assert checked_removal("/file", tree=False) == "/file"
    with pytest.raises(InvalidRequest):
        checked_removal("//./home", tree=True)
    assert checked_removal("/srv/x", tree=True) == "/srv/x"


def test_temporary_names_lie_beside_and_escape_includes() -> None:
    """`include sites-enabled/*` must not read half a file."""
    first, second = temporary_beside("/etc/x.conf"), temporary_beside("/etc/x.conf")

    assert first != second
    assert first.startswith("/etc/.")
    assert not first.endswith(".conf")
    assert temporary_beside("/x").startswith("/.certrail-")


@given(pattern=st.text(alphabet="ab.*?[]!/", max_size=8))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_patterns_expand_as_in_the_standard_library(tmp_path: Path, pattern: str) -> None:
    """Two readings of one configuration would be one too many."""
    for name in ("a/a", "a/ab", "a/.b", "b/a.b", ".a/b", "ab"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    # Without empty components, where the two differ in how they write a path.
    pattern = "/".join(part for part in pattern.split("/") if part not in ("", ".", ".."))

    def names(path: str) -> tuple[str, ...]:
        return tuple(os.listdir(path)) if os.path.isdir(path) else ()

    found = expand(f"{tmp_path}/{pattern}", names, os.path.lexists)

    assert list(found) == sorted(glob.glob(f"{glob.escape(str(tmp_path))}/{pattern}"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("cat: write error: No space left on device", StorageFull),
        ("cat: write error: Disk quota exceeded", StorageFull),
        ("mv: cannot move 'a' to 'b': Permission denied", PermissionRefused),
        ("chown: changing ownership of 'a': Operation not permitted", PermissionRefused),
        ("touch: cannot touch 'a': Read-only file system", PermissionRefused),
        ("stat: cannot statx 'a': No such file or directory", NotFound),
        ("certrail: 1: cannot create /a/b: Directory nonexistent", NotFound),
        ("chown: invalid group: 'x:y'", NotFound),
        ("rmdir: failed to remove 'a': Directory not empty", Conflict),
        ("mv: cannot overwrite directory 'b' with non-directory", Conflict),
        ("cat: No space left on device: odd words", UnexpectedReply),
        ("", UnexpectedReply),
    ],
)
def test_words_of_commands_become_errors(words: str, error: type[ConnectorError]) -> None:
    """The retry decision and the remedy depend on it."""
    found = refusal_in_words(f"noise before\n{words}\n".encode(), "write", "/a\n/b", host="web01")

    assert type(found) is error
    assert found.connector == "web01"
    assert "\n" not in str(found)
