"""How the Prefect server is set up."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from certrail.cli._redis import answering_redis
from certrail.cli._server import (
    REDIS_SETTINGS,
    SERVER_SETTINGS,
    Address,
    base_environment,
    server_command,
    server_environment,
)
from certrail.errors import CertrailError, InvalidRequest, Unreachable


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


def test_prefect_accepts_every_setting_for_redis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A misspelt one would leave the processes of a server deaf to each other."""
    from prefect.settings import Settings
    from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
    from prefect_redis.client import RedisMessagingSettings
    from prefect_redis.messaging import RedisMessagingPublisherSettings

    url = "redis://:secret@127.0.0.1:6379/0"
    address = Address("127.0.0.1", 4200)
    made = server_environment(
        address,
        database_url="postgresql://x/y",
        home=tmp_path,
        encryption_key="k",
        api_auth="",
        redis_url=url,
    )
    urls = [name for name, value in made.items() if value == url]
    leases = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
    for name in (*REDIS_SETTINGS, *urls, leases, "PREFECT_HOME"):
        monkeypatch.setenv(name, made[name])
    shown = Settings().server

    assert (
        shown.events.messaging_broker == shown.events.messaging_cache == "prefect_redis.messaging"
    )
    assert shown.events.causal_ordering == "prefect_redis.ordering"
    assert shown.concurrency.lease_storage == "prefect.server.concurrency.lease_storage.filesystem"
    assert shown.worker_channel.cleanup_queue_storage == "prefect_redis.cleanup_queue"
    assert url in str(getattr(shown.docket.url, "get_secret_value", lambda: shown.docket.url)())
    assert RedisMessagingSettings().url == RedisWorkerCleanupQueueSettings().url == url
    publisher = RedisMessagingPublisherSettings()
    assert publisher.batch_size == 1
    assert publisher.publish_every >= timedelta(days=365), "it would drop events meanwhile"


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("http://127.0.0.1:6379", InvalidRequest, "cannot be used"),
        ("redis://", InvalidRequest, "cannot be used"),
        ("redis://:hidden@127.0.0.1:1/0", Unreachable, "127.0.0.1:1 does not answer"),
    ],
)
def test_a_redis_that_cannot_be_used_is_named(
    url: str, error: type[CertrailError], said: str
) -> None:
    """Without the password; the server would only hang."""
    with pytest.raises(error, match=said) as caught:
        answering_redis(url)

    assert "hidden" not in str(caught.value)


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
