"""Intent before effect, outcome after; one live order; one active request."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from certrail.configuration.plan import ConnectorRef, Plan
from certrail.errors import Conflict, InvalidRequest, JournalConflict, KeyUnavailable
from certrail.journal import Journal
from certrail.keys.generate import generate
from certrail.model import (
    Action,
    Csr,
    KeyAlgorithm,
    Order,
    OrderKey,
    OrderStatus,
    SubjectSpec,
    Workflow,
)
from certrail.store import keys, new_requests, orders, request_ends, request_runs, requests, steps
from certrail.store.database import locked, migrate, transaction
from certrail.store.orders import OrderRecord
from certrail.store.requests import Reason, Request
from certrail.store.schema import endpoints, outbox
from certrail.store.schema import orders as orders_table
from certrail.tracker import Status, StepStatus
from certrail.x509.csr import build_csr

LEASE = timedelta(seconds=60)
EXPIRED = timedelta(seconds=-1)
PLAN = Plan(
    location="www.example.test:443",
    names=("www.example.test",),
    addresses=(),
    sni=None,
    workflow=Workflow.WEB_SERVER,
    profile="public-web",
    ca=ConnectorRef(name="ca", slug="ca-acme"),
)


@pytest.fixture
def endpoint(database_url: str) -> UUID:
    with transaction() as connection:
        endpoint_id: UUID = connection.execute(
            insert(endpoints).values(location=PLAN.location).returning(endpoints.c.id)
        ).scalar_one()
    return endpoint_id


@pytest.fixture
def request_(endpoint: UUID) -> Request:
    return start(endpoint)


def start(endpoint: UUID) -> Request:
    return new_requests.create(
        endpoint,
        action=Action.ENROLL,
        plan=PLAN,
        reason=Reason("requested", "by a test"),
        actor="tester",
    )


def begin(request: Request) -> OrderRecord:
    return orders.begin(request.id, "ca", PLAN.names, KeyAlgorithm.ECDSA_P256)


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    """`certrail up` migrates at every start."""
    migrate(database_url)


def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    """An old program must not write into a schema that it does not know."""
    with psycopg.connect(database_url) as connection:
        connection.execute("update alembic_version set version_num = 'from-the-future'")

    with pytest.raises(InvalidRequest, match="from-the-future"):
        migrate(database_url)


def test_an_effect_without_outcome_is_found_again(request_: Request) -> None:
    """That is what a crash between effect and note leaves behind."""
    with Journal(request_.id, 1).effect("order.open", "k", {"names": ["a"]}) as effect:
        assert not effect.is_repeated

    with Journal(request_.id, 2).effect("order.open", "k") as effect:
        assert effect.is_repeated
        assert effect.outcome is None
        assert effect.intent == {"names": ["a"]}


def test_a_recorded_outcome_ends_the_effect(request_: Request) -> None:
    """Nothing is done twice once it is on record."""
    journal = Journal(request_.id, 1)
    with journal.effect("order.open", "k") as effect:
        effect.record({"remote_id": "https://ca/order/1"})

    with journal.effect("order.open", "k") as effect:
        assert effect.outcome == {"remote_id": "https://ca/order/1"}
    assert journal.unfinished("order.open") == []


def test_the_intent_is_committed_before_the_effect(request_: Request, database_url: str) -> None:
    """Another connection must see it while the effect is under way."""
    with (
        Journal(request_.id, 1).effect("install.activate", "f"),
        psycopg.connect(database_url) as other,
    ):
        row = other.execute("select outcome from journal where action = 'install.activate'")
        assert row.fetchone() == (None,)


def test_an_undone_effect_can_be_done_again(request_: Request) -> None:
    """After a restore, the next run stages and activates anew."""
    journal = Journal(request_.id, 1)
    with journal.effect("install.stage", "f") as effect:
        effect.record({})

    with transaction() as connection:
        journal.forget(connection, "install.stage", "f")

    with journal.effect("install.stage", "f") as effect:
        assert not effect.is_repeated


def test_an_endpoint_has_one_active_request(endpoint: UUID, request_: Request) -> None:
    """Two schedulers and a click must give one order."""
    with pytest.raises(Conflict, match="active request already"):
        start(endpoint)


def test_starting_at_once_from_many_threads_makes_one_request(endpoint: UUID) -> None:
    """The constraint decides, not who looked first."""
    made: list[Request] = []
    refused: list[Conflict] = []

    def go() -> None:
        try:
            made.append(start(endpoint))
        except Conflict as exc:
            refused.append(exc)

    threads = [threading.Thread(target=go) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(made), len(refused)) == (1, 11)


def test_a_finished_request_frees_the_endpoint(endpoint: UUID, request_: Request) -> None:
    """A failed request must not block the next one."""
    request_runs.take(request_.id, "me", LEASE)
    request_ends.finish(request_.id, "me", Status.AUTOMATION_FAILED)

    assert start(endpoint).id != request_.id


def test_the_lease_keeps_a_second_run_out(request_: Request) -> None:
    """Two workers on one request would install over each other."""
    request_runs.take(request_.id, "first", LEASE)

    with pytest.raises(JournalConflict, match="first holds"):
        request_runs.take(request_.id, "second", LEASE)


def test_an_expired_lease_can_be_taken_over(request_: Request) -> None:
    """A killed worker never gives its lease back."""
    request_runs.take(request_.id, "dead", EXPIRED)

    assert request_runs.take(request_.id, "next", LEASE).run_count == 2


def test_a_worker_that_lost_its_lease_cannot_end_the_request(request_: Request) -> None:
    """It comes back from a pause and knows nothing of the run that took over."""
    request_runs.take(request_.id, "paused", EXPIRED)
    request_runs.take(request_.id, "next", LEASE)

    request_ends.finish(request_.id, "paused", Status.AUTOMATION_FAILED)

    assert Status.IN_PROGRESS is requests.get(request_.id).status


def test_a_request_has_one_live_order(request_: Request) -> None:
    """The database refuses what no code path should try."""
    begin(request_)

    with pytest.raises(IntegrityError), transaction() as connection:
        connection.execute(
            insert(orders_table).values(request_id=request_.id, key="another", ca="ca")
        )


def test_only_a_dead_order_makes_room_for_another(request_: Request) -> None:
    """An invalid order never yields a certificate (RFC 8555 section 7.1.6)."""
    first = begin(request_)
    assert begin(request_).id == first.id

    orders.bury(request_.id, "invalid")

    assert begin(request_).key == f"{request_.id}-2"


def test_csr_and_sealed_key_are_stored_together(request_: Request) -> None:
    """They are there before the CA sees the CSR, so what it issues can be installed."""
    record = begin(request_)
    key = generate(KeyAlgorithm.ECDSA_P256)
    csr = build_csr(SubjectSpec(names=("www.example.test",)), key)

    with transaction() as connection:
        orders.keep(
            connection, record, Order(OrderKey(record.key), "https://ca/1", OrderStatus.READY)
        )
    key_id = orders.keep_csr(record, csr, key, KeyAlgorithm.ECDSA_P256).key_id

    stored = orders.live(request_.id)
    assert stored is not None
    assert stored.csr == Csr(csr.pem)
    assert key_id is not None
    assert keys.load(key_id).reveal() == key.reveal()
    assert {"https://ca/1"} == orders.known_at("ca")


def test_the_database_holds_no_key_in_the_clear(request_: Request, database_url: str) -> None:
    """A stolen dump must be worth nothing without the sealing key."""
    key = generate(KeyAlgorithm.ECDSA_P256)
    with transaction() as connection:
        key_id = keys.keep(connection, key, purpose="leaf", algorithm="ecdsa-p256")
    body = key.reveal().splitlines()[1]

    with psycopg.connect(database_url) as connection:
        dump = connection.execute("select row_to_json(keys)::text from keys").fetchall()

    assert body.decode() not in str(dump)
    assert keys.load(key_id).reveal() == key.reveal()


def test_a_destroyed_key_says_so(database_url: str) -> None:
    """The remedy is a reissue, not a search for the sealing key."""
    with transaction() as connection:
        key_id = keys.keep(
            connection, generate(KeyAlgorithm.ECDSA_P256), purpose="leaf", algorithm="x"
        )

    keys.destroy(key_id)

    with pytest.raises(KeyUnavailable, match="destroyed"):
        keys.load(key_id)


def test_state_changes_and_their_events_are_one_transaction(request_: Request) -> None:
    """An event that is written later is lost by a crash in between."""
    request_runs.take(request_.id, "me", LEASE)
    steps.begin(request_.id, 1, 1, None)
    steps.end(request_.id, 1, StepStatus.COMPLETED, "account found")
    request_ends.finish(request_.id, "me", Status.AUTOMATION_SUCCESSFUL)

    with transaction() as connection:
        events = list(connection.execute(select(outbox.c.event).order_by(outbox.c.id)).scalars())
    assert events == [
        "certrail.request.started",
        "certrail.step.completed",
        "certrail.certificate.installed",
        "certrail.request.completed",
    ]


def test_a_failed_step_must_say_why(request_: Request) -> None:
    """Cause, remedy and retryable are held by a constraint."""
    steps.begin(request_.id, 2, 1, None)
    steps.fail(request_.id, 2, Conflict("somebody changed it"), final=True)

    row = steps.of_request(request_.id)[1]
    assert (row.cause, row.retryable) == ("somebody changed it", False)
    assert row.remedy
    with pytest.raises(IntegrityError), transaction() as connection:
        connection.exec_driver_sql("update steps set remedy = null where number = 2")


def test_a_retry_keeps_finished_steps(request_: Request) -> None:
    """Nothing is ordered again because an installation failed."""
    request_runs.take(request_.id, "me", LEASE)
    steps.begin(request_.id, 1, 1, None)
    steps.end(request_.id, 1, StepStatus.COMPLETED, "account found")
    steps.begin(request_.id, 2, 1, None)
    steps.fail(request_.id, 2, Conflict("x"), final=True)
    request_ends.finish(request_.id, "me", Status.AUTOMATION_FAILED)

    request_ends.reopen(request_.id, PLAN, "tester")

    rows = steps.of_request(request_.id)
    assert (rows[0].status, rows[1].status) == (StepStatus.COMPLETED, StepStatus.PENDING)
    assert rows[1].cause is None
    assert [(a.number, a.cause) for a in steps.history(request_.id) if a.cause] == [(2, "x")]


def test_cancelling_before_it_began_ends_it_at_once(endpoint: UUID, request_: Request) -> None:
    """Nobody runs it, so nobody else could end it."""
    assert Status.CANCELLED is request_ends.ask_to_cancel(request_.id, "tester").status
    assert start(endpoint)


def test_cancelling_in_progress_waits_for_a_safe_point(request_: Request) -> None:
    """An installation is finished or undone, never left half."""
    request_runs.take(request_.id, "me", LEASE)

    assert Status.IN_PROGRESS is request_ends.ask_to_cancel(request_.id, "tester").status
    assert {request_.id} == request_runs.renew_leases("me", [request_.id], LEASE)


def test_a_named_lock_excludes_other_threads(database_url: str) -> None:
    """Reloads on one host are serialised by it."""
    inside: list[int] = []
    most: list[int] = []

    def go(number: int) -> None:
        with locked("target:web01"):
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=go, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(most) == 1
    assert len(most) == 8


def test_a_named_lock_excludes_other_processes(database_url: str) -> None:
    """The lock is the database's, so it holds for every worker."""
    with locked("target:web01"), psycopg.connect(database_url) as other:
        taken = other.execute(
            "select pg_try_advisory_lock(hashtextextended('target:web01', 0))"
        ).fetchone()

    assert taken == (False,)


def test_the_csr_of_a_dead_order_is_taken_over_if_it_still_fits(request_: Request) -> None:
    """The key may be on a device; but a CSR for other names would be refused for ever."""
    key = generate(KeyAlgorithm.ECDSA_P256)
    csr = build_csr(SubjectSpec(names=PLAN.names), key)
    orders.keep_csr(begin(request_), csr, key, KeyAlgorithm.ECDSA_P256)
    orders.bury(request_.id, "invalid")

    assert begin(request_).csr == csr

    orders.bury(request_.id, "invalid")
    other = orders.begin(request_.id, "ca", ("other.example.test",), KeyAlgorithm.ECDSA_P256)
    assert other.csr is None


def test_a_second_run_cannot_replace_the_key_of_an_order(request_: Request) -> None:
    """The CA may have the first CSR by now; its certificate needs the first key."""
    record = begin(request_)
    key = generate(KeyAlgorithm.ECDSA_P256)
    csr = build_csr(SubjectSpec(names=PLAN.names), key)
    orders.keep_csr(record, csr, key, KeyAlgorithm.ECDSA_P256)

    with pytest.raises(JournalConflict):
        orders.keep_csr(record, csr, key, KeyAlgorithm.ECDSA_P256)


def test_cancelling_what_a_dead_worker_left_ends_it_at_once(
    endpoint: UUID, request_: Request
) -> None:
    """Otherwise the endpoint would be blocked: nobody runs it, and nobody may take it."""
    request_runs.take(request_.id, "dead", EXPIRED)

    assert Status.CANCELLED is request_ends.ask_to_cancel(request_.id, "tester").status
    assert start(endpoint)


def test_a_cancel_does_not_rewrite_what_a_step_had_done(request_: Request) -> None:
    """A finished step stays finished, and the history keeps its causes."""
    request_runs.take(request_.id, "me", LEASE)
    steps.begin(request_.id, 1, 1, None)
    steps.end(request_.id, 1, StepStatus.COMPLETED, "account found")

    steps.end(request_.id, 1, StepStatus.CANCELLED, "cancelled on request")

    assert StepStatus.COMPLETED is steps.of_request(request_.id)[0].status
    assert [attempt.detail for attempt in steps.history(request_.id)] == ["account found"]
