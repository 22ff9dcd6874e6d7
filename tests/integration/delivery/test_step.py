"""The step "Certificate delivery" with a real inventory and a real directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert

from blocks._base import open_reference
from certrail.configuration.plan import ConnectorRef, Plan
from certrail.connectors import DeliveryTarget, Host
from certrail.delivery.directory import DirectoryDelivery
from certrail.errors import Conflict, Rejected, Unreachable
from certrail.model import Action, Bundle, Site, Workflow
from certrail.remote.local import LocalHost
from certrail.steps import delivery
from certrail.steps.outcome import Work
from certrail.store import certificates, keys, new_requests, request_runs, requests
from certrail.store.database import transaction
from certrail.store.requests import Reason
from certrail.store.schema import endpoints
from certrail.tracker import StepStatus
from tests.support.bundles import new_bundle

NAME = "shop.example.test"
LEASE = timedelta(seconds=60)


@pytest.fixture
def bundle() -> Bundle:
    return new_bundle(NAME)


@pytest.fixture
def work(database_url: str, tmp_path: Path, bundle: Bundle) -> Work:
    """A request that has its certificate and is about to deliver it."""
    plan = Plan(
        location="web1/shop",
        names=(NAME,),
        addresses=(),
        sni=None,
        server={"kind": "directory", "path": str(tmp_path / "ssl")},
        target=ConnectorRef(name="web1", slug="host-local"),
        workflow=Workflow.DELIVERY,
        profile="files",
        ca=ConnectorRef(name="ca", slug="ca-acme"),
    )
    assert bundle.key
    with transaction() as connection:
        endpoint: UUID = connection.execute(
            insert(endpoints).values(location=plan.location).returning(endpoints.c.id)
        ).scalar_one()
    request = new_requests.create(
        endpoint, action=Action.ENROLL, plan=plan, reason=Reason("requested", "by test"), actor="t"
    )
    request = request_runs.take(request.id, "run", LEASE)
    with transaction() as connection:
        key = keys.keep(connection, bundle.key, purpose="certificate", algorithm="ecdsa-p256")
        certificate = certificates.save(connection, bundle.chain, key_id=key, ca="ca")
        requests.keep_certificate(connection, request.id, certificate)
    return Work.of(requests.get(request.id))


Opener = Callable[[], AbstractContextManager[tuple[DeliveryTarget, Site]]]


def _opens(work: Work, host: Host | None = None, **more: Any) -> Opener:
    @contextmanager
    def opened() -> Iterator[tuple[DeliveryTarget, Site]]:
        target = DirectoryDelivery(host or LocalHost("web1"), open_reference)
        settings = {**work.plan.server, **more}
        yield target, Site(id="shop", names=work.plan.names, settings=settings)

    return opened


def test_the_certificate_is_delivered_and_read_back(
    work: Work, bundle: Bundle, tmp_path: Path
) -> None:
    """Only what was read back counts as delivered."""
    outcome = delivery.deliver(work, _opens(work))

    assert outcome.status is StepStatus.COMPLETED
    assert "read back" in outcome.detail
    assert (tmp_path / "ssl" / "fullchain.pem").read_text() == bundle.chain.text
    assert bundle.key
    assert (tmp_path / "ssl" / "privkey.pem").read_bytes() == bundle.key.reveal()


def test_a_repeated_step_changes_nothing(work: Work, tmp_path: Path) -> None:
    """A worker that died after the delivery goes through the step again."""
    delivery.deliver(work, _opens(work))
    before = sorted(tmp_path.rglob("*"))

    outcome = delivery.deliver(work, _opens(work))

    assert outcome.status is StepStatus.COMPLETED
    assert before == sorted(tmp_path.rglob("*"))


def test_a_failed_command_fails_the_step_and_a_retry_finishes_it(
    work: Work, tmp_path: Path
) -> None:
    """The exit code decides, and nothing is written twice."""
    marker = tmp_path / "works"
    opener = _opens(work, after=["test", "-e", str(marker)])
    with pytest.raises(Rejected) as caught:
        delivery.deliver(work, opener)
    marker.touch()

    outcome = delivery.deliver(work, opener)

    assert caught.value.code == "1"
    assert outcome.status is StepStatus.COMPLETED


def test_a_target_that_lies_is_found_out(work: Work) -> None:
    """A write that is lost on the way is noticed by reading back."""

    class Forgets(LocalHost):
        def make_link(self, path: str, target: str) -> None:
            return

    with pytest.raises(Conflict, match="nothing is there when read back"):
        delivery.deliver(work, _opens(work, Forgets("web1")))


def test_a_broken_connection_leaves_the_old_files(
    work: Work, bundle: Bundle, tmp_path: Path
) -> None:
    """Whatever call the connection breaks at, readers find a whole pair."""
    old = new_bundle(NAME)
    site = Site(id="shop", names=(NAME,), settings=dict(work.plan.server))
    DirectoryDelivery(LocalHost("web1"), open_reference).deliver(site, old)
    calls = 0

    class Breaks(LocalHost):
        left = 0

        def _use(self) -> None:
            nonlocal calls
            calls += 1
            if calls > self.left:
                raise Unreachable("the connection broke")

        def write_file(self, *args: Any, **kwargs: Any) -> None:
            self._use()
            super().write_file(*args, **kwargs)

        def make_link(self, *args: Any, **kwargs: Any) -> None:
            self._use()
            super().make_link(*args, **kwargs)

        def remove(self, *args: Any, **kwargs: Any) -> None:
            self._use()
            super().remove(*args, **kwargs)

    host = Breaks("web1")
    outcome = None
    while outcome is None:
        calls = 0
        try:
            outcome = delivery.deliver(work, _opens(work, host))
        except Unreachable:
            host.left += 1
        found = DirectoryDelivery(LocalHost("web1"), open_reference).delivered(site)
        assert found in (old.chain.fingerprint, bundle.chain.fingerprint)

    assert host.left > 4
    assert found == bundle.chain.fingerprint
