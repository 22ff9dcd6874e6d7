"""The secrets that an installation makes once: never made anew over what they seal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from certrail.cli import _own_secrets
from certrail.errors import KeyUnavailable
from certrail.settings import Settings


def sealing(folder: Path) -> str:
    return _own_secrets.sealing_key_file(Settings(data_dir=folder), folder, lambda _: None)


def api(folder: Path) -> str:
    return _own_secrets.api_auth(folder, lambda _: None, "0.0.0.0")


FILES: dict[str, Callable[[Path], str]] = {
    "certrail.key": sealing,
    "prefect.key": _own_secrets.prefect_key,
    "api-auth": api,
}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERTRAIL_KEY", "CERTRAIL_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", FILES)
def test_they_are_made_once_and_private(name: str, tmp_path: Path) -> None:
    """A second start finds what the first one made."""
    first = FILES[name](tmp_path)
    text = (tmp_path / name).read_text()

    assert FILES[name](tmp_path) == first
    assert (tmp_path / name).read_text() == text
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", [b"", b"\0" * 45, b"\xff\xfe\n", b"A" * 20])
def test_a_damaged_one_is_named_and_left_alone(name: str, text: bytes, tmp_path: Path) -> None:
    """A power cut leaves files empty, or full of zeros; Prefect would end without a word."""
    path = tmp_path / name
    path.touch(mode=0o600)
    path.write_bytes(text)

    with pytest.raises(KeyUnavailable) as caught:
        FILES[name](tmp_path)

    assert caught.value.remedy
    assert path.read_bytes() == text


@pytest.mark.parametrize("name", ["certrail.key", "prefect.key"])
def test_one_that_is_lost_is_not_made_anew(name: str, tmp_path: Path) -> None:
    """It would look like success, and nothing that is stored would open."""
    FILES[name](tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "server.log").touch()
    (tmp_path / name).unlink()

    with pytest.raises(KeyUnavailable, match=r"missing") as caught:
        FILES[name](tmp_path)

    assert "backup --keys" in caught.value.remedy
    assert not (tmp_path / name).exists()
