"""Where an installation is looked for."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from certrail.errors import InvalidRequest, Unreachable
from certrail.settings import (
    Installation,
    adopt,
    database_url,
    locate,
    settings,
    write_run_file,
)

RUNNING = Installation(
    api_url="http://127.0.0.1:4200/api",
    ui_url="http://127.0.0.1:4200",
    database_url="postgresql://certrail:hidden@127.0.0.1:5555/certrail",
    pid=os.getpid(),
    key_file="/srv/certrail.key",
    api_auth="certrail:hidden",
)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory, and an environment that names nothing else."""
    for name in list(os.environ):
        if name.startswith(("CERTRAIL_", "PREFECT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CERTRAIL_DATA_DIR", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def test_another_shell_finds_what_runs(data_dir: Path) -> None:
    """Nobody exports five variables before a look at the inventory."""
    write_run_file(data_dir, RUNNING)

    found = locate()

    assert (found.api_url, found.database_url) == (RUNNING.api_url, RUNNING.database_url)
    assert (found.key_file, found.api_auth) == (RUNNING.key_file, RUNNING.api_auth)


def test_nothing_running_is_said_with_its_remedy(data_dir: Path) -> None:
    """A refused connection to port 4200 would explain nothing."""
    with pytest.raises(Unreachable) as caught:
        locate()

    assert "certrail up" in caught.value.remedy


def test_what_a_killed_installation_wrote_is_not_believed(data_dir: Path) -> None:
    """It cannot remove its file."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_run_file(data_dir, replace(RUNNING, pid=gone.pid))

    with pytest.raises(Unreachable):
        locate()


URLS = b'"api_url": "http://a/api", "ui_url": "http://a", "database_url": "postgresql://a/b"'


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b"{", b'{"pid": 1}', b"\xff", b"\0" * 40, b"[" * 100_000,
     b'{"pid": "1", %b}' % URLS, b'{"pid": 1e3, %b}' % URLS,
     b'{"pid": 9%b, %b}' % (b"9" * 30, URLS)],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_a_damaged_file_counts_as_none(data_dir: Path, text: bytes) -> None:
    """A full disk leaves half a file, not a traceback."""
    (data_dir / "run.json").write_bytes(text)

    with pytest.raises(Unreachable):
        locate()


def test_the_environment_comes_first(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on another machine is told where its installation is."""
    write_run_file(data_dir, RUNNING)
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.test/api/")
    monkeypatch.setenv("CERTRAIL_DATABASE_URL", "postgresql://other/certrail")
    settings.cache_clear()

    found = locate()

    assert found.api_url == "https://prefect.example.test/api"
    assert found.ui_url == "https://prefect.example.test"
    assert found.database_url == "postgresql://other/certrail" == database_url()
    # The password of the local API is not sent to the other one.
    assert found.api_auth == ""


def test_adopting_sets_what_the_libraries_read(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's client and the keyring read variables of their own."""
    write_run_file(data_dir, RUNNING)
    for name in RUNNING.environment():
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("CERTRAIL_DATA_DIR", str(data_dir))

    adopt()

    assert os.environ["PREFECT_API_URL"] == RUNNING.api_url
    assert os.environ["CERTRAIL_KEY_FILE"] == RUNNING.key_file
    assert database_url() == RUNNING.database_url


def test_the_file_is_private_and_its_secrets_are_not_printed(data_dir: Path) -> None:
    """It holds the database's password."""
    write_run_file(data_dir, RUNNING)

    assert stat.S_IMODE((data_dir / "run.json").stat().st_mode) == 0o600
    assert "hidden" not in repr(RUNNING)
    assert "hidden" not in repr(locate())


def test_a_bad_value_names_its_variable(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person sees a variable, not a field of a class."""
    monkeypatch.setenv("CERTRAIL_PORT", "high")
    settings.cache_clear()

    with pytest.raises(InvalidRequest, match="CERTRAIL_PORT"):
        settings()
