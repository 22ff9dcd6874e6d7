"""A real Redis changed over its own protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blocks.targets.redis_server import SITE, RedisTarget, client
from certrail.errors import (
    ActivationRefused,
    AuthenticationFailed,
    CertrailError,
    Conflict,
    InvalidRequest,
    PermissionRefused,
    Unreachable,
)
from certrail.model import Site
from certrail.remote.local import LocalHost
from tests.support.nginx import store
from tests.support.redis_server import NAMES, PASSWORD, RedisProcess

PLACE = Site(SITE)


@contextmanager
def target(server: RedisProcess, *, rewrite: bool = True, **more: Any) -> Iterator[RedisTarget]:
    """Open a target over TLS, as the block does."""
    options: dict[str, Any] = {"tls": True, "ca_bundle": server.roots, "password": PASSWORD, **more}
    with client(options.pop("address", "localhost"), server.port, **options) as connection:
        yield RedisTarget(
            connection,
            LocalHost("here"),
            label="cache",
            directory=str(server.directory / "certrail"),
            rewrite=rewrite,
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A running Redis."""
    with RedisProcess.started(tmp_path) as running:
        yield running


def test_a_restart_keeps_the_new_certificate(tmp_path: Path) -> None:
    """CONFIG SET alone is forgotten."""
    with RedisProcess.started(tmp_path) as server, target(server) as one:
        staged = one.stage(PLACE, server.ca.bundle(*NAMES), None)
        assert "saved" in one.activate(staged)

    with server.again():
        assert staged.fingerprint == server.served()


def test_not_saved_is_said(server: RedisProcess) -> None:
    """Somebody chose it; the line in the request says what it means."""
    with target(server, rewrite=False) as one:
        staged = one.stage(PLACE, server.ca.bundle(*NAMES), None)
        assert "restart" in one.activate(staged)
        assert "not saved" in one.check()


def test_a_server_without_a_file_is_refused_before_anything_happens(tmp_path: Path) -> None:
    """Otherwise it would be found out after the switch."""
    with RedisProcess.started(tmp_path, file=False) as server, target(server) as one:
        with pytest.raises(InvalidRequest) as caught:
            one.stage(PLACE, server.ca.bundle(*NAMES), None)
        assert "rewrite: false" in caught.value.remedy
        assert not (tmp_path / "certrail").exists()


def test_a_file_that_cannot_be_saved(server: RedisProcess) -> None:
    """The certificate is live; a restart would undo it, and the message says so."""
    with target(server) as one:
        staged = one.stage(PLACE, server.ca.bundle(*NAMES), None)
        config = server.directory / "redis.conf"
        config.rename(server.directory / "moved.conf")
        config.mkdir()
        with pytest.raises(PermissionRefused, match="live, but not saved"):
            one.activate(staged)
        assert staged.fingerprint == server.served()

        config.rmdir()
        one.activate(staged)
        assert str(staged.data["version"]) in config.read_text()


def test_old_versions_go_and_the_one_in_use_stays(server: RedisProcess) -> None:
    """Keys that nobody serves must not lie around."""
    for _ in range(3):
        with target(server) as one:
            staged = one.stage(PLACE, server.ca.bundle(*NAMES), None)
            one.activate(staged)
            one.discard(staged)

    assert [str(staged.data["version"])] == os.listdir(server.directory / "certrail" / "versions")


def test_replaced_by_somebody_between_stage_and_activate(server: RedisProcess) -> None:
    """Their certificate stays, and nothing of theirs is put back by us."""
    theirs = server.ca.bundle(*NAMES)
    store(server.directory / "theirs", theirs)
    with target(server) as one:
        staged = one.stage(PLACE, server.ca.bundle(*NAMES), None)
        files = [str(server.directory / f"theirs.{end}") for end in ("pem", "key")]
        server.command("CONFIG SET", "tls-cert-file", files[0], "tls-key-file", files[1])

        with pytest.raises(Conflict):
            one.activate(staged)
        with pytest.raises(Conflict):
            one.restore(staged)

    assert theirs.chain.fingerprint == server.served()


def test_a_key_that_the_server_cannot_read(server: RedisProcess) -> None:
    """The most frequent mistake: written by root, read by redis."""
    with target(server) as one:
        staged = one.stage(PLACE, server.ca.bundle(*NAMES), None)
        (server.directory / "certrail/versions" / staged.data["version"] / "privkey.pem").unlink()

        with pytest.raises(ActivationRefused) as caught:
            one.activate(staged)

    assert "key_owner" in caught.value.remedy
    assert server.old.chain.fingerprint == server.served()


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        pytest.param({"password": "wrong"}, AuthenticationFailed, "password", id="password"),
        pytest.param({"password": ""}, AuthenticationFailed, "password", id="none"),
        pytest.param({"address": "127.0.0.1"}, Unreachable, "name", id="name"),
        pytest.param({"ca_bundle": ""}, Unreachable, "ca_bundle", id="trust"),
        pytest.param({"tls": False}, Unreachable, "", id="plain to TLS"),
    ],
)
def test_what_is_missing_is_said(
    server: RedisProcess, options: dict[str, Any], error: type[CertrailError], told: str
) -> None:
    """With what to do about it, and without the password."""
    with target(server, **options) as one, pytest.raises(error) as caught:
        one.check()

    assert told in caught.value.remedy
    assert PASSWORD not in str(caught.value)


def test_an_account_that_may_not_change_anything(server: RedisProcess) -> None:
    """Names the rights that are missing."""
    with target(server, username="reader", password="reader") as one:
        staged = one.stage(PLACE, server.ca.bundle(*NAMES), None)
        with pytest.raises(PermissionRefused) as caught:
            one.activate(staged)

    assert "+config|set" in caught.value.remedy


def test_there_is_one_site(server: RedisProcess) -> None:
    """A name typed wrong must not silently mean the whole server."""
    with target(server) as one, pytest.raises(InvalidRequest) as caught:
        one.serving(Site("www.example.test"))
    assert f"`{SITE}`" in caught.value.remedy
