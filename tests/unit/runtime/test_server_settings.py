"""How the Prefect server is set up."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.cli._server import (
    SERVER_SETTINGS,
    Address,
    base_environment,
    server_command,
    server_environment,
)


def test_prefect_accepts_every_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A misspelt one is ignored silently, and the default loses task runs."""
    from prefect.settings import Settings

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for setting in SERVER_SETTINGS:
        monkeypatch.setenv(setting.variable, setting.value)
    shown = Settings()

    for setting in SERVER_SETTINGS:
        value: object = shown
        for word in setting.path.split("."):
            value = getattr(value, word)
        names = {setting.variable.lower(), setting.variable.upper()}
        assert names & set(shown.to_environment_variables(exclude_unset=True)), setting.variable


@pytest.mark.parametrize(
    ("host", "local", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:4200"),
        ("localhost", True, "http://localhost:4200"),
        ("::1", True, "http://[::1]:4200"),
        ("0.0.0.0", False, "http://127.0.0.1:4200"),
        ("::", False, "http://[::1]:4200"),
        ("192.0.2.7", False, "http://192.0.2.7:4200"),
    ],
)
def test_addresses(host: str, local: bool, url: str) -> None:
    """Whether a password is asked for hangs on it."""
    address = Address(host, 4200)

    assert address.is_loopback is local
    assert address.local_url == url


def test_behind_a_proxy_browsers_get_its_address(tmp_path: Path) -> None:
    """Links in a mail must open where people are."""
    environment = server_environment(
        Address("127.0.0.1", 4200, "https://certs.example.test/"),
        database_url="postgresql://u:p@h/prefect",
        home=tmp_path,
        encryption_key="k",
        api_auth="",
    )

    assert environment["PREFECT_UI_URL"] == "https://certs.example.test"
    assert environment["PREFECT_SERVER_UI_API_URL"] == "https://certs.example.test/api"
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert (
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
        == "postgresql+asyncpg://u:p@h/prefect"
    )


def test_what_is_set_by_hand_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An operator who knows better must not edit the program."""
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "7")

    assert base_environment(tmp_path)["PREFECT_WORKER_QUERY_SECONDS"] == "7"


def test_the_command_line_holds_no_secret() -> None:
    """Every account can read it."""
    assert server_command()[1:] == ["-m", "certrail.cli._serve"]
