"""What every CA promises. A new CA adds a case, not a test."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TypeVar

import pytest
from pydantic import SecretStr, ValidationError

import blocks.ca
from blocks._base import CaBlock
from certrail.connectors import CertificateAuthority, FindsOrders, ValidatesDomains
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    NotFound,
    Rejected,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.keys.generate import generate
from certrail.model import (
    AuthorizationStatus,
    Bundle,
    Chain,
    ChallengeKind,
    Csr,
    KeyAlgorithm,
    Order,
    OrderKey,
    OrderSpec,
    OrderStatus,
    RevocationReason,
    SubjectSpec,
    subject_names,
)
from certrail.private_key import PrivateKeyPem
from certrail.wait import Pending, until
from certrail.x509.chain import must_be_installable
from certrail.x509.csr import build_csr
from tests.contract.ca_cases import (
    CASES,
    GAPS,
    REFERENCE,
    REFUSED,
    Case,
    Opens,
    ReferenceCa,
    ReferenceWorld,
    World,
)
from tests.support.process import free_port
from tests.support.scripted import http_reply, scripted

T = TypeVar("T")

_TICK = timedelta(milliseconds=20)
_PATIENCE = timedelta(seconds=30)


@pytest.fixture(scope="module", params=[*CASES, REFERENCE], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def world(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with case.world(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def name(world: World) -> str:
    """Return a name that no other test uses: the servers live for all of them."""
    return world.name()


def test_check_says_what_answered(world: World) -> None:
    """People press "check" to see that settings work; it may not change anything."""
    before = world.snapshot()
    with world.block.connect() as ca:
        line = ca.check()

    assert line
    assert line.isprintable()
    assert before == world.snapshot()


def test_the_chain_answers_the_csr(world: World, name: str) -> None:
    """Leaf first, each certificate signed by the next, no root: what servers want to serve."""
    key, csr = _key_and_csr(name)

    chain = _obtain(world, csr, name)

    chain.must_answer(csr, (name,))
    must_be_installable(Bundle(chain, key))
    assert world.root not in chain.certificates
    chain.certificates[-1].verify_directly_issued_by(world.root)


def test_the_names_are_those_ordered(world: World, name: str) -> None:
    """A missing name breaks a site; a name too many tells the world of another."""
    names = (name, f"www.{name}", f"*.{name}")
    _, csr = _key_and_csr(*names)

    chain = _obtain(world, csr, *names)

    assert sorted(subject_names(chain.leaf)) == sorted(names)


def test_nothing_is_collected_before_it_is_issued(world: World, name: str) -> None:
    """A step asks until there is a chain; an error here would end the request."""
    with world.block.connect() as ca:
        order = _open(ca, name)

        assert isinstance(ca.collect(order), Pending)


def test_what_is_collected_stays_the_same(world: World, name: str) -> None:
    """A crash after collecting makes the next run collect again."""
    _, csr = _key_and_csr(name)
    order = _finalize(world, _ready(world, name), csr)
    first = _collect(world, order)

    assert _collect(world, order).fingerprint == first.fingerprint
    with world.block.connect() as ca:
        assert _collect(world, _kept(ca.reopen(order))).fingerprint == first.fingerprint


def test_finalizing_twice_is_one_order(case: Case, world: World, name: str) -> None:
    """A crash after the CA's answer makes the next run finalize again, with the older order."""
    before = world.issued(name)
    _, csr = _key_and_csr(name)
    ready = _ready(world, name)

    first = _finalize(world, ready, csr)
    chain = _collect(world, first)
    again = [_finalize(world, first, csr)]
    if "remembers" not in case.lacks:
        again.append(_finalize(world, ready, csr))

    assert {chain.fingerprint} == {_collect(world, each).fingerprint for each in again}
    assert world.issued(name) == before + 1


@pytest.mark.needs("refusal")
def test_a_refused_name_is_rejected_with_the_reason(case: Case, world: World) -> None:
    """People look the CA's own code up; and what is refused is not tried again."""
    _, csr = _key_and_csr(REFUSED)

    with pytest.raises(Rejected) as caught:
        _obtain(world, csr, REFUSED)

    assert caught.value.code
    assert not caught.value.retryable
    _must_be_fit_for_people(caught.value, world)


def test_revoking_twice_is_quiet(world: World, name: str) -> None:
    """Revocation is repeated after a crash, and by people in a hurry."""
    _, csr = _key_and_csr(name)
    chain = _obtain(world, csr, name)

    for reason in (RevocationReason.SUPERSEDED, RevocationReason.KEY_COMPROMISE):
        with world.block.connect() as ca:
            ca.revoke(chain, reason)

    assert world.is_revoked(chain)


@pytest.mark.needs("finding")
def test_an_order_is_found_by_our_reference(world: World, name: str) -> None:
    """A crash between the CA's answer and our note of it leaves an order nobody has."""
    with world.block.connect() as ca:
        assert isinstance(ca, FindsOrders)
        order = _open(ca, name)
    with world.block.connect() as ca:
        assert isinstance(ca, FindsOrders)
        found = ca.find_order(order.key)
        assert ca.find_order(OrderKey("nobody's")) is None

    assert found is not None
    assert (found.remote_id, found.key) == (order.remote_id, order.key)
    _, csr = _key_and_csr(name)
    chain = _collect(world, _finalize(world, _kept(found), csr))
    chain.must_answer(csr, (name,))


@pytest.mark.needs("validation")
def test_the_account_is_made_once(world: World) -> None:
    """A second account would have none of the first one's validations and limits."""
    with world.block.connect() as ca:
        assert isinstance(ca, ValidatesDomains)
        first = ca.ensure_account()
    with world.block.connect() as ca:
        assert isinstance(ca, ValidatesDomains)
        second = ca.ensure_account()

    assert second.url == first.url
    assert not second.created


@pytest.mark.needs("validation")
def test_a_name_is_proven_once(world: World, name: str) -> None:
    """Every proof takes minutes of waiting for DNS; a CA that asks for none gets none."""
    _, csr = _key_and_csr(name)
    _obtain(world, csr, name)
    with world.block.connect() as ca:
        assert isinstance(ca, ValidatesDomains)
        order = _open(ca, name)
        states = ca.authorizations(order)

    assert [each.name for each in states] == [name]
    assert {each.status for each in states} == {AuthorizationStatus.VALID}


@pytest.mark.needs("validation")
def test_a_proof_says_where_it_belongs(world: World, name: str) -> None:
    """The DNS step publishes what is said here, at the place that is said here."""
    with world.block.connect() as ca:
        assert isinstance(ca, ValidatesDomains)
        ca.ensure_account()
        order = _open(ca, name, f"*.{name}")
        states = ca.authorizations(order)
        open_ones = [each for each in states if each.status is AuthorizationStatus.PENDING]

    assert {each.name for each in states} == {name, f"*.{name}"}
    assert open_ones
    for state in open_ones:
        (proof,) = [each for each in state.challenges if each.kind is ChallengeKind.DNS_01]
        assert proof.txt_value
        assert proof.record_name.endswith(name)
        assert proof.url
        assert proof.authorization == state.url


@pytest.mark.needs("validation")
def test_responding_twice_is_quiet(world: World, name: str) -> None:
    """A crash after telling the CA makes the next run tell it again."""
    with world.block.connect() as ca:
        assert isinstance(ca, ValidatesDomains)
        ca.ensure_account()
        order = _open(ca, name)
        (state,) = ca.authorizations(order)
        (proof,) = [each for each in state.challenges if each.kind is ChallengeKind.DNS_01]
        world.prove(proof)
        ca.respond(order, proof)
        _wait(lambda: _all_valid(ca, order), "the name to be validated")
        ca.respond(order, proof)

        assert _all_valid(ca, order) is True


@pytest.mark.needs("orders")
def test_an_order_that_is_gone_is_not_found(case: Case, world: World, name: str) -> None:
    """Only this error lets a retry open another order."""
    with world.block.connect() as ca:
        order = _open(ca, name)
        data = {**order.to_json(), "remote_id": f"{order.remote_id[:-4]}0000"}
        with pytest.raises(NotFound) as caught:
            ca.reopen(Order.from_json(data))

    _must_be_fit_for_people(caught.value, world)


def test_many_at_once_do_not_mix(world: World) -> None:
    """Bulk jobs issue in parallel, each thread with a connection of its own."""
    names = [world.name() for _ in range(6)]

    def obtain(name: str) -> tuple[str, Csr, Chain]:
        _, csr = _key_and_csr(name)
        return name, csr, _obtain(world, csr, name)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(obtain, names))

    for name, csr, chain in results:
        chain.must_answer(csr, (name,))
    assert len({chain.fingerprint for _, _, chain in results}) == len(names)


@pytest.mark.needs("credential")
def test_a_wrong_credential_is_called_that(case: Case, world: World, name: str) -> None:
    """Operators act on the error's type, so a 401 may not look like an outage."""
    _, csr = _key_and_csr(name)

    def obtain() -> object:
        return _obtain(_Intruded(world), csr, name)

    def check() -> object:
        with world.intruder.connect() as ca:
            return ca.check()

    for call in (check, obtain):
        with pytest.raises(AuthenticationFailed) as caught:
            call()

        assert not caught.value.retryable
        _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_refused_connection_is_unreachable(case: Case, world: World) -> None:
    """A service that restarts is worth another try."""
    with world.at(free_port()).connect() as ca, pytest.raises(Unreachable) as caught:
        ca.check()

    _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network", "stall")
def test_a_stall_is_unreachable_within_the_timeout(case: Case, world: World, name: str) -> None:
    """A worker that waits for ever is a worker lost."""
    with scripted(stall=True) as server:
        for call in _calls(world.at(server.port), name):
            with pytest.raises(Unreachable) as caught:
                call()

            _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_cut_reply_is_unreachable(case: Case, world: World, name: str) -> None:
    """Half an answer says nothing about whether it was done."""
    for reply in (b"", http_reply(200, {"Content-Length": "500"}, "{")):
        with scripted(reply) as server:
            for call in _calls(world.at(server.port), name):
                with pytest.raises(Unreachable) as caught:
                    call()

                _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_nonsense_is_called_unexpected(case: Case, world: World, name: str) -> None:
    """Another service at that address is a mistake in the settings, not an outage."""
    for reply in case.nonsense:
        with scripted(reply) as server:
            for call in _calls(world.at(server.port), name):
                with pytest.raises(UnexpectedReply) as caught:
                    call()

                assert not caught.value.retryable
                _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("throttled")
def test_throttling_carries_the_wait(case: Case, world: World, name: str) -> None:
    """The step waits as long as the service asks, whichever way it says so."""
    assert case.throttled is not None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    ways = [("7", 7, 7), (later, 30, 91)][: 1 if "retry-date" in case.lacks else 2]
    for wait, least, most in ways:
        with scripted(case.throttled(wait)) as server:
            for call in _calls(world.at(server.port), name):
                with pytest.raises(Throttled) as caught:
                    call()

                assert caught.value.retry_after is not None
                assert least <= caught.value.retry_after.total_seconds() <= most


@pytest.mark.needs("relay")
def test_a_certificate_whose_reply_was_lost_is_not_made_twice(
    case: Case, world: World, name: str
) -> None:
    """The CA did it and we do not know: public CAs count and bill every certificate."""
    for reply in (b"", http_reply(502, body="<html>Bad Gateway</html>")):
        name = world.name()
        _, csr = _key_and_csr(name)
        ready = _ready(world, name)
        with world.losing(reply) as block, block.connect() as ca:
            with pytest.raises(Unreachable) as caught:
                ca.finalize(ready, csr)
            assert caught.value.retryable

        chain = _collect(world, _finalize(world, ready, csr))

        chain.must_answer(csr, (name,))
        assert world.issued(name) == (2 if "remembers" in case.lacks else 1)


@pytest.mark.needs("network")
def test_an_echoed_credential_stays_hidden(case: Case, world: World, name: str) -> None:
    """Debugging proxies and careless services send back what they got."""
    with scripted(lambda request: http_reply(400, body=b"cannot do " + request)) as server:
        for call in _calls(world.at(server.port), name):
            with pytest.raises(CertrailError) as caught:
                call()

            _must_be_fit_for_people(caught.value, world)


def test_no_secret_in_any_text_of_the_block(world: World) -> None:
    """Blocks are printed in logs and shown in Prefect's UI."""
    with world.block.connect() as ca:
        texts = [repr(world.block), str(world.block), repr(ca), repr(vars(ca))]

    assert not any(secret in text for secret in world.secrets for text in texts)


def test_no_secret_in_the_log(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Logs go to places that no credential belongs in."""
    _, csr = _key_and_csr(name)
    with caplog.at_level(logging.DEBUG):
        _obtain(world, csr, name)

    assert not any(secret in caplog.text for secret in world.secrets)


def test_what_a_case_lacks_is_what_its_ca_lacks(case: Case, world: World) -> None:
    """A capability that is declared missing would not be tested."""
    with world.block.connect() as ca:
        assert isinstance(ca, FindsOrders) == ("finding" not in case.lacks)
        assert isinstance(ca, ValidatesDomains) == ("validation" not in case.lacks)


@pytest.mark.parametrize("vendor", CASES, ids=str)
def test_unknown_fields_are_refused(vendor: Case) -> None:
    """A misspelt setting that is ignored shows up months later."""
    assert vendor.block
    vendor.block(**vendor.settings)
    with pytest.raises(ValidationError, match="unknown field lifetme"):
        vendor.block(**vendor.settings, lifetme=1)


@pytest.mark.parametrize("vendor", CASES, ids=str)
def test_every_field_is_described(vendor: Case) -> None:
    """The description is the help text in Prefect's UI and in the documentation."""
    assert vendor.block
    fields = vendor.block.model_fields
    assert [name for name, field in fields.items() if len(field.description or "") < 15] == []
    assert len(vendor.block.__doc__ or "") > 20


@pytest.mark.parametrize("vendor", CASES, ids=str)
def test_secrets_are_secret_fields(vendor: Case) -> None:
    """Only ``SecretStr`` is masked and encrypted by Prefect."""
    assert vendor.block
    for name, field in vendor.block.model_fields.items():
        if re.search(r"(secret|secret_id|password|token|api_?key|hmac_key|access_key)$", name):
            assert field.annotation in (SecretStr, SecretStr | None), name


def test_every_ca_is_under_contract() -> None:
    """A block without a case would be a connector nobody tests."""
    folder = Path(next(iter(blocks.ca.__path__)))
    modules = {path.stem for path in folder.glob("[!_]*")}
    assert CaBlock.vendors() == {case.block for case in CASES}
    assert modules == {case.block.__module__.split(".")[2] for case in CASES if case.block}
    assert all(case.name == case.block.get_block_type_slug() for case in CASES if case.block)


def test_gaps_are_declared_and_known() -> None:
    """A gap that anybody can invent is a promise nobody keeps."""
    assert all(case.lacks <= GAPS for case in CASES)
    assert all(case.nonsense for case in CASES if "network" not in case.lacks)
    assert all(case.throttled for case in CASES if "throttling" not in case.lacks)


class _Forgets(ReferenceCa):
    """Signs again at every finalize."""

    def finalize(self, order: Order, csr: Csr) -> Order:
        self.sign(order, csr)
        return self.reopen(order)


class _OtherKey(ReferenceCa):
    def sign(self, order: Order, csr: Csr) -> None:
        super().sign(order, _key_and_csr("x.example.test")[1])


class _NameTooMany(ReferenceCa):
    def open_order(self, spec: OrderSpec) -> Order:
        order = super().open_order(spec)
        self._world.orders[spec.key] = (*spec.names, "more.example.test")
        return order


class _SendsTheRoot(ReferenceCa):
    def sign(self, order: Order, csr: Csr) -> None:
        super().sign(order, csr)
        chain = self._world.chains[order.key]
        self._world.chains[order.key] = Chain.of([*chain.certificates, self._world.root])


class _RaisesWhenNotReady(ReferenceCa):
    def collect(self, order: Order) -> Chain | Pending:
        found = super().collect(order)
        if isinstance(found, Pending):
            raise NotFound("not yet")
        return found


class _SignsAnything(ReferenceCa):
    def open_order(self, spec: OrderSpec) -> Order:
        self._world.orders[spec.key] = spec.names
        return Order(spec.key, f"memory-{spec.key}", OrderStatus.READY)


class _RejectsWithoutCode(ReferenceCa):
    def open_order(self, spec: OrderSpec) -> Order:
        if REFUSED in spec.names:
            raise Rejected("no")
        return super().open_order(spec)


class _RevokesOnce(ReferenceCa):
    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        if chain.leaf.serial_number in self._world.revoked:
            raise Rejected("revoked already", code="alreadyRevoked")
        super().revoke(chain, reason)


class _OnlySaysItRevokes(ReferenceCa):
    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        self._enter()


class _LosesOrders(ReferenceCa):
    def find_order(self, key: OrderKey) -> Order | None:
        found = super().find_order(key)
        return found if found and found.status is OrderStatus.VALID else None

    def reopen(self, order: Order) -> Order:
        return order if order.key in self._world.orders else super().reopen(order)


class _FindsAnything(ReferenceCa):
    def find_order(self, key: OrderKey) -> Order | None:
        return Order(key, f"memory-{key}", self._status(key))


class _LetsAnybodyIn(ReferenceCa):
    def _enter(self) -> None:
        return


class _ChecksByOrdering(ReferenceCa):
    def check(self) -> str:
        self.open_order(OrderSpec(OrderKey("check"), ("check.example.test",)))
        return "works"


BROKEN: list[tuple[type[ReferenceCa], Callable[..., None]]] = [
    (_Forgets, test_finalizing_twice_is_one_order),
    (_OtherKey, test_the_chain_answers_the_csr),
    (_NameTooMany, test_the_names_are_those_ordered),
    (_SendsTheRoot, test_the_chain_answers_the_csr),
    (_RaisesWhenNotReady, test_nothing_is_collected_before_it_is_issued),
    (_SignsAnything, test_a_refused_name_is_rejected_with_the_reason),
    (_RejectsWithoutCode, test_a_refused_name_is_rejected_with_the_reason),
    (_RevokesOnce, test_revoking_twice_is_quiet),
    (_OnlySaysItRevokes, test_revoking_twice_is_quiet),
    (_LosesOrders, test_an_order_is_found_by_our_reference),
    (_FindsAnything, test_an_order_is_found_by_our_reference),
    (_FindsAnything, test_an_order_that_is_gone_is_not_found),
    (_LetsAnybodyIn, test_a_wrong_credential_is_called_that),
    (_ChecksByOrdering, test_check_says_what_answered),
]


@pytest.mark.parametrize(("kind", "promise"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_the_suite_notices_a_broken_ca(
    kind: type[ReferenceCa], promise: Callable[..., None]
) -> None:
    """A suite that a broken CA passes proves nothing about the good ones."""
    world = ReferenceWorld(kind)
    given = {"case": REFERENCE, "world": world, "name": world.name()}
    wanted = promise.__code__.co_varnames[: promise.__code__.co_argcount]

    with pytest.raises((AssertionError, CertrailError, pytest.fail.Exception, KeyError)):
        promise(**{each: given[each] for each in wanted})


class _Intruded(World):
    """A world whose good settings are the wrong ones."""

    def __init__(self, world: World) -> None:
        self.block = world.intruder
        self._world = world

    def issued(self, name: str) -> int:
        return self._world.issued(name)

    def is_revoked(self, chain: Chain) -> bool:
        return self._world.is_revoked(chain)

    def snapshot(self) -> object:
        return self._world.snapshot()


def _key_and_csr(*names: str) -> tuple[PrivateKeyPem, Csr]:
    key = generate(KeyAlgorithm.ECDSA_P256)
    return key, build_csr(SubjectSpec(names), key)


def _open(ca: CertificateAuthority, *names: str) -> Order:
    return _kept(ca.open_order(OrderSpec(OrderKey(f"ref-{'-'.join(names)}"), names)))


def _ready(world: World, *names: str) -> Order:
    """Open an order and prove every name that wants it, with a connection for each step."""
    with world.block.connect() as ca:
        if isinstance(ca, ValidatesDomains):
            ca.ensure_account()
        order = _open(ca, *names)
    with world.block.connect() as ca:
        if not isinstance(ca, ValidatesDomains):
            return order
        for state in ca.authorizations(order):
            if state.status is AuthorizationStatus.PENDING:
                offered = {each.kind: each for each in state.challenges}
                world.prove(offered[ChallengeKind.DNS_01])
                ca.respond(order, offered[ChallengeKind.DNS_01])
    with world.block.connect() as ca:
        assert isinstance(ca, ValidatesDomains)
        _wait(lambda: _all_valid(ca, order), "the names to be validated")

        def settled() -> Order | Pending:
            now = ca.reopen(order)
            return Pending() if now.status is OrderStatus.PENDING else now

        return _kept(_wait(settled, "the order to be ready"))


def _all_valid(ca: CertificateAuthority, order: Order) -> bool | Pending:
    assert isinstance(ca, ValidatesDomains)
    states = ca.authorizations(order)
    assert not any(each.problem for each in states), states
    return all(each.status is AuthorizationStatus.VALID for each in states) or Pending()


def _finalize(world: World, order: Order, csr: Csr) -> Order:
    with world.block.connect() as ca:
        return _kept(ca.finalize(order, csr))


def _collect(world: World, order: Order) -> Chain:
    with world.block.connect() as ca:

        def ask() -> Chain | Pending:
            found = ca.collect(order)
            return Pending() if isinstance(found, Pending) else found

        return _wait(ask, "the certificate")


def _obtain(world: World, csr: Csr, *names: str) -> Chain:
    return _collect(world, _finalize(world, _ready(world, *names), csr))


def _kept(order: Order) -> Order:
    """Return *order* as the database would give it back."""
    return Order.from_json(json.loads(json.dumps(order.to_json())))


def _calls(block: Opens, name: str) -> list[Callable[[], object]]:
    """Return the first call of each kind that a step makes."""

    def check() -> object:
        with block.connect() as ca:
            return ca.check()

    def order() -> object:
        with block.connect() as ca:
            opened = _open(ca, name)
            return ca.finalize(opened, _key_and_csr(name)[1])

    return [check, order]


def _wait(ask: Callable[[], T | Pending], what: str) -> T:
    return until(
        ask,
        timeout=_PATIENCE,
        interval=_TICK,
        slowest=_TICK,
        late=lambda: AssertionError(f"waited too long for {what}"),
    )


def _must_be_fit_for_people(error: CertrailError, world: World) -> None:
    text = "".join(traceback.format_exception(error))
    assert str(error).isprintable()
    assert error.remedy
    for secret in world.secrets:
        assert secret not in text
        assert secret not in error.remedy
