"""A real Caddy changed through its admin API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks.targets.caddy import CaddyAdmin, CaddyTarget
from certrail.errors import ActivationRefused, Busy, Conflict, InvalidRequest, PermissionRefused
from certrail.model import Site
from certrail.remote import http
from tests.support.caddy import SITE, Caddy, entry

LOADED = "apps/tls/certificates/load_pem"


@contextmanager
def target(caddy: Caddy) -> Iterator[CaddyTarget]:
    """Open a target as the block does."""
    with http.client(caddy.url, headers={"Connection": "close"}) as client:
        yield CaddyTarget(client, "caddy")


@pytest.fixture
def caddy(tmp_path: Path) -> Iterator[Caddy]:
    """A running Caddy with one site."""
    with Caddy.started(tmp_path) as running:
        yield running


def test_the_block_opens_it(caddy: Caddy) -> None:
    """As a worker would, from stored settings."""
    with CaddyAdmin(url=caddy.url).connect() as one:
        assert "1 certificate in its configuration" in one.check()


def test_a_restart_with_resume_keeps_the_new_certificate(tmp_path: Path) -> None:
    """And one with the old file does not, as `check` and the documentation say."""
    with Caddy.started(tmp_path) as caddy:
        bundle = caddy.ca.bundle(SITE)
        with target(caddy) as one:
            one.activate(one.stage(Site(SITE), bundle, None))

    with caddy.again(resume=True):
        assert bundle.chain.fingerprint == caddy.served()
    with caddy.again(resume=False):
        assert caddy.old.chain.fingerprint == caddy.served()


def test_a_caddy_that_saves_nothing_says_so(tmp_path: Path) -> None:
    """A certificate that is gone after a restart is an outage that waits."""
    with Caddy.started(tmp_path, persist=False) as caddy, target(caddy) as one:
        assert "not saved at all" in one.check()


def test_somebody_else_changes_the_configuration_at_the_same_moment(caddy: Caddy) -> None:
    """The index of an entry may mean another one by now: Caddy compares, we try again."""
    bundle = caddy.ca.bundle(SITE)
    with target(caddy) as one:
        staged = one.stage(Site(SITE), bundle, None)
        read = one._read

        def read_then_they_write() -> object:
            config = read()
            other = caddy.ca.bundle("other.example.test")
            assert caddy.change("PUT", f"{LOADED}/0", entry(other)) == 200
            return config

        one._read = read_then_they_write  # type: ignore[method-assign, assignment]
        with pytest.raises(Busy):
            one.activate(staged)
        one._read = read  # type: ignore[method-assign]
        assert caddy.old.chain.fingerprint == caddy.served(SITE)

        one.activate(staged)

    assert bundle.chain.fingerprint == caddy.served(SITE)
    assert len(caddy.config(LOADED)) == 2


def test_a_site_without_a_certificate_gets_an_entry_and_loses_it_again(caddy: Caddy) -> None:
    """Nothing was there, so nothing is there after it was undone."""
    site = Site("new.example.test")
    before = caddy.config()
    with target(caddy) as one:
        assert one.serving(site) is None
        staged = one.stage(site, caddy.ca.bundle("new.example.test"), None)
        one.activate(staged)
        assert staged.fingerprint == caddy.served("new.example.test")
        assert caddy.old.chain.fingerprint == caddy.served(SITE)

        one.restore(staged)
        one.discard(staged)

    assert before == caddy.config()


def test_a_caddy_without_any_certificate_yet(tmp_path: Path) -> None:
    """The path in its configuration is made as deep as it has to be."""
    with Caddy.started(tmp_path) as caddy:
        assert caddy.change("DELETE", "apps/tls", None) == 200
        with target(caddy) as one:
            assert list(one.sites()) == []
            staged = one.stage(Site(SITE), caddy.ca.bundle(SITE), None)
            one.activate(staged)

        assert staged.fingerprint == caddy.served()


def test_two_entries_for_one_name_need_a_tag(caddy: Caddy) -> None:
    """Guessing would replace the wrong one half of the time."""
    assert caddy.change("POST", LOADED, entry(caddy.ca.bundle(SITE), tags=["second"])) == 200
    second = caddy.config(LOADED)[1]["certificate"]
    with target(caddy) as one:
        with pytest.raises(InvalidRequest) as caught:
            one.serving(Site(SITE))
        assert "tag" in caught.value.remedy

        staged = one.stage(Site("second"), caddy.ca.bundle(SITE), None)
        one.activate(staged)
        assert one.serving(Site("second")) == staged.fingerprint
        assert caddy.config(LOADED)[1]["tags"] == ["second", "certrail:second"]

        one.restore(staged)
    assert second == caddy.config(LOADED)[1]["certificate"]


def test_replaced_by_somebody_between_stage_and_activate(caddy: Caddy) -> None:
    """Their certificate stays."""
    theirs = caddy.ca.bundle(SITE)
    with target(caddy) as one:
        staged = one.stage(Site(SITE), caddy.ca.bundle(SITE), caddy.old.chain.fingerprint)
        assert caddy.change("PATCH", f"{LOADED}/0", entry(theirs)) == 200

        with pytest.raises(Conflict):
            one.activate(staged)

    assert theirs.chain.fingerprint == caddy.served()


def test_what_was_staged_is_gone(caddy: Caddy) -> None:
    """Caddy was restarted in between: the step stages again."""
    with target(caddy) as one:
        staged = one.stage(Site(SITE), caddy.ca.bundle(SITE), None)
        one.discard(staged)

        with pytest.raises(ActivationRefused) as caught:
            one.activate(staged)

    assert "staged again" in caught.value.remedy


def test_a_host_that_caddy_does_not_know(caddy: Caddy) -> None:
    """It answers only to its own names, against attacks by way of browsers."""
    with (
        http.client(caddy.url, headers={"Host": "lb.example.test"}) as client,
        pytest.raises(PermissionRefused) as caught,
    ):
        CaddyTarget(client, "caddy").check()

    assert "origins" in caught.value.remedy


def test_keys_do_not_travel_in_clear_text_unasked() -> None:
    """Caddy's API is meant for the machine itself."""
    with pytest.raises(InvalidRequest, match="clear text"):
        CaddyAdmin(url="http://web.example.test:2019").connect().__enter__()
