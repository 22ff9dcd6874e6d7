"""The step "Certificate installed" with a real inventory and appliances that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import insert

from blocks.targets.bigip import BigIpTarget
from certrail.configuration import ConnectorRef, Plan
from certrail.connectors import InstallTarget
from certrail.errors import ActivationRefused, Busy, Unreachable
from certrail.model import Action, Bundle, Fingerprint, Site, Workflow
from certrail.steps import installation
from certrail.steps.outcome import Work
from certrail.store import certificates, keys, request_runs, requests
from certrail.store.database import transaction
from certrail.store.requests import Reason
from certrail.store.schema import endpoints
from certrail.tracker import StepStatus
from tests.support.bigip_api import BigIp
from tests.support.device import SITE, Device, Reply
from tests.support.targets import DEVICES, Target

BIGIP = next(target for target in DEVICES if target.device is BigIp)
Opener = Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]


def request_for(device: Device, bundle: Bundle, location: str = "lb/www") -> UUID:
    """Return a request that has its certificate and is about to install it."""
    plan = Plan(
        location=f"127.0.0.1:{device.port}",
        names=(SITE,),
        addresses=(),
        sni=SITE,
        target=ConnectorRef(name="lb", slug="target-test"),
        workflow=Workflow.APPLIANCE,
        profile="appliances",
        ca=ConnectorRef(name="ca", slug="ca-acme"),
        trust_pem=device.roots,
        install_timeout_seconds=1,
    )
    assert bundle.key
    with transaction() as connection:
        endpoint: UUID = connection.execute(
            insert(endpoints).values(location=location).returning(endpoints.c.id)
        ).scalar_one()
    request = requests.create(
        endpoint, action=Action.RENEW, plan=plan, reason=Reason("requested", "by test"), actor="t"
    )
    request_runs.take(request.id, "run", timedelta(seconds=60))
    with transaction() as connection:
        key = keys.keep(connection, bundle.key, purpose="certificate", algorithm="ecdsa-p256")
        certificate = certificates.save(connection, bundle.chain, key_id=key, ca="ca")
        requests.keep_certificate(connection, request.id, certificate)
    return request.id


def work_of(request_id: UUID) -> Work:
    """Return the request as a fresh run sees it."""
    return Work.of(requests.get(request_id))


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
        request = request_for(device, bundle)

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
        request = request_for(device, device.ca.bundle(SITE))
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
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_reply_that_is_lost_is_made_up_for_by_a_retry(
    database_url: str,
    target: Target,
    after: bool,
) -> None:
    """Nobody knows whether it was done; the next run finds out and goes on."""
    assert target.device
    with target.device().running() as device:
        opens = target.opener(device)
        bundle = device.ca.bundle(SITE)
        request = request_for(device, bundle)
        device.fault(*target.switch, cut=True, after=after, times=1)

        with pytest.raises(Unreachable):
            installation.install(work_of(request), opens)
        outcome = installation.install(work_of(request), opens)

        assert outcome.status is StepStatus.COMPLETED
        assert bundle.chain.fingerprint == device.served()


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_a_device_that_somebody_else_holds_is_waited_for(database_url: str, target: Target) -> None:
    """Their change has to be committed first: nothing is changed meanwhile, and a retry goes on."""
    assert target.device
    with target.device().running() as device:
        opens = target.opener(device)
        bundle = device.ca.bundle(SITE)
        request = request_for(device, bundle)
        device.fault(*target.switch, reply=Reply(503, b""))

        with pytest.raises((Busy, Unreachable)) as caught:
            installation.install(work_of(request), opens)

        assert caught.value.retryable
        assert device.old.chain.fingerprint == device.served() == configured(opens)
        installation.install(work_of(request), opens)
        assert bundle.chain.fingerprint == device.served()


def test_two_requests_for_one_device_come_one_after_the_other(database_url: str) -> None:
    """Two half-done changes of one profile would leave a third."""
    with BigIp().running() as device:
        opener = BIGIP.opener(device)
        bundles = [device.ca.bundle(SITE) for _ in range(2)]
        wanted = [request_for(device, one, f"lb/{n}") for n, one in enumerate(bundles)]
        busy, most = [0], [0]
        gate = threading.Lock()
        told: list[str] = []

        def run(request: UUID) -> None:
            @contextmanager
            def counted() -> Iterator[tuple[InstallTarget, Site]]:
                with opener() as (target, site):
                    yield Counting(target, busy, most, gate), site

            try:
                told.append(installation.install(work_of(request), counted).detail)
            except ActivationRefused as exc:
                told.append(str(exc))

        threads = [threading.Thread(target=run, args=(one,)) for one in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(told) == 2
        assert most == [1]
        assert device.served() in {one.chain.fingerprint for one in bundles}


class Counting(BigIpTarget):
    """A target that knows how many changes are under way."""

    def __init__(
        self, inner: InstallTarget, busy: list[int], most: list[int], gate: threading.Lock
    ) -> None:
        assert isinstance(inner, BigIpTarget)
        self.__dict__.update(inner.__dict__)
        self._busy, self._most, self._gate = busy, most, gate

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None):  # type: ignore[no-untyped-def]
        with self._gate:
            self._busy[0] += 1
            self._most[0] = max(self._most[0], self._busy[0])
        try:
            return super().stage(site, bundle, replaces)
        finally:
            with self._gate:
                self._busy[0] -= 1
