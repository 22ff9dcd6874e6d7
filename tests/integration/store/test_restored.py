"""Requests that came with a backup, and what the old installation did with them after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest
from sqlalchemy import insert

from certrail.ca.authority import Design
from certrail.ca.local import LocalCa, Rules
from certrail.configuration.plan import ConnectorRef, Plan
from certrail.connectors import InstallTarget
from certrail.errors import InvalidRequest, NotFound
from certrail.keys.generate import generate
from certrail.model import (
    Action,
    Chain,
    Csr,
    Fingerprint,
    KeyAlgorithm,
    Order,
    OrderKey,
    OrderSpec,
    OrderStatus,
    Site,
    SubjectSpec,
    Workflow,
)
from certrail.steps import installation, issuance, ordering
from certrail.steps.outcome import Outcome, Work
from certrail.steps.restored import unless_served
from certrail.store import certificates, new_requests, orders, requests, restores
from certrail.store.database import transaction
from certrail.store.requests import Reason, Request
from certrail.store.schema import endpoints
from certrail.tracker import StepStatus
from certrail.x509.csr import build_csr
from tests.contract.install_cases import Memory, Reference
from tests.support.tls_servers import Authority, Issued, pem, tls_server

NAME = "www.example.test"
NOW = datetime.now(UTC).replace(microsecond=0)
CA = ConnectorRef(name="disk", slug="ca-local")


class AskedCa(LocalCa):
    """It notes each order that it is asked to open, as CAs do that know no references."""

    opened: ClassVar[list[OrderKey]] = []

    def open_order(self, spec: OrderSpec) -> Order:
        """Open it, and note it."""
        self.opened.append(spec.key)
        return super().open_order(spec)


@pytest.fixture
def ca(tmp_path: Path) -> AskedCa:
    AskedCa.opened.clear()
    design = Design("Test CA", timedelta(days=3650), timedelta(days=1825))
    folder = str(tmp_path / "ca")
    return AskedCa(folder, design=design, rules=Rules(timedelta(days=90)), label="ca")


@pytest.fixture
def root() -> Authority:
    return Authority.root()


@pytest.fixture
def endpoint(database_url: str) -> UUID:
    with transaction() as connection:
        made: UUID = connection.execute(
            insert(endpoints).values(location=f"{NAME}:443").returning(endpoints.c.id)
        ).scalar_one()
    return made


def plan(port: int = 1, trust: str | None = None) -> Plan:
    return Plan(
        location=f"{NAME}:443",
        names=(NAME,),
        addresses=(f"127.0.0.1:{port}",),
        sni=None,
        workflow=Workflow.WEB_SERVER,
        profile="public-web",
        ca=CA,
        trust_pem=trust,
    )


def request_for(endpoint: UUID, wanted: Plan, reason: str = "requested") -> Request:
    return new_requests.create(
        endpoint,
        action=Action.ENROLL,
        plan=wanted,
        reason=Reason(reason, "by a test"),
        actor="tester",
    )


def restored() -> None:
    """Let the database be one that was restored just now, from a backup of yesterday."""
    restores.note("/backup.tar", NOW - timedelta(days=1), "1")


def csr() -> Csr:
    return build_csr(SubjectSpec((NAME,)), generate(KeyAlgorithm.ECDSA_P256))


def old_order(ca: AskedCa, request: Request, *, number: int = 1, finalized: bool = False) -> str:
    """Do what the old installation did after the backup."""
    order = ca.open_order(OrderSpec(OrderKey(f"{request.id}-{number}"), (NAME,)))
    if finalized:
        ca.finalize(order, csr())
    return order.remote_id


def test_an_order_younger_than_the_backup_is_gone_on_with(endpoint: UUID, ca: AskedCa) -> None:
    """The journal of the backup has no intent of it; the CA is asked all the same."""
    request = request_for(endpoint, plan())
    restored()
    remote_id = old_order(ca, request)

    record, order = ordering.open_order(Work.of(request), ca)

    assert order.remote_id == remote_id
    assert ca.opened == [record.key], "once, by the old installation"


def test_an_order_finalized_with_a_lost_key_makes_room_for_another(
    endpoint: UUID, ca: AskedCa
) -> None:
    """Its certificate would be for a key that only the old machine had."""
    request = request_for(endpoint, plan())
    restored()
    for number in (1, 2):
        old_order(ca, request, number=number, finalized=True)

    record, order = ordering.open_order(Work.of(request), ca)

    assert record.key == f"{request.id}-3"
    assert order.status is OrderStatus.READY
    assert issuance.issue(Work.of(request), ca).status is StepStatus.COMPLETED


def test_an_order_of_the_backup_that_was_finalized_after_it_is_given_up(
    endpoint: UUID, ca: AskedCa
) -> None:
    """The backup has the order, but not the key that was made for it; a retry gets another."""
    request = request_for(endpoint, plan())
    record, order = ordering.open_order(Work.of(request), ca)
    restored()
    ca.finalize(order, csr())
    work = Work.of(request)

    with pytest.raises(NotFound, match="before the restore"):
        issuance.issue(work, ca)

    assert ordering.open_order(work, ca)[0].key == f"{request.id}-2"
    assert issuance.issue(work, ca).status is StepStatus.COMPLETED
    assert record.key == f"{request.id}-1"


def test_an_order_finalized_before_the_backup_goes_on(endpoint: UUID, ca: AskedCa) -> None:
    """The backup has its key: what the CA issued is collected, not ordered again."""
    request = request_for(endpoint, plan())
    work = Work.of(request)
    record, order = ordering.open_order(work, ca)
    asked = csr()
    orders.keep_csr(record, asked, None, KeyAlgorithm.ECDSA_P256)
    with work.journal.effect("order.finalize", record.key):
        issued = ca.collect(ca.finalize(order, asked))
    restored()

    assert issuance.issue(work, ca).status is StepStatus.COMPLETED
    assert isinstance(issued, Chain)
    assert _certificate(request) == issued.fingerprint


def test_requests_made_after_the_restore_are_nobody_elses(endpoint: UUID, ca: AskedCa) -> None:
    """No order of theirs can be older than they are."""
    restored()
    request = request_for(endpoint, plan())
    old_order(ca, request, finalized=True)

    assert ordering.open_order(Work.of(request), ca)[0].key == f"{request.id}-1"


def test_a_certificate_issued_after_the_backup_is_taken(endpoint: UUID, root: Authority) -> None:
    """It is served, and all that the request is for: nothing is asked of a CA."""
    issued = root.issue(NAME, not_before=NOW - timedelta(hours=3))
    with tls_server(issued) as port:
        request = request_for(endpoint, plan(port, pem(root.certificate)))
        restored()
        first = obtain(Work.of(request))
        # The next step has the request as it is now, and asks nobody again.
        second = obtain(Work.of(requests.get(request.id)))

    assert first.status is second.status is StepStatus.SKIPPED
    assert "issued after the backup" in first.detail
    found = certificates.by_fingerprint(_fingerprint(issued))
    assert found is not None
    assert (found.key_id, found.ca) == (None, "disk")
    assert _certificate(request) == found.fingerprint


def test_a_certificate_that_was_taken_stays_where_it_is(endpoint: UUID, root: Authority) -> None:
    """Nothing is written to the target; where something else serves, its key is missing."""
    issued = root.issue(NAME, not_before=NOW - timedelta(hours=3))
    with tls_server(issued) as port:
        request = request_for(endpoint, plan(port, pem(root.certificate)))
        restored()
        obtain(Work.of(request))
    work = Work.of(requests.get(request.id))
    memory = Memory(live=[_fingerprint(issued)])

    outcome = installation.install(work, lambda: opened(memory))

    assert "since before the restore" in outcome.detail
    assert (memory.store, memory.reloads) == ({}, 0)
    with pytest.raises(InvalidRequest, match="not in the key store"):
        installation.install(work, lambda: opened(Memory(live=[Fingerprint("another")])))


@pytest.mark.parametrize("reason", ["requested", "renewal-due"])
def test_after_the_restore_the_policy_alone_takes_what_is_served(
    endpoint: UUID, root: Authority, reason: str
) -> None:
    """A renewal is due by an older certificate; a person who asks wants a new one."""
    issued = root.issue(NAME, not_before=NOW - timedelta(hours=3))
    restored()
    with tls_server(issued) as port:
        request = request_for(endpoint, plan(port, pem(root.certificate)), reason)
        outcome = obtain(Work.of(request))

    is_taken = outcome.status is StepStatus.SKIPPED
    assert is_taken == (reason == "renewal-due")


def test_what_clients_refuse_is_not_taken(endpoint: UUID, root: Authority) -> None:
    """Somebody's own certificate of these names, that leads to no root of the profile."""
    issued = Authority.root("Other").issue(NAME, not_before=NOW - timedelta(hours=3))
    with tls_server(issued) as port:
        request = request_for(endpoint, plan(port, pem(root.certificate)))
        restored()

        assert obtain(Work.of(request)).detail == "ordered"


def test_an_endpoint_that_does_not_answer_is_no_reason_to_wait(
    endpoint: UUID, root: Authority
) -> None:
    """Else a certificate could expire behind it."""
    request = request_for(endpoint, plan(trust=pem(root.certificate)))
    restored()

    assert obtain(Work.of(request)).detail == "ordered"


def test_an_installation_that_was_not_restored_looks_at_nothing(
    endpoint: UUID, root: Authority
) -> None:
    """Whatever is served, a request gets its certificate."""
    issued = root.issue(NAME, not_before=NOW - timedelta(hours=3))
    with tls_server(issued) as port:
        request = request_for(endpoint, plan(port, pem(root.certificate)))

        assert obtain(Work.of(request)).detail == "ordered"


@unless_served
def obtain(work: Work) -> Outcome:
    return Outcome.completed("ordered")


@contextmanager
def opened(memory: Memory) -> Iterator[tuple[InstallTarget, Site]]:
    yield Reference(memory), Site(NAME)


def _certificate(request: Request) -> str:
    certificate_id = requests.get(request.id).certificate_id
    assert certificate_id is not None
    return certificates.get(certificate_id).fingerprint


def _fingerprint(issued: Issued) -> Fingerprint:
    return Chain.of([issued.leaf]).fingerprint
