"""A file that says which endpoints a job is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.cli._selection import locations_in
from certrail.errors import InvalidRequest


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a.test:443\nb.test:443\n", ["a.test:443", "b.test:443"]),
        (b"\xef\xbb\xbfa.test:443\r\nb.test:443\r\n", ["a.test:443", "b.test:443"]),
        (b"# shop\n\nA.test:443  # first\na.test:443\n", ["a.test:443"]),
    ],
    ids=["plain", "from Windows", "with comments"],
)
def test_one_location_a_line(tmp_path: Path, content: bytes, found: list[str]) -> None:
    """None of them is lost, and none is there twice."""
    (file := tmp_path / "shop.txt").write_bytes(content)

    assert locations_in(file) == found


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"# nothing yet\n\n"])
def test_a_file_without_a_location_is_told(tmp_path: Path, content: bytes) -> None:
    """No filter was given, so none is spoken of."""
    (file := tmp_path / "shop.txt").write_bytes(content)

    with pytest.raises(InvalidRequest, match=r"shop\.txt names no endpoint"):
        locations_in(file)
