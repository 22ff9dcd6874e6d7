"""What every delivery target promises. A new target adds a case, not a test."""

from __future__ import annotations

import inspect
import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

import blocks.delivery
from blocks._base import DeliveryBlock
from certrail.connectors import DeliveryTarget
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    Conflict,
    InvalidRequest,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.model import Bundle, Fingerprint, Site
from certrail.private_key import PrivateKeyPem
from certrail.steps.delivery import stored
from tests.contract.delivery_cases import (
    CASES,
    GAPS,
    REFERENCE,
    Case,
    ReferenceTarget,
    ReferenceWorld,
    World,
)
from tests.support.bundles import new_bundle
from tests.support.faulty_proxy import Fault, faulty_proxy
from tests.support.process import free_port
from tests.support.scripted import http_reply, scripted

VENDORS = [case for case in CASES if case.block]


@pytest.fixture(scope="module", params=[*CASES, REFERENCE], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def world(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with case.world(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def target(world: World) -> Iterator[DeliveryTarget]:
    with world.open() as target:
        yield target


@pytest.fixture
def site(world: World) -> Site:
    return world.site()


def test_check_says_what_answered(target: DeliveryTarget, world: World) -> None:
    """People press "check" to see that settings work; it may not change anything."""
    before = world.snapshot()

    line = target.check()

    assert line
    assert line.isprintable()
    assert before == world.snapshot()


def test_nothing_is_there_before_the_first_delivery(target: DeliveryTarget, site: Site) -> None:
    """A new endpoint is no error."""
    assert target.delivered(site) is None


@pytest.mark.parametrize("with_rsa", [False, True], ids=["ec", "rsa"])
def test_a_consumer_finds_chain_and_key(
    target: DeliveryTarget, world: World, site: Site, with_rsa: bool
) -> None:
    """Delivery is done when somebody else can use the pair."""
    bundle = new_bundle(*site.names, with_rsa=with_rsa)

    line = target.deliver(site, bundle)

    assert target.delivered(site) == bundle.chain.fingerprint
    _must_be(world.read(site), bundle)
    assert line
    assert line.isprintable()


def test_the_same_again_is_quiet(target: DeliveryTarget, world: World, site: Site) -> None:
    """A step that is repeated after a crash must not make versions or wake up consumers."""
    bundle = new_bundle(*site.names)
    target.deliver(site, bundle)
    before = world.snapshot()

    line = target.deliver(site, bundle)

    assert before == world.snapshot()
    assert line


def test_a_renewal_replaces_it(target: DeliveryTarget, world: World, site: Site) -> None:
    """The same place holds the next certificate, with its own key."""
    old, new = new_bundle(*site.names), new_bundle(*site.names)
    target.deliver(site, old)

    target.deliver(site, new)

    assert target.delivered(site) == new.chain.fingerprint
    _must_be(world.read(site), new)


def test_going_back_to_an_older_certificate_works(
    target: DeliveryTarget, world: World, site: Site
) -> None:
    """A redeploy may bring back what was there before."""
    old, new = new_bundle(*site.names), new_bundle(*site.names)
    for bundle in (old, new, old):
        target.deliver(site, bundle)

    assert target.delivered(site) == old.chain.fingerprint
    _must_be(world.read(site), old)


def test_other_places_stay_as_they_are(target: DeliveryTarget, world: World) -> None:
    """Vaults and directories are shared."""
    one, two = world.site(), world.site()
    first, second = new_bundle(*one.names), new_bundle(*two.names)
    target.deliver(one, first)

    target.deliver(two, second)

    _must_be(world.read(one), first)
    _must_be(world.read(two), second)


def test_a_pair_that_does_not_match_is_refused(
    target: DeliveryTarget, world: World, site: Site
) -> None:
    """Several services take any key with any certificate, and break their consumers."""
    before = world.snapshot()

    with pytest.raises(InvalidRequest):
        target.deliver(site, Bundle(new_bundle().chain, new_bundle().key))

    assert before == world.snapshot()


def test_an_unknown_setting_is_refused(target: DeliveryTarget, world: World, site: Site) -> None:
    """A misspelt setting that is ignored stores the key in the wrong form."""
    before = world.snapshot()
    wrong = replace(site, settings={**site.settings, "fromat": "pem"})

    with pytest.raises(InvalidRequest) as caught:
        target.deliver(wrong, new_bundle(*site.names))

    assert before == world.snapshot()
    _must_be_fit_for_people(caught.value, world)


def test_consumers_see_old_or_new_and_nothing_else(
    target: DeliveryTarget, world: World, site: Site
) -> None:
    """A server may be restarted, and read its pair, at any moment."""
    bundles = [new_bundle(*site.names) for _ in range(4)]
    target.deliver(site, bundles[0])
    known = {bundle.chain.fingerprint for bundle in bundles}
    over, wrong = threading.Event(), list[str]()

    def consume() -> None:
        while not over.is_set():
            try:
                found = world.read(site)
                found.must_match()
                if found.chain.fingerprint not in known:
                    wrong.append("another certificate")
            except CertrailError as exc:
                wrong.append(repr(exc))

    consumer = threading.Thread(target=consume)
    consumer.start()
    try:
        for bundle in bundles[1:]:
            target.deliver(site, bundle)
    finally:
        over.set()
        consumer.join()

    assert wrong == []


def test_what_others_put_there_is_seen_and_replaced(
    target: DeliveryTarget, world: World, site: Site
) -> None:
    """Someone repairs it by hand at night, and the next renewal comes."""
    ours, theirs = new_bundle(*site.names), new_bundle(*site.names)
    target.deliver(site, ours)

    world.tamper(site, theirs)

    assert target.delivered(site) == theirs.chain.fingerprint
    target.deliver(site, ours)
    assert target.delivered(site) == ours.chain.fingerprint
    _must_be(world.read(site), ours)


def test_what_was_there_before_us_is_seen_and_replaced(
    target: DeliveryTarget, world: World, site: Site
) -> None:
    """The first delivery often takes over a place that was filled by hand."""
    theirs, ours = new_bundle(*site.names), new_bundle(*site.names)
    world.tamper(site, theirs)
    assert target.delivered(site) == theirs.chain.fingerprint

    target.deliver(site, ours)

    _must_be(world.read(site), ours)


def test_two_workers_do_not_share_state(world: World) -> None:
    """Steps of several requests run at the same time in one process."""
    pairs = [(site, new_bundle(*site.names)) for site in (world.site() for _ in range(4))]

    def deliver(pair: tuple[Site, Bundle]) -> None:
        with world.open() as target:
            target.deliver(*pair)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(deliver, pairs))

    for site, bundle in pairs:
        _must_be(world.read(site), bundle)


@pytest.mark.needs("credential")
def test_a_wrong_credential_is_called_that(case: Case, world: World, site: Site) -> None:
    """It is the one failure that only a person can correct."""
    before = world.snapshot()
    with world.intruder() as target:
        for call in (
            target.check,
            lambda: target.delivered(site),
            lambda: target.deliver(site, new_bundle(*site.names)),
        ):
            with pytest.raises(AuthenticationFailed) as caught:
                call()

            assert not caught.value.retryable
            _must_be_fit_for_people(caught.value, world)
    assert before == world.snapshot()


@pytest.mark.parametrize("fault", [Fault.REFUSED_AFTER, Fault.CUT_AFTER])
@pytest.mark.needs("network")
def test_a_lost_answer_is_made_good_by_a_retry(
    case: Case, world: World, site: Site, fault: Fault
) -> None:
    """It was stored and nobody told us: the retry finds it and stores nothing twice."""
    bundle = new_bundle(*site.names)
    with faulty_proxy(world.port) as proxy, world.at(proxy.port)() as target:
        proxy.choose = lambda method, path: fault if world.writes(method, path) else Fault.NONE
        with pytest.raises(Unreachable) as caught:
            target.deliver(site, bundle)
        after = world.snapshot()

    assert caught.value.retryable
    _must_be_fit_for_people(caught.value, world)
    with world.open() as target:
        assert target.delivered(site) == bundle.chain.fingerprint
        target.deliver(site, bundle)
    assert after == world.snapshot()


@pytest.mark.needs("network")
def test_a_change_that_arrives_twice_is_one(case: Case, world: World, site: Site) -> None:
    """A way that repeats a call is not somebody else: no person is needed to go on."""
    with faulty_proxy(world.port) as proxy, world.at(proxy.port)() as target:
        proxy.choose = lambda method, path: (
            Fault.DOUBLED if world.writes(method, path) else Fault.NONE
        )
        for bundle in (new_bundle(*site.names), new_bundle(*site.names)):
            stored(target, site, bundle)

            _must_be(world.read(site), bundle)


@pytest.mark.needs("network")
def test_a_cut_request_leaves_the_old_one_whole(case: Case, world: World, site: Site) -> None:
    """Whole or nothing: half a delivery is an outage at the next restart."""
    old, new = new_bundle(*site.names), new_bundle(*site.names)
    with world.open() as target:
        target.deliver(site, old)
    with faulty_proxy(world.port) as proxy, world.at(proxy.port)() as target:
        proxy.choose = lambda method, path: (
            Fault.CUT_BEFORE if world.writes(method, path) else Fault.NONE
        )
        with pytest.raises(Unreachable):
            target.deliver(site, new)

    _must_be(world.read(site), old)


@pytest.mark.needs("race")
def test_a_change_between_look_and_write_is_noticed(case: Case, world: World, site: Site) -> None:
    """Two installations that deliver to one place must not overwrite each other unseen."""
    ours, theirs = new_bundle(*site.names), new_bundle(*site.names)
    with world.open() as target:
        target.deliver(site, new_bundle(*site.names))
    world.rest(site)
    raced = threading.Event()

    def race(method: str, path: str) -> None:
        if world.writes(method, path) and not raced.is_set():
            raced.set()
            world.tamper(site, theirs)

    with faulty_proxy(world.port) as proxy, world.at(proxy.port)() as target:
        proxy.before = race
        with pytest.raises(Conflict) as caught:
            target.deliver(site, ours)

    _must_be(world.read(site), theirs)
    _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_refused_connection_is_unreachable(case: Case, world: World, site: Site) -> None:
    """Being down is the most common fault of all."""
    with world.at(free_port())() as target:
        for call in (target.check, lambda: target.deliver(site, new_bundle(*site.names))):
            with pytest.raises(Unreachable) as caught:
                call()

            _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_stall_is_unreachable_within_the_timeout(case: Case, world: World, site: Site) -> None:
    """A worker that waits for ever is a worker lost."""
    with scripted(stall=True) as server, world.at(server.port)() as target:
        with pytest.raises(Unreachable) as caught:
            target.delivered(site)

        _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_cut_reply_is_unreachable(case: Case, world: World, site: Site) -> None:
    """Half an answer says nothing about whether it was done."""
    for reply in (b"", http_reply(200, {"Content-Length": "500"}, "{")):
        with scripted(reply) as server, world.at(server.port)() as target:
            with pytest.raises(Unreachable) as caught:
                target.delivered(site)

            _must_be_fit_for_people(caught.value, world)


def test_nonsense_is_called_unexpected(case: Case, world: World, site: Site) -> None:
    """Another service at that address is a mistake in the settings, not an outage."""
    for reply in case.nonsense:
        with scripted(reply) as server, world.at(server.port)() as target:
            with pytest.raises(UnexpectedReply) as caught:
                target.check()

            assert not caught.value.retryable
            _must_be_fit_for_people(caught.value, world)


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.needs("network")
def test_throttling_carries_the_wait(case: Case, world: World, site: Site, form: str) -> None:
    """The step waits as long as the service asks, and no longer."""
    reply = case.throttled
    assert isinstance(reply, bytes)
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)
    if form == "date":
        reply = reply.replace(b"Retry-After: 7", b"Retry-After: " + later.encode())
    with scripted(reply) as server, world.at(server.port)() as target:
        with pytest.raises(Throttled) as caught:
            target.delivered(site)

        assert caught.value.retry_after is not None
        wanted = timedelta(seconds=7) if form == "seconds" else timedelta(minutes=30)
        assert wanted - timedelta(minutes=5) <= caught.value.retry_after <= wanted


@pytest.mark.needs("echo")
def test_an_echoed_secret_stays_hidden(case: Case, world: World, site: Site) -> None:
    """Debugging proxies and careless services send back what they got."""
    with (
        scripted(case.echo) as server,
        world.at(server.port)() as target,
        pytest.raises(CertrailError) as caught,
    ):
        target.check()
    _must_be_fit_for_people(caught.value, world)


def test_no_key_in_logs_or_messages(
    case: Case, world: World, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs are kept for years and read by many."""
    bundle = new_bundle(*site.names)
    assert bundle.key
    secret = bundle.key.reveal().splitlines()[1].decode()
    texts = []
    with caplog.at_level(logging.DEBUG):
        with world.open() as target:
            texts.append(repr(vars(target)))
            texts += [target.deliver(site, bundle), repr(target), repr(vars(target))]
        if "network" not in case.lacks:
            reply = http_reply(400, body="x" * 10)
            with scripted(reply) as server, world.at(server.port)() as target:
                with pytest.raises(CertrailError) as caught:
                    target.deliver(site, bundle)
                texts += traceback.format_exception(caught.value)

    texts.append(caplog.text)
    assert not any(word in text for word in (secret, *world.secrets) for text in texts)


@pytest.mark.parametrize("vendor", VENDORS, ids=str)
def test_unknown_fields_are_refused(vendor: Case) -> None:
    """A misspelt setting that is ignored shows up months later."""
    assert vendor.block
    with pytest.raises(ValidationError, match="unknown field tiemout"):
        vendor.block(**{"tiemout": 1})


@pytest.mark.parametrize("vendor", VENDORS, ids=str)
def test_every_field_is_described(vendor: Case) -> None:
    """The description is the help text in Prefect's UI and in the documentation."""
    assert vendor.block
    fields = vendor.block.model_fields
    assert [name for name, field in fields.items() if len(field.description or "") < 15] == []


@pytest.mark.parametrize("vendor", VENDORS, ids=str)
def test_secrets_are_secret_fields(vendor: Case) -> None:
    """Only ``SecretStr`` is masked and encrypted by Prefect."""
    assert vendor.block
    secret = (SecretStr, SecretStr | None)
    assert [n for n, f in vendor.block.model_fields.items() if f.annotation in secret]
    for name, field in vendor.block.model_fields.items():
        if re.search(r"(secret|password|token|api_?key|secret_id|secret_access_key)$", name):
            assert field.annotation in secret, name


def test_every_target_is_under_contract() -> None:
    """A block without a case would be a connector nobody tests."""
    folder = Path(next(iter(blocks.delivery.__path__)))
    modules = {path.stem for path in folder.glob("[!_]*.py")}
    assert DeliveryBlock.vendors() == {case.block for case in VENDORS}
    assert modules == {case.block.__module__.rpartition(".")[2] for case in VENDORS if case.block}


def test_gaps_are_declared_and_known() -> None:
    """A gap that anybody can invent is a promise nobody keeps."""
    assert all(case.lacks <= GAPS for case in CASES)
    wired = [case for case in CASES if "network" not in case.lacks]
    assert all(case.nonsense and case.throttled and case.echo for case in wired)


class _StopsAfterStoring(ReferenceTarget):
    """Is refused when it has stored and not yet told whoever uses it."""

    def deliver(self, site: Site, bundle: Bundle) -> str:
        if self.delivered(site) == bundle.chain.fingerprint:
            return "had it already; told"
        self.put(site, bundle)
        raise Conflict("somebody else removed the version before")


def test_what_comes_after_the_storing_is_not_left_out() -> None:
    """As the command that lets a server read it: that it is stored is half of it."""
    site = Site("shop", ("shop.example.test",), (), tls=False, fingerprint=None)
    with ReferenceWorld(_StopsAfterStoring).open() as target:
        assert stored(target, site, new_bundle(*site.names)) == "had it already; told"


class _StoresTheKeyLater(ReferenceTarget):
    """Writes two objects one after the other, as naive uploaders do."""

    def put(self, site: Site, bundle: Bundle) -> None:
        before = self.world.stored.get(site.id)
        super().put(site, Bundle(bundle.chain, before[-1].key if before else bundle.key))
        threading.Event().wait(0.02)
        super().put(site, bundle)


class _RemovesFirst(ReferenceTarget):
    def put(self, site: Site, bundle: Bundle) -> None:
        self.world.stored.pop(site.id, None)
        threading.Event().wait(0.02)
        super().put(site, bundle)


class _AlwaysStores(ReferenceTarget):
    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        self.put(site, bundle)
        return "stored"


class _BelievesItself(ReferenceTarget):
    """Remembers what it stored instead of looking."""

    def delivered(self, site: Site) -> Fingerprint | None:
        self.enter()
        found = self.world.stored.get(site.id)
        return found[0].chain.fingerprint if found else None


class _ForgetsTheKey(ReferenceTarget):
    def put(self, site: Site, bundle: Bundle) -> None:
        super().put(site, Bundle(bundle.chain, None))


class _StoresInOnePlace(ReferenceTarget):
    def put(self, site: Site, bundle: Bundle) -> None:
        for known in (*self.world.stored, site.id):
            self.world.stored[known] = (bundle,)


class _TakesAnyPair(ReferenceTarget):
    def deliver(self, site: Site, bundle: Bundle) -> str:
        self.put(site, bundle)
        return "stored"


class _ChecksByWriting(ReferenceTarget):
    def check(self) -> str:
        self.put(Site(id="check"), new_bundle())
        return "works"


class _LetsAnybodyIn(ReferenceTarget):
    def enter(self) -> None:
        return


class _IgnoresSettings(ReferenceTarget):
    def deliver(self, site: Site, bundle: Bundle) -> str:
        return super().deliver(replace(site, settings={}), bundle)


class _NeverReplaces(ReferenceTarget):
    def put(self, site: Site, bundle: Bundle) -> None:
        self.world.stored.setdefault(site.id, (bundle,))


class _DropsTheChain(ReferenceTarget):
    def put(self, site: Site, bundle: Bundle) -> None:
        leaf = bundle.chain.certificates[:1]
        super().put(site, Bundle(type(bundle.chain).of(leaf), bundle.key))


BROKEN: list[tuple[type[ReferenceTarget], Callable[..., None], dict[str, object]]] = [
    (_StoresTheKeyLater, test_consumers_see_old_or_new_and_nothing_else, {}),
    (_RemovesFirst, test_consumers_see_old_or_new_and_nothing_else, {}),
    (_AlwaysStores, test_the_same_again_is_quiet, {}),
    (_BelievesItself, test_what_others_put_there_is_seen_and_replaced, {}),
    (_ForgetsTheKey, test_a_consumer_finds_chain_and_key, {"with_rsa": False}),
    (_DropsTheChain, test_a_consumer_finds_chain_and_key, {"with_rsa": False}),
    (_StoresInOnePlace, test_other_places_stay_as_they_are, {}),
    (_TakesAnyPair, test_a_pair_that_does_not_match_is_refused, {}),
    (_ChecksByWriting, test_check_says_what_answered, {}),
    (_LetsAnybodyIn, test_a_wrong_credential_is_called_that, {}),
    (_IgnoresSettings, test_an_unknown_setting_is_refused, {}),
    (_NeverReplaces, test_a_renewal_replaces_it, {}),
]


@pytest.mark.parametrize(
    ("broken", "promise", "also"), BROKEN, ids=lambda x: getattr(x, "__name__", "")
)
def test_the_suite_notices_a_broken_target(
    broken: type[ReferenceTarget], promise: Callable[..., None], also: dict[str, object]
) -> None:
    """A suite that a broken target passes proves nothing about the good ones."""
    world = ReferenceWorld(broken)
    with world.open() as target:
        offered = {
            "target": target,
            "world": world,
            "case": REFERENCE,
            "site": world.site(),
            **also,
        }
        wanted = inspect.signature(promise).parameters

        with pytest.raises((AssertionError, CertrailError, pytest.fail.Exception)):
            promise(**{key: offered[key] for key in wanted})


def _must_be(found: Bundle, wanted: Bundle) -> None:
    assert found.chain == wanted.chain
    assert isinstance(found.key, PrivateKeyPem)
    found.must_match()


def _must_be_fit_for_people(error: CertrailError, world: World) -> None:
    """Check that an error says what and what to do, and no secret."""
    texts = [str(error), repr(error), error.remedy, *traceback.format_exception(error)]
    assert not any(secret in text for secret in world.secrets for text in texts)
    assert str(error).isprintable()
    assert error.remedy
