"""Going back to the certificate before, on real servers with a real inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select

from certrail.cli._starting import order_rollback
from certrail.configuration.profile import ProfileConfig
from certrail.connectors import InstallTarget
from certrail.errors import ActivationRefused, Conflict, InvalidRequest
from certrail.model import Action, Bundle, Chain, Fingerprint, Site
from certrail.remote.local import LocalHost
from certrail.servers.registry import open_target, site_of
from certrail.steps import installation, testing
from certrail.steps.outcome import Work
from certrail.store import (
    certificates,
    configured,
    keys,
    new_requests,
    plans,
    request_ends,
    request_runs,
    requests,
)
from certrail.store.database import transaction
from certrail.store.requests import Reason
from certrail.store.schema import certificates as certificate_table
from certrail.store.schema import connectors, endpoints, profiles
from certrail.tracker import Status, StepStatus
from tests.support.apache import Apache
from tests.support.nginx import Nginx

WWW = "www.example.test"
LOCATION = f"{WWW}:443"
SERVERS = [
    pytest.param(Nginx.started, id="nginx"),
    pytest.param(Apache.started, id="apache"),
]


@dataclass
class Endpoint:
    """An endpoint on a real server, with an inventory that knows it."""

    web: Nginx | Apache
    id: UUID

    @contextmanager
    def opened(self) -> Iterator[tuple[InstallTarget, Site]]:
        """Open the server and the site on it."""
        settings = {**self.web.server, "site": WWW}
        yield open_target(LocalHost("here"), settings), site_of(settings)

    @property
    def served(self) -> Fingerprint:
        """What a client sees."""
        return self.web.served(WWW)

    def renewed(self) -> tuple[str, Bundle]:
        """Obtain and install the next certificate; returns the request's id with it."""
        bundle = self.web.ca.bundle(WWW)
        assert bundle.key
        prepared = plans.for_location(LOCATION)
        made = new_requests.create(
            self.id,
            action=prepared.default_action,
            plan=prepared.plan,
            reason=Reason("requested", "by test"),
            actor="test",
            previous_certificate_id=prepared.certificate_id,
        )
        with transaction() as connection:
            key = keys.keep(connection, bundle.key, purpose="leaf", algorithm="ecdsa-p256")
            found = certificates.save(connection, bundle.chain, key_id=key, ca="ca")
            requests.keep_certificate(connection, made.id, found)
        self.run(made.id)
        return str(made.id), bundle

    def run(self, request_id: UUID) -> list[str]:
        """Run the last two steps to their end; returns what they tell."""
        request_runs.take(request_id, "run", timedelta(seconds=60))
        told = []
        for step in (installation.install, testing.test_installation):
            outcome = step(Work.of(requests.get(request_id)), self.opened)
            assert outcome.status is StepStatus.COMPLETED
            told.append(outcome.detail)
        request_ends.finish(request_id, "run", Status.AUTOMATION_SUCCESSFUL)
        return told

    def rolled_back(self, which: str, **options: Any) -> list[str]:
        """Go back and see it through."""
        return self.run(order_rollback(which, actor="test", **options).id)

    def has(self) -> UUID | None:
        """Return the certificate that the endpoint has from us."""
        with transaction() as connection:
            found: UUID | None = connection.execute(
                select(endpoints.c.certificate_id).where(endpoints.c.id == self.id)
            ).scalar_one()
        return found


Start = Callable[[Path], AbstractContextManager[Nginx | Apache]]


@contextmanager
def endpoint_on(started: Start, folder: Path) -> Iterator[Endpoint]:
    """Start a server and put its site into the inventory."""
    with started(folder) as web:
        profile = ProfileConfig.model_validate(
            {
                "name": "p",
                "workflow": "web-server",
                "ca": "ca",
                "trust_pem": Chain.of([web.ca.root]).text,
                "client": "openssl",
                "install_timeout_seconds": 20,
            }
        )
        with transaction() as connection:
            for name in ("ca", "web"):
                connection.execute(insert(connectors).values(name=name, slug=f"host-{name}"))
            configured.apply_profiles(connection, [profile], "test")
            profile_id = connection.execute(select(profiles.c.id)).scalar_one()
            made: UUID = connection.execute(
                insert(endpoints)
                .values(
                    location=LOCATION,
                    addresses=[f"127.0.0.1:{web.port}"],
                    names=[WWW],
                    profile_id=profile_id,
                    target="web",
                    server={**web.server, "site": WWW},
                )
                .returning(endpoints.c.id)
            ).scalar_one()
        yield Endpoint(web, made)


def impatient(request_id: UUID) -> Work:
    """Return the work of a request whose certificate will not appear, however long one waits."""
    found = requests.get(request_id)
    plan = found.plan.model_copy(update={"install_timeout_seconds": 1})
    return Work.of(replace(found, plan=plan))


@pytest.mark.parametrize("started", SERVERS)
def test_back_step_by_step(database_url: str, tmp_path: Path, started: Start) -> None:
    """First to our own certificate before, then to what was there before us, byte for byte."""
    with endpoint_on(started, tmp_path / "web") as endpoint:
        original = endpoint.web.config.read_bytes()
        _, one = endpoint.renewed()
        second, two = endpoint.renewed()
        assert two.chain.fingerprint == endpoint.served

        told = endpoint.rolled_back(second)

        assert one.chain.fingerprint == endpoint.served
        assert "reloaded" in told[0]
        assert certificates.get(endpoint.has() or UUID(int=0)).chain == one.chain
        with pytest.raises(InvalidRequest, match="was replaced since"):
            order_rollback(second, actor="test")

        # A location means what is there now: back from the rollback is forward again.
        endpoint.rolled_back(LOCATION)

        assert two.chain.fingerprint == endpoint.served
        assert original != endpoint.web.config.read_bytes()


@pytest.mark.parametrize("started", SERVERS)
def test_back_to_what_was_there_before_us(
    database_url: str, tmp_path: Path, started: Start
) -> None:
    """Its key was never ours: the host keeps it, and the configuration as it was."""
    with endpoint_on(started, tmp_path / "web") as endpoint:
        original = endpoint.web.config.read_bytes()
        first, _ = endpoint.renewed()

        told = endpoint.rolled_back(first)

        assert endpoint.web.old.chain.fingerprint == endpoint.served
        assert original == endpoint.web.config.read_bytes()
        assert "put back, configuration tested" in told[0]
        assert endpoint.has() is None
        assert endpoint.renewed()[1].chain.fingerprint == endpoint.served


def test_what_is_not_seen_to_come_back_is_not_left_half_done(
    database_url: str, tmp_path: Path
) -> None:
    """The backup on the host is gone: the present certificate stays, and that is told."""
    with endpoint_on(Nginx.started, tmp_path / "web") as endpoint:
        first, bundle = endpoint.renewed()
        for journal in (tmp_path / "web").rglob("changes/*/journal.json"):
            journal.unlink()
        made = order_rollback(first, actor="test")
        request_runs.take(made.id, "run", timedelta(seconds=60))

        with pytest.raises(ActivationRefused, match=r"nothing to put back, but .* is live again"):
            installation.install(impatient(made.id), endpoint.opened)

        assert bundle.chain.fingerprint == endpoint.served
        with pytest.raises(Conflict, match="has an active request already"):
            order_rollback(first, actor="test")


def test_an_expired_one_comes_back_only_when_forced(database_url: str, tmp_path: Path) -> None:
    """And the test says what clients think of it, without taking it away again."""
    with endpoint_on(Nginx.started, tmp_path / "web") as endpoint:
        old = endpoint.web.old.chain
        first, _ = endpoint.renewed()
        with transaction() as connection:
            connection.execute(
                certificate_table.update()
                .where(certificate_table.c.fingerprint == old.fingerprint)
                .values(revoked_at=old.leaf.not_valid_before_utc)
            )
        with pytest.raises(InvalidRequest, match="was revoked on") as caught:
            order_rollback(first, actor="test")
        assert "--force" in caught.value.remedy

        endpoint.rolled_back(first, force=True)

        assert old.fingerprint == endpoint.served


def test_forced_back_to_an_expired_one_of_ours(database_url: str, tmp_path: Path) -> None:
    """Nothing installs what is expired, so the host brings back what it kept."""
    with endpoint_on(Nginx.started, tmp_path / "web") as endpoint:
        _, one = endpoint.renewed()
        second, _ = endpoint.renewed()
        with transaction() as connection:
            connection.execute(
                certificate_table.update()
                .where(certificate_table.c.fingerprint == one.chain.fingerprint)
                .values(not_after=one.chain.leaf.not_valid_before_utc)
            )
        with pytest.raises(InvalidRequest, match="expired on"):
            order_rollback(second, actor="test")

        told = endpoint.rolled_back(second, force=True)

        assert "put back" in told[0]
        assert one.chain.fingerprint == endpoint.served


def test_killed_half_way_it_goes_on(database_url: str, tmp_path: Path) -> None:
    """The host was asked, and nobody noted the answer: asked again, it is there already."""
    with endpoint_on(Nginx.started, tmp_path / "web") as endpoint:
        first, _ = endpoint.renewed()
        made = order_rollback(first, actor="test")
        request_runs.take(made.id, "dead", timedelta(0))
        work = Work.of(requests.get(made.id))
        newer = installation.taken_back(work)
        assert newer is not None
        with (
            work.journal.effect("install.restore", newer.fingerprint),
            endpoint.opened() as (
                target,
                _,
            ),
        ):
            target.restore(newer)

        endpoint.run(made.id)

        assert endpoint.web.old.chain.fingerprint == endpoint.served
        assert Action.ROLLBACK is requests.get(made.id).action
