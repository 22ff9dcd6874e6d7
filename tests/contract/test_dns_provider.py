"""What every DNS provider promises. A new provider adds a case, not a test."""

from __future__ import annotations

import inspect
import itertools
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

import blocks.dns
from blocks._base import DnsBlock
from certrail.connectors import DnsProvider
from certrail.errors import (
    AuthenticationFailed,
    Busy,
    CertrailError,
    NotFound,
    NotPropagated,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.model import TxtRecord
from tests.contract.dns_cases import (
    CASES,
    GAPS,
    REFERENCE,
    SUBZONE,
    ZONE,
    Case,
    ReferenceDns,
    ReferenceWorld,
    World,
)
from tests.support.process import free_port
from tests.support.scripted import scripted
from tests.support.tcp_relay import tcp_relay

_fresh = itertools.count()


@pytest.fixture(scope="module", params=[*CASES, REFERENCE], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def world(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with case.world(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def dns(world: World) -> Iterator[DnsProvider]:
    with world.block.connect() as dns:
        yield dns


@pytest.fixture
def name() -> str:
    """Return a record name that no other test uses: the servers live for all of them."""
    return f"_acme-challenge.n{next(_fresh)}.{ZONE}"


def test_check_says_what_answered(dns: DnsProvider, world: World) -> None:
    """People press "check" to see that settings work; it may not change anything."""
    before = world.snapshot()

    line = dns.check()

    assert line.isprintable()
    assert line
    assert before == world.snapshot()


def test_two_values_live_at_one_name(dns: DnsProvider, name: str) -> None:
    """A name and its wildcard are validated at the same record name."""
    dns.append_txt(TxtRecord(name, "one"))
    dns.append_txt(TxtRecord(name, "two"))

    assert {"one", "two"} == dns.find_txt(name)


def test_deleting_one_value_keeps_the_other(dns: DnsProvider, name: str) -> None:
    """Clean-up of one order must not break another that is still running."""
    dns.append_txt(TxtRecord(name, "one"))
    dns.append_txt(TxtRecord(name, "two"))

    dns.delete_txt(TxtRecord(name, "one"))

    assert {"two"} == dns.find_txt(name)


def test_the_last_value_can_be_deleted(dns: DnsProvider, world: World, name: str) -> None:
    """Nothing is left after an order, or zones fill up over the years."""
    before = world.snapshot()
    dns.append_txt(TxtRecord(name, "one"))

    dns.delete_txt(TxtRecord(name, "one"))

    assert frozenset() == dns.find_txt(name)
    assert _without_serial(before) == _without_serial(world.snapshot())


def test_deleting_an_absent_value_is_quiet(dns: DnsProvider, name: str) -> None:
    """Clean-up runs again after a crash."""
    dns.delete_txt(TxtRecord(name, "one"))

    assert frozenset() == dns.find_txt(name)


def test_a_duplicate_append_is_quiet(dns: DnsProvider, name: str) -> None:
    """Publishing runs again after a crash; one clean-up must then be enough."""
    dns.append_txt(TxtRecord(name, "one"))
    dns.append_txt(TxtRecord(name, "one"))
    assert {"one"} == dns.find_txt(name)

    dns.delete_txt(TxtRecord(name, "one"))

    assert frozenset() == dns.find_txt(name)


def test_other_records_stay_as_they_are(dns: DnsProvider, world: World, name: str) -> None:
    """The zone belongs to somebody else; we touch our own value only."""
    world.add_record(name + ".", "CAA", '0 issue "ca.test"')
    world.add_record(name + ".", "TXT", '"somebody else\'s"')
    world.add_record("deeper." + name + ".", "TXT", '"x"')
    before = world.snapshot()

    dns.append_txt(TxtRecord(name, "one"))
    during = world.snapshot()
    dns.delete_txt(TxtRecord(name, "one"))

    assert _without_serial(before) < _without_serial(during)
    assert len(_without_serial(during) - _without_serial(before)) == 1
    assert _without_serial(before) == _without_serial(world.snapshot())


def test_the_longest_zone_wins(dns: DnsProvider) -> None:
    """A record written to the parent of a delegated zone is never seen."""
    found = [dns.zone_of(f"_acme-challenge.{at}") for at in (ZONE, f"a.b.{ZONE}", f"x.{SUBZONE}")]

    assert found == [ZONE, ZONE, SUBZONE]


def test_a_record_lands_in_the_longest_zone(dns: DnsProvider, world: World) -> None:
    """What ``zone_of`` says and what an append does must not differ."""
    fqdn = f"_acme-challenge.n{next(_fresh)}.{SUBZONE}"

    dns.append_txt(TxtRecord(fqdn, "one"))

    assert {"one"} == dns.find_txt(fqdn)
    assert any(fqdn in entry[0] for entry in world.snapshot())


def test_the_zone_itself_can_hold_a_record(dns: DnsProvider) -> None:
    """A certificate for the bare domain is validated directly below the apex."""
    assert dns.zone_of(ZONE) == ZONE
    assert dns.zone_of(SUBZONE) == SUBZONE


@pytest.mark.parametrize("fqdn", ["_acme-challenge.other.test", f"not{ZONE}", "test"])
def test_a_name_outside_its_zones_is_not_found(dns: DnsProvider, fqdn: str) -> None:
    """A wrong connector in a profile must be named before anything is ordered."""
    with pytest.raises(NotFound) as caught:
        dns.zone_of(fqdn)
    with pytest.raises(NotFound):
        dns.append_txt(TxtRecord(fqdn, "one"))

    assert fqdn in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "value",
    [
        "x" * 255,
        "y" * 256,
        "z" * 1000,
        'say "hello"',
        "back\\slash \\065",
        "semi; colon",
        "  spaces  ",
        "ü €",
        "(a) $b @c",
    ],
    ids=lambda value: value[:10].strip() + str(len(value)),
)
def test_any_value_comes_back_as_it_was(dns: DnsProvider, name: str, value: str) -> None:
    """Quoting is where record APIs differ, and strings end at 255 octets."""
    dns.append_txt(TxtRecord(name, value))
    dns.append_txt(TxtRecord(name, "other"))
    assert {value, "other"} == dns.find_txt(name)
    assert dns.wait_until_visible([TxtRecord(name, value)])

    dns.delete_txt(TxtRecord(name, value))

    assert {"other"} == dns.find_txt(name)


def test_names_are_not_case_sensitive(dns: DnsProvider, name: str) -> None:
    """DNS ignores case, so must we, or clean-up misses the record."""
    dns.append_txt(TxtRecord(name.upper(), "Value"))

    assert {"Value"} == dns.find_txt(name)


def test_visible_means_visible_at_the_servers(dns: DnsProvider, name: str) -> None:
    """The CA is told only after this returns; its line is shown with the step."""
    records = [TxtRecord(name, "one"), TxtRecord(name, "two")]
    for record in records:
        dns.append_txt(record)

    line = dns.wait_until_visible(records)

    assert line.startswith("2 TXT records")
    for record in records:
        dns.delete_txt(record)
    assert dns.wait_until_visible(records, present=False)


def test_invisible_is_an_error_when_time_is_up(dns: DnsProvider, name: str) -> None:
    """Running out of time is never success; a fixed sleep would make it one."""
    dns.propagation_timeout = timedelta(seconds=0.3)

    with pytest.raises(NotPropagated) as caught:
        dns.wait_until_visible([TxtRecord(name, "never")])

    assert name in str(caught.value)
    assert re.search(r"127\.0\.0\.1:\d+|the memory", str(caught.value))
    assert caught.value.retryable


def test_concurrent_appends_all_survive(world: World, name: str) -> None:
    """Bulk jobs validate many names at once; a lost value is a failed order."""
    values = {f"value-{number}" for number in range(12)}

    def append(value: str) -> None:
        with world.block.connect() as dns, world.change(dns, name):
            dns.append_txt(TxtRecord(name, value))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, sorted(values)))

    with world.block.connect() as dns:
        assert values == dns.find_txt(name)


def test_concurrent_appends_and_deletes_do_not_undo_each_other(world: World, name: str) -> None:
    """One order cleans up while the next one publishes."""
    old = [TxtRecord(name, f"old-{number}") for number in range(6)]
    new = [TxtRecord(name, f"new-{number}") for number in range(6)]
    with world.block.connect() as dns:
        for record in old:
            dns.append_txt(record)

    def change(record: TxtRecord) -> None:
        with world.block.connect() as dns, world.change(dns, name):
            (dns.delete_txt if record in old else dns.append_txt)(record)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(change, [r for pair in zip(old, new, strict=True) for r in pair]))

    with world.block.connect() as dns:
        assert {record.value for record in new} == dns.find_txt(name)


def test_a_wrong_credential_is_called_that(world: World, name: str) -> None:
    """Operators act on the error's type, so a 401 may not look like an outage."""
    calls: list[Callable[[DnsProvider], object]] = [
        lambda dns: dns.check(),
        lambda dns: dns.zone_of(name),
        lambda dns: dns.append_txt(TxtRecord(name, "one")),
        lambda dns: dns.delete_txt(TxtRecord(name, "one")),
        lambda dns: dns.find_txt(name),
    ]
    for call in calls:
        with world.intruder.connect() as dns, pytest.raises(AuthenticationFailed) as caught:
            call(dns)

        assert not caught.value.retryable
        _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_refused_connection_is_unreachable(case: Case, world: World) -> None:
    """A service that restarts is worth another try."""
    with world.at(free_port()).connect() as dns, pytest.raises(Unreachable) as caught:
        dns.check()

    _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_stall_is_unreachable_within_the_timeout(case: Case, world: World, name: str) -> None:
    """A worker that waits for ever is a worker lost."""
    with scripted(stall=True) as server, world.at(server.port).connect() as dns:
        for call in (dns.check, lambda: dns.append_txt(TxtRecord(name, "one"))):
            with pytest.raises(Unreachable) as caught:
                call()

            _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_cut_reply_is_unreachable(case: Case, world: World) -> None:
    """Half an answer says nothing about whether it was done."""
    for reply in (b"", case.cut):
        with scripted(reply) as server, world.at(server.port).connect() as dns:
            with pytest.raises(Unreachable) as caught:
                dns.check()

            _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("network")
def test_a_lost_answer_is_made_good_by_a_retry(case: Case, world: World, name: str) -> None:
    """Whether the record is there is not known; to add it again is quiet."""
    with tcp_relay(world.port) as between, world.at(between.port).connect() as dns:
        wanted = [TxtRecord(name, "lost-and-found-1"), TxtRecord(name, "lost-and-found-2")]
        for record, instead in zip(wanted, (b"", case.denied), strict=True):
            between.spoil(record.value.encode(), after=case.done, instead=instead)
            with pytest.raises((Unreachable, Busy)) as caught:
                dns.append_txt(record)

            assert caught.value.retryable
            dns.append_txt(record)
        between.spoil(b"lost-and-found", after=case.done)
        with pytest.raises(Unreachable):
            dns.delete_txt(wanted[0])
        dns.delete_txt(wanted[0])

        assert dns.find_txt(name) == {"lost-and-found-2"}


@pytest.mark.needs("network")
def test_nonsense_is_called_unexpected(case: Case, world: World, name: str) -> None:
    """Another service at that address is a mistake in the settings, not an outage."""
    for reply in case.nonsense:
        with scripted(reply) as server, world.at(server.port).connect() as dns:
            for call in (dns.check, lambda dns=dns: dns.find_txt(name)):
                with pytest.raises(UnexpectedReply) as caught:
                    call()

                assert not caught.value.retryable
                _must_be_fit_for_people(caught.value, world)


@pytest.mark.needs("throttled")
def test_throttling_carries_the_wait(case: Case, world: World) -> None:
    """The step waits as long as the service asks, whichever way it says so."""
    assert case.throttled is not None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for wait, least, most in (("7", 7, 7), (later, 30, 91)):
        with scripted(case.throttled(wait)) as server, world.at(server.port).connect() as dns:
            with pytest.raises(Throttled) as caught:
                dns.check()

            assert caught.value.retry_after is not None
            assert least <= caught.value.retry_after.total_seconds() <= most


@pytest.mark.needs("echo")
def test_an_echoed_credential_stays_hidden(case: Case, world: World) -> None:
    """Debugging proxies and careless services send back what they got."""
    with scripted(case.echo) as server, world.at(server.port).connect() as dns:
        with pytest.raises(CertrailError) as caught:
            dns.check()

        assert any(secret.encode() in server.requests[0] for secret in world.secrets)
    _must_be_fit_for_people(caught.value, world)


def test_no_secret_in_any_text_of_the_block(world: World) -> None:
    """Blocks are printed in logs and shown in Prefect's UI."""
    with world.block.connect() as dns:
        texts = [repr(world.block), str(world.block), repr(dns), repr(vars(dns))]

    assert not any(secret in text for secret in world.secrets for text in texts)


@pytest.mark.parametrize("vendor", CASES, ids=str)
def test_unknown_fields_are_refused(vendor: Case) -> None:
    """A misspelt setting that is ignored shows up months later."""
    assert vendor.block
    with pytest.raises(ValidationError, match="unknown field nmaeservers"):
        vendor.block(**{"nmaeservers": ["127.0.0.1"]})


@pytest.mark.parametrize("vendor", CASES, ids=str)
def test_every_field_is_described(vendor: Case) -> None:
    """The description is the help text in Prefect's UI and in the documentation."""
    assert vendor.block
    fields = vendor.block.model_fields
    assert [name for name, field in fields.items() if len(field.description or "") < 15] == []


@pytest.mark.parametrize("vendor", CASES, ids=str)
def test_secrets_are_secret_fields(vendor: Case) -> None:
    """Only ``SecretStr`` is masked and encrypted by Prefect."""
    assert vendor.block
    secret = [n for n, f in vendor.block.model_fields.items() if f.annotation is SecretStr]
    assert secret
    for name, field in vendor.block.model_fields.items():
        if re.search(r"(secret|password|token|api_?key)$", name):
            assert field.annotation is SecretStr, name


def test_every_provider_is_under_contract() -> None:
    """A block without a case would be a connector nobody tests."""
    folder = Path(next(iter(blocks.dns.__path__)))
    modules = {path.stem for path in folder.glob("[!_]*.py")}
    assert DnsBlock.vendors() == {case.block for case in CASES}
    assert modules == {case.block.__module__.rpartition(".")[2] for case in CASES if case.block}


def test_gaps_are_declared_and_known() -> None:
    """A gap that anybody can invent is a promise nobody keeps."""
    assert all(case.lacks <= GAPS for case in CASES)
    assert all(case.nonsense and case.cut for case in CASES if "network" not in case.lacks)
    assert all(case.throttled for case in CASES if "throttling" not in case.lacks)


class _Overwrites(ReferenceDns):
    """Replaces the record set, like the APIs that have only that."""

    def append_txt(self, record: TxtRecord) -> None:
        for value in self.find_txt(record.fqdn):
            super().delete_txt(TxtRecord(record.fqdn, value))
        super().append_txt(record)


class _DeletesTheSet(ReferenceDns):
    def delete_txt(self, record: TxtRecord) -> None:
        for value in self.find_txt(record.fqdn):
            super().delete_txt(TxtRecord(record.fqdn, value))


class _DeletesTheName(ReferenceDns):
    def delete_txt(self, record: TxtRecord) -> None:
        self._world.records -= {r for r in self._world.records if r[0].rstrip(".") == record.fqdn}


class _NeverDeletes(ReferenceDns):
    def delete_txt(self, record: TxtRecord) -> None:
        self.zone_of(record.fqdn)


class _RaisesOnAbsent(ReferenceDns):
    def delete_txt(self, record: TxtRecord) -> None:
        if record.value not in self.find_txt(record.fqdn):
            raise NotFound("no such record")
        super().delete_txt(record)


class _RaisesOnDuplicate(ReferenceDns):
    def append_txt(self, record: TxtRecord) -> None:
        if record.value in self.find_txt(record.fqdn):
            raise NotFound("exists already")
        super().append_txt(record)


class _ShortestZone(ReferenceDns):
    def zone_of(self, fqdn: str) -> str:
        return min(super().zone_of(fqdn), ZONE, key=len)


class _AnyZone(ReferenceDns):
    def zone_of(self, fqdn: str) -> str:
        return ZONE


class _CutsLongValues(ReferenceDns):
    def append_txt(self, record: TxtRecord) -> None:
        super().append_txt(TxtRecord(record.fqdn, record.value[:255]))


class _StripsQuotes(ReferenceDns):
    def append_txt(self, record: TxtRecord) -> None:
        super().append_txt(TxtRecord(record.fqdn, record.value.strip(' "')))


class _ReadModifyWrite(ReferenceDns):
    """Claims to be atomic and is not."""

    def append_txt(self, record: TxtRecord) -> None:
        present = self.find_txt(record.fqdn)
        threading.Event().wait(0.05)
        for value in self.find_txt(record.fqdn) - present:
            super().delete_txt(TxtRecord(record.fqdn, value))
        super().append_txt(record)


class _LetsAnybodyIn(ReferenceDns):
    def _enter(self) -> None:
        return


class _ChecksByWriting(ReferenceDns):
    def check(self) -> str:
        self.append_txt(TxtRecord(f"_check.{ZONE}", "hello"))
        return "works"


BROKEN: list[tuple[type[ReferenceDns], Callable[..., None], dict[str, object]]] = [
    (_Overwrites, test_two_values_live_at_one_name, {}),
    (_DeletesTheSet, test_deleting_one_value_keeps_the_other, {}),
    (_DeletesTheName, test_other_records_stay_as_they_are, {}),
    (_NeverDeletes, test_the_last_value_can_be_deleted, {}),
    (_RaisesOnAbsent, test_deleting_an_absent_value_is_quiet, {}),
    (_RaisesOnDuplicate, test_a_duplicate_append_is_quiet, {}),
    (_ShortestZone, test_the_longest_zone_wins, {}),
    (_AnyZone, test_a_name_outside_its_zones_is_not_found, {"fqdn": "a.other.test"}),
    (_CutsLongValues, test_any_value_comes_back_as_it_was, {"value": "y" * 256}),
    (_StripsQuotes, test_any_value_comes_back_as_it_was, {"value": 'say "hello"'}),
    (_ReadModifyWrite, test_concurrent_appends_all_survive, {}),
    (_LetsAnybodyIn, test_a_wrong_credential_is_called_that, {}),
    (_ChecksByWriting, test_check_says_what_answered, {}),
]


@pytest.mark.parametrize(
    ("provider", "promise", "also"), BROKEN, ids=lambda x: getattr(x, "__name__", "")
)
def test_the_suite_notices_a_broken_provider(
    provider: type[ReferenceDns], promise: Callable[..., None], also: dict[str, object], name: str
) -> None:
    """A suite that a broken provider passes proves nothing about the good ones."""
    world = ReferenceWorld(provider)
    with world.block.connect() as dns:
        offered = {"dns": dns, "world": world, "case": REFERENCE, "name": name, **also}
        wanted = inspect.signature(promise).parameters

        with pytest.raises((AssertionError, CertrailError, pytest.fail.Exception)):
            promise(**{key: offered[key] for key in wanted})


def _without_serial(
    records: frozenset[tuple[str, str, str]],
) -> frozenset[tuple[str, str, str]]:
    return frozenset(record for record in records if record[1] != "SOA")


def _must_be_fit_for_people(error: CertrailError, world: World) -> None:
    """Check that an error says what and what to do, and no secret."""
    texts = [str(error), repr(error), error.remedy, *traceback.format_exception(error)]
    assert not any(secret in text for secret in world.secrets for text in texts)
    assert str(error).isprintable()
    assert error.remedy
