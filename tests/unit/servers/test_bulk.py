"""Many files in one go: the same bytes as one by one."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certrail.remote.local import LocalHost
from certrail.servers.bulk import read_many

HERE = LocalHost("here")
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25
)
@given(st.dictionaries(NAMES, st.binary(max_size=1000), min_size=4, max_size=8))
def test_names_and_contents_of_any_kind(tmp_path: Path, files: dict[str, bytes]) -> None:
    """A wrong byte in a configuration would be written back by an edit."""
    paths = {str(tmp_path / name): content for name, content in files.items()}
    for path, content in paths.items():
        Path(path).write_bytes(content)

    assert paths == read_many(HERE, list(paths))


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    """A link into nowhere, a name that is gone, a directory."""
    (tmp_path / "there").write_bytes(b"x")
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "dangling").symlink_to("nowhere")
    names = ["there", "link", "dangling", "gone"]

    found = read_many(HERE, [str(tmp_path / name) for name in names])

    assert {str(tmp_path / "there"): b"x", str(tmp_path / "link"): b"x"} == found


def test_more_than_a_host_returns_at_once(tmp_path: Path) -> None:
    """Commands have a limit on their output; a cut archive must not become a cut file."""
    paths = {str(tmp_path / f"{number}"): bytes([number]) * 400_000 for number in range(8)}
    for path, content in paths.items():
        Path(path).write_bytes(content)

    assert paths == read_many(HERE, list(paths))
