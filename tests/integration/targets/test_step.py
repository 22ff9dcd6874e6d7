"""The step "Certificate installed" with a real inventory and appliances that misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.targets.bigip import BigIpTarget
from blocks.targets.haproxy import HaproxyRuntimeTarget, RuntimeApi
from certrail.connectors import InstallTarget
from certrail.errors import ActivationRefused, Busy, Unreachable
from certrail.model import Fingerprint, Site
from certrail.remote.local import LocalHost
from certrail.steps import installation
from certrail.tracker import StepStatus
from tests.support import bigip_api
from tests.support.bigip_api import BigIp
from tests.support.device import SITE, Reply
from tests.support.haproxy_runtime import HaproxyRuntime, debian
from tests.support.installing import Opener, request_for, work_of
from tests.support.targets import DEVICES, Target

BIGIP = next(target for target in DEVICES if target.device is BigIp)


def configured(opener: Opener) -> Fingerprint | None:
    """Return what the device says it serves."""
    with opener() as (target, site):
        return target.serving(site)


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_installed_seen_and_accepted(database_url: str, target: Target) -> None:
    """By a handshake; and what is no longer needed is gone afterwards."""
    assert target.device
    with target.device().running() as device:
        opens = target.opener(device)
        bundle = device.ca.bundle(SITE)
        request = request_for(device.ca, bundle, device.port)

        outcome = installation.install(work_of(request), opens)
        installation.accept(work_of(request), opens)

        assert outcome.status is StepStatus.COMPLETED
        assert bundle.chain.fingerprint == device.served() == configured(opens)


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_a_device_that_serves_the_old_one_is_noticed(
    database_url: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said yes to everything: only a client can tell."""
    assert target.device
    with target.device().running() as device:
        opens = target.opener(device)
        with opens() as (one, _):
            at_once = replace(one.traits, settles_within=timedelta(0))
            monkeypatch.setattr(type(one), "traits", at_once)
        assert device.old.chain.fingerprint == device.served()
        request = request_for(device.ca, device.ca.bundle(SITE), device.port, seconds=1)
        device.stuck = True

        with pytest.raises(ActivationRefused) as caught:
            installation.install(work_of(request), opens)

        assert "the previous certificate serves again" in str(caught.value)
        assert device.old.chain.fingerprint == configured(opens)
        device.stuck = False
        outcome = installation.install(work_of(request), opens)
        assert outcome.status is StepStatus.COMPLETED
        assert device.old.chain.fingerprint != device.served()


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_a_device_that_somebody_else_holds_is_waited_for(database_url: str, target: Target) -> None:
    """Their change has to be committed first: nothing is changed meanwhile, and a retry goes on."""
    assert target.device
    with target.device().running() as device:
        opens = target.opener(device)
        bundle = device.ca.bundle(SITE)
        request = request_for(device.ca, bundle, device.port)
        device.fault(*target.switch, reply=Reply(503, b""))

        with pytest.raises((Busy, Unreachable)) as caught:
            installation.install(work_of(request), opens)

        assert caught.value.retryable
        assert device.old.chain.fingerprint == device.served() == configured(opens)
        installation.install(work_of(request), opens)
        assert bundle.chain.fingerprint == device.served()


def test_what_was_put_back_is_told_so_though_leftovers_stay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account may change profiles, not delete files: the old certificate serves again."""
    with BigIp().running() as device:
        opens = BIGIP.opener(device)
        with opens() as (one, _):
            at_once = replace(one.traits, settles_within=timedelta(0))
            monkeypatch.setattr(type(one), "traits", at_once)
        assert device.old.chain.fingerprint == device.served()
        request = request_for(device.ca, device.ca.bundle(SITE), device.port, seconds=1)
        device.stuck = True
        said = {
            "code": 403,
            "message": "Access Denied: User (certrail) does not have delete access",
        }
        device.fault("DELETE", "/sys/file/", reply=Reply(403, said), times=9)

        with pytest.raises(ActivationRefused) as caught:
            installation.install(work_of(request), opens)

        assert "the previous certificate serves again" in str(caught.value)
        assert "putting back the previous certificate failed" not in str(caught.value)
        assert any(call.startswith("DELETE /mgmt/tm/sys/file/") for call in device.calls)
        assert device.old.chain.fingerprint == configured(opens)


def test_bigip_waits_for_changes_that_somebody_has_not_synchronised(database_url: str) -> None:
    """Ours would carry their half-done ones to the peer; the old certificate serves meanwhile."""
    with BigIp().running() as device:
        profiles = device.state.profiles
        bundle = device.ca.bundle(SITE)
        request = request_for(device.ca, bundle, device.port)

        @contextmanager
        def opens() -> Iterator[tuple[InstallTarget, Site]]:
            with BIGIP.opener(device)() as (one, site):
                assert isinstance(one, BigIpTarget)
                yield BigIpTarget(one._session, sync_group="pair"), site

        profiles["/Common/theirs"] = [dict(profiles[bigip_api.PROFILE][0])]
        before = device.snapshot()
        with pytest.raises(Busy, match=r"Changes Pending.*Recommended action") as caught:
            installation.install(work_of(request), opens)

        assert caught.value.retryable
        assert "config-sync to-group pair" in caught.value.remedy
        assert before == device.snapshot()
        assert device.old.chain.fingerprint == device.served() == configured(opens)
        device.synced = device.state.copy()  # they did it
        installation.install(work_of(request), opens)
        assert bundle.chain.fingerprint == device.served()
        assert device.synced.profiles == device.state.profiles


def test_haproxy_waits_for_a_transaction_that_somebody_has_not_committed(
    database_url: str, tmp_path: Path
) -> None:
    """A real one: its socket has one transaction for everybody."""
    with HaproxyRuntime.running(tmp_path, debian()) as haproxy:
        bundle, theirs = haproxy.ca.bundle(SITE), haproxy.ca.bundle("theirs.example.test")
        request = request_for(haproxy.ca, bundle, haproxy.port)

        @contextmanager
        def opens() -> Iterator[tuple[InstallTarget, Site]]:
            api = RuntimeApi(haproxy.socket, "lb", timedelta(seconds=10))
            yield HaproxyRuntimeTarget(api, LocalHost("here")), Site(str(haproxy.file))

        assert theirs.key
        haproxy.command("new ssl cert /theirs.pem")
        haproxy.command(
            "set ssl cert /theirs.pem", theirs.chain.text + theirs.key.reveal().decode()
        )
        with pytest.raises(Busy, match=r"theirs\.pem") as caught:
            installation.install(work_of(request), opens)

        assert caught.value.retryable
        assert "commit ssl cert /theirs.pem" in caught.value.remedy
        assert haproxy.old.chain.fingerprint == haproxy.served(SITE) == configured(opens)
        assert "Success" in haproxy.command("commit ssl cert /theirs.pem")
        installation.install(work_of(request), opens)
        assert bundle.chain.fingerprint == haproxy.served(SITE)
