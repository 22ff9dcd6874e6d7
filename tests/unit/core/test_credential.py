"""The file by which an agent or sensor on another machine gets in."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail import credential, settings
from certrail.credential import Credential
from certrail.errors import InvalidRequest, KeyUnavailable
from certrail.keys.seal import Keyring, new_key

URL = "postgresql://agents:geheim%C3%BC@db.example.test/certrail"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "agent.credential"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_it_is_all_that_a_worker_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the address of the API, which is no secret."""
    keys = f"# made in 2027\n{new_key()}\n{new_key()}\n"
    path = written(tmp_path, Credential(URL, "certrail:pass:word", keys).to_text())
    for name in ("CERTRAIL_DATABASE_URL", "CERTRAIL_KEY", "CERTRAIL_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    monkeypatch.setenv("CERTRAIL_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("PREFECT_API_URL", "https://certrail.example.test/api")
    monkeypatch.setenv("CERTRAIL_CREDENTIAL_FILE", str(path))
    settings.settings.cache_clear()
    try:
        found = settings.locate()
    finally:
        monkeypatch.undo()
        settings.settings.cache_clear()

    assert (found.database_url, found.api_auth) == (URL, "certrail:pass:word")
    assert Keyring.from_file(Path(found.key_file)).ids == Keyring.from_text(keys).ids
    assert "geheim" not in repr(found)


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (Credential(URL, "", new_key()).to_text(), 0o640, "readable by others"),
        (new_key(), 0o600, "is no credential"),
        (f"{credential.HEAD}\n{new_key()}\n", 0o600, "is no credential"),
    ],
    ids=["group", "a key file", "without a database"],
)
def test_what_is_none_is_refused(text: str, mode: int, told: str, tmp_path: Path) -> None:
    """With what to do, before anything is tried with it."""
    with pytest.raises(InvalidRequest, match=told) as caught:
        credential.read(written(tmp_path, text, mode))
    assert caught.value.remedy
    with pytest.raises(InvalidRequest, match="No such file"):
        credential.read(tmp_path / "nothere")


def test_keys_are_not_changed_in_a_copy(tmp_path: Path) -> None:
    """A key that only one agent has would lock out everything else."""
    from certrail.cli.key import _file

    path = written(tmp_path, Credential(URL, "", new_key()).to_text())
    before = path.read_text()

    with pytest.raises(KeyUnavailable, match="credential"), _file(str(path)):
        pass
    assert path.read_text() == before
