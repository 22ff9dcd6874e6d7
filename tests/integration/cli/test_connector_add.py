"""``certrail connector add`` at a terminal: it asks for the settings of any type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.prefect_api import PrefectApi
from tests.support.terminal import certrail

SECRET = "never-on-the-screen"


@pytest.fixture
def api(shell: Shell) -> Iterator[PrefectApi]:
    """Prefect's API."""
    api = PrefectApi(shell.stack.api_url)
    yield api
    api.close()


def _stored(api: PrefectApi, slug: str, name: str) -> dict[str, Any]:
    found = api.get(f"/block_types/slug/{slug}/block_documents/name/{name}?include_secrets=true")
    return dict(found["data"])


def test_what_is_asked_makes_a_connector_that_works(shell: Shell, api: PrefectApi) -> None:
    """A name server: text, a hidden secret, numbers with their defaults, lists."""
    settings = next(
        dict(one) for one in shell.configuration()["connectors"] if one["type"] == "dns-powerdns"
    )
    with certrail("connector", "add", "dns-powerdns", "typed-ns", env=shell.stack.env) as terminal:
        # Each question comes with what the setting means.
        assert "Address of the API's web server" in terminal.expect("url")
        terminal.answer(": ", settings["url"])
        terminal.answer("api_key: ", settings["api_key"])
        terminal.answer("server_id [localhost]: ", "")
        terminal.answer("ca_bundle", "")
        terminal.answer("ttl [60]: ", "sixty")
        terminal.answer("ttl [60]: ", "30")
        terminal.answer("timeout [20]: ", "")
        terminal.answer("nameservers", ", ".join(settings["nameservers"]))
        terminal.answer("resolvers", "")
        terminal.answer("propagation_timeout [120]: ", "")
        terminal.answer("poll_interval [2.0]: ", "0.5")
        terminal.expect("connector typed-ns created; try it with `certrail connector check")
        assert terminal.ended() == 0
        assert settings["api_key"] not in terminal.shown
        assert "should be a valid integer" in terminal.shown

    stored = _stored(api, "dns-powerdns", "typed-ns")
    assert (stored["ttl"], stored["poll_interval"]) == (30, 0.5)
    assert stored["nameservers"] == settings["nameservers"]
    assert stored["api_key"].startswith("sealed:")
    assert shell.json("connector", "check", "typed-ns")[0]["ok"]


def test_optional_secrets_and_choices_can_be_left_out(shell: Shell, api: PrefectApi) -> None:
    """Enter takes the default; a secret that is not needed may be left empty."""
    with certrail("connector", "add", "ca-acme", "typed-ca", env=shell.stack.env) as terminal:
        terminal.answer("directory_url: ", "ftp://nowhere")
        # Told at once, not after six more questions.
        terminal.answer("directory_url: ", "https://127.0.0.1:1/dir")
        terminal.answer("contact", "ops@example.test")
        terminal.answer("eab_kid", "kid-1")
        terminal.answer("eab_hmac_key", SECRET)
        for field in ("ca_bundle", "preferred_chain", "allowed_origins", "lifetime_hours"):
            terminal.answer(field, "")
        assert terminal.ended() == 0
        assert SECRET not in terminal.shown
    stored = _stored(api, "ca-acme", "typed-ca")
    assert stored["eab_hmac_key"].startswith("sealed:")
    (checked,) = shell.json("connector", "check", "typed-ca", code=1)
    assert "refused" in checked["message"].lower()
    assert checked["remedy"]


def test_a_host_is_asked_for_what_one_way_of_login_needs(shell: Shell, api: PrefectApi) -> None:
    """Yes and no are typed as such; a reference to a secret stays a reference."""
    with certrail("connector", "add", "host-local", "typed-here", env=shell.stack.env) as terminal:
        terminal.answer("sudo", "maybe")
        terminal.answer("sudo", "no")
        terminal.answer("sudo_password", "env:SUDO_PASSWORD")
        terminal.answer("sudo_listed", "no")
        assert terminal.ended() == 0
    stored = _stored(api, "host-local", "typed-here")
    assert stored["sudo"] is False
    assert stored["sudo_password"] == "env:SUDO_PASSWORD"


def test_interrupted_nothing_is_saved(shell: Shell) -> None:
    """Ctrl-C in the middle of the questions."""
    with certrail("connector", "add", "dns-rfc2136", "typed-half", env=shell.stack.env) as terminal:
        terminal.answer("server", "192.0.2.53")
        terminal.expect("port")
        assert terminal.interrupted() == 130
        assert "Traceback" not in terminal.shown
    assert "typed-half" not in shell("connector", "list").stdout


def test_a_name_that_is_taken_is_told_before_the_questions(shell: Shell) -> None:
    """Nobody wants to answer ten questions for nothing."""
    with certrail("connector", "add", "ca-acme", "cli-pebble", env=shell.stack.env) as terminal:
        assert terminal.ended() == 2
        assert "there is a connector cli-pebble already" in terminal.shown
        assert "directory_url" not in terminal.shown
