"""Publishing dns-01 challenges, and removing them again whatever happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from blocks.dns.powerdns import PowerDns as PowerDnsBlock
from blocks.dns.rfc2136 import Rfc2136
from certrail.connectors import DnsProvider
from certrail.dns.lookup import Resolver
from certrail.dns.query import Server
from certrail.dns.responder import Dns01Responder
from certrail.errors import CertrailError, InvalidRequest, NotFound, NotPropagated, Unreachable
from certrail.model import Challenge, ChallengeKind
from tests.support.dns_servers import (
    Bind,
    PowerDns,
    bind,
    lagging_secondary,
    powerdns,
)
from tests.support.process import free_port

ZONES = ["example.test", "delegated.test"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    with bind(tmp_path_factory.mktemp("bind"), ZONES) as server:
        yield server


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDns]:
    with powerdns(tmp_path_factory.mktemp("pdns"), ZONES) as server:
        yield server


def settings(server: Bind, **more: object) -> Rfc2136:
    return Rfc2136.model_validate(
        {
            "server": server.address,
            "port": server.port,
            "key_name": server.key_name,
            "key_secret": server.key_secret,
            "resolvers": [server.endpoint],
            "poll_interval": 0.05,
            "propagation_timeout": 5,
            **more,
        }
    )


def challenge(name: str, value: str = "proof") -> Challenge:
    return Challenge(
        kind=ChallengeKind.DNS_01,
        url=f"https://ca.test/chall/{name}",
        authorization=f"https://ca.test/authz/{name}",
        name=name,
        token="token",
        key_authorization="token.thumbprint",
        txt_value=value,
    )


def unlocked(_: str) -> AbstractContextManager[object]:
    return nullcontext()


@contextmanager
def responder(block: Rfc2136 | PowerDnsBlock) -> Iterator[Dns01Responder]:
    with block.connect() as provider:
        yield Dns01Responder(provider, lock=unlocked, resolver=block.resolver())


def test_published_means_visible(server: Bind) -> None:
    """The CA looks as soon as it is told; the line is shown with the step."""
    wanted = [challenge("a.example.test", "one"), challenge("b.example.test", "two")]
    with responder(settings(server)) as dns01:
        line = dns01.publish(wanted)

    assert f"2 TXT records visible on {server.endpoint}" == line
    assert {"one"} == server.values("_acme-challenge.a.example.test")
    assert {"two"} == server.values("_acme-challenge.b.example.test")


def test_a_name_and_its_wildcard_share_a_record_name(server: Bind) -> None:
    """Both proofs have to be there at once, or one of the two orders fails."""
    wanted = [challenge("both.example.test", "one"), challenge("both.example.test", "two")]
    with responder(settings(server)) as dns01:
        dns01.publish(wanted)
        assert {"one", "two"} == server.values("_acme-challenge.both.example.test")

        dns01.withdraw(wanted[:1])

        assert {"two"} == server.values("_acme-challenge.both.example.test")


def test_a_delegated_name_is_written_at_its_target(server: Bind) -> None:
    """Nothing can be written where a CNAME is."""
    server.add_record("_acme-challenge.www.example.test", "CNAME", "www.delegated.test.")
    with responder(settings(server)) as dns01:
        dns01.publish([challenge("www.example.test")])
        assert {"proof"} == server.values("www.delegated.test")

        dns01.withdraw([challenge("www.example.test")])

    assert frozenset() == server.values("www.delegated.test")


def test_names_delegated_to_one_target_share_it(server: Bind) -> None:
    """One small zone often serves the challenges of many names."""
    names = ["m1.example.test", "m2.example.test"]
    for name in names:
        server.add_record(f"_acme-challenge.{name}", "CNAME", "many.delegated.test.")
    wanted = [challenge(name, f"proof of {name}") for name in names]
    with responder(settings(server)) as dns01:
        dns01.publish(wanted)
        assert {"proof of m1.example.test", "proof of m2.example.test"} == server.values(
            "many.delegated.test"
        )

        dns01.withdraw(wanted)

    assert frozenset() == server.values("many.delegated.test")


def test_withdrawing_works_in_another_process(server: Bind, tmp_path: Path) -> None:
    """After a crash another worker cleans up, and has nothing but the challenges."""
    server.add_record("_acme-challenge.crash.example.test", "CNAME", "crash.delegated.test.")
    wanted = challenge("crash.example.test")
    with responder(settings(server)) as dns01:
        dns01.publish([wanted])
    script = tmp_path / "withdraw.py"
    script.write_text(
        "import json, sys\n"
        "from contextlib import nullcontext\n"
        "from blocks.dns.rfc2136 import Rfc2136\n"
        "from certrail.dns.responder import Dns01Responder\n"
        "from certrail.model import Challenge, ChallengeKind\n"
        "given = json.load(sys.stdin)\n"
        "block = Rfc2136(**given['block'])\n"
        "made = Challenge(kind=ChallengeKind.DNS_01, **given['challenge'])\n"
        "with block.connect() as dns:\n"
        "    Dns01Responder(\n"
        "        dns, lock=lambda name: nullcontext(), resolver=block.resolver()\n"
        "    ).withdraw([made])\n"
    )
    fields = ("url", "authorization", "name", "token", "key_authorization", "txt_value")
    given = {
        "block": {
            "server": server.address,
            "port": server.port,
            "key_name": server.key_name,
            "key_secret": server.key_secret,
            "resolvers": [server.endpoint],
        },
        "challenge": {name: getattr(wanted, name) for name in fields},
    }

    subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(given),
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )

    assert frozenset() == server.values("crash.delegated.test")


def test_withdrawing_twice_is_quiet(server: Bind) -> None:
    """Clean-up runs again when nobody knows whether it ran."""
    with responder(settings(server)) as dns01:
        dns01.publish([challenge("twice.example.test")])
        dns01.withdraw([challenge("twice.example.test")])

        dns01.withdraw([challenge("twice.example.test")])

    assert frozenset() == server.values("_acme-challenge.twice.example.test")


def test_publishing_twice_leaves_one_record(server: Bind) -> None:
    """The step runs again after a crash between publishing and telling the CA."""
    with responder(settings(server)) as dns01:
        dns01.publish([challenge("again.example.test")])
        dns01.publish([challenge("again.example.test")])
        dns01.withdraw([challenge("again.example.test")])

    assert frozenset() == server.values("_acme-challenge.again.example.test")


def test_a_failure_half_way_leaves_nothing(server: Bind) -> None:
    """The order is dead; its records would confuse the next one."""
    wanted = [challenge("half.example.test"), challenge("half.unknown.test")]
    block = settings(server)
    with responder(block) as dns01, pytest.raises(CertrailError):
        dns01.publish(wanted)

    assert frozenset() == server.values("_acme-challenge.half.example.test")


def test_a_late_server_leaves_nothing(tmp_path: Path) -> None:
    """A retry publishes again; until then the zone is as it was."""
    with bind(tmp_path) as primary, lagging_secondary(tmp_path, primary) as secondary:
        block = settings(
            primary, nameservers=[primary.endpoint, secondary.endpoint], propagation_timeout=1
        )
        with responder(block) as dns01, pytest.raises(NotPropagated):
            dns01.publish([challenge("late.example.test")])

        assert frozenset() == primary.values("_acme-challenge.late.example.test")


def test_a_failed_clean_up_is_noted_on_the_first_error(tmp_path: Path) -> None:
    """The first error says what went wrong; that records are left must not be lost."""
    with bind(tmp_path) as primary:
        block = settings(primary, nameservers=["127.0.0.1:1"], propagation_timeout=1)
        with block.connect() as provider:
            wedged = _StopsAfterAppend(provider, primary)
            dns01 = Dns01Responder(
                wedged,
                lock=unlocked,
                resolver=Resolver((Server(primary.address, primary.port),), use_system=False),
            )
            with pytest.raises(NotPropagated) as caught:
                dns01.publish([challenge("note.example.test")])

    assert any("could not be removed" in note for note in caught.value.__notes__)


class _StopsAfterAppend(DnsProvider):
    """A provider whose server ends right after the record was added."""

    def __init__(self, inner: DnsProvider, server: Bind) -> None:
        self._inner = inner
        self._server = server

    def check(self) -> str:
        return self._inner.check()

    def zone_of(self, fqdn: str) -> str:
        return self._inner.zone_of(fqdn)

    def append_txt(self, record: object) -> None:
        self._inner.append_txt(record)  # type: ignore[arg-type]
        self._server.process.terminate()
        self._server.process.wait(10)

    def delete_txt(self, record: object) -> None:
        self._inner.delete_txt(record)  # type: ignore[arg-type]

    def find_txt(self, fqdn: str) -> frozenset[str]:
        return self._inner.find_txt(fqdn)

    def wait_until_visible(self, records: Sequence[object], *, present: bool = True) -> str:
        return self._inner.wait_until_visible(records, present=present)  # type: ignore[arg-type]


def test_all_are_withdrawn_before_an_error_is_raised(server: Bind) -> None:
    """One record that cannot be removed must not leave the others behind."""
    good, moved = challenge("kept.example.test"), challenge("moved.example.test")
    with responder(settings(server, zone="example.test")) as dns01:
        dns01.publish([good])
        server.add_record("_acme-challenge.moved.example.test", "CNAME", "x.delegated.test.")

        with pytest.raises(NotFound):
            dns01.withdraw([moved, good])

    assert frozenset() == server.values("_acme-challenge.kept.example.test")


def test_without_a_resolver_the_providers_own_zone_is_used(server: Bind) -> None:
    """A closed network may have none; the provider's zones are then enough."""
    dead = Resolver((Server("127.0.0.1", free_port()),), use_system=False)
    with settings(server).connect() as provider:
        dns01 = Dns01Responder(provider, lock=unlocked, resolver=dead)

        dns01.publish([challenge("closed.example.test")])

        assert {"proof"} == server.values("_acme-challenge.closed.example.test")
        with pytest.raises((NotFound, Unreachable)):
            dns01.publish([challenge("closed.unknown.test")])


def test_another_kind_of_challenge_is_refused(server: Bind) -> None:
    """An http-01 challenge has no TXT value; an empty record would be published."""
    with responder(settings(server)) as dns01, pytest.raises(InvalidRequest):
        dns01.publish([challenge("a.example.test", "")])


class Locks:
    """Locks by name that note how they are used."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
            self.taken.append(name)
        with lock:
            yield


def test_a_provider_that_is_not_atomic_is_locked_by_record(rest: PowerDns) -> None:
    """Twenty orders share a delegated name; without the lock they overwrite each other."""
    block = PowerDnsBlock.model_validate(
        {
            "url": rest.url,
            "api_key": rest.api_key,
            "nameservers": [rest.endpoint],
            "poll_interval": 0.05,
        }
    )
    locks = Locks()
    values = {f"value-{number}" for number in range(12)}

    def publish(value: str) -> None:
        with block.connect() as provider:
            dns01 = Dns01Responder(provider, lock=locks, resolver=block.resolver())
            dns01.publish([challenge("shared.example.test", value)])

    threads = [threading.Thread(target=publish, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert values == rest.values("_acme-challenge.shared.example.test")
    assert {"dns:_acme-challenge.shared.example.test"} == set(locks.taken)


def test_an_atomic_provider_needs_no_lock(server: Bind) -> None:
    """A lock costs a round trip to the coordinator for nothing."""
    locks = Locks()
    with settings(server).connect() as provider:
        dns01 = Dns01Responder(provider, lock=locks, resolver=settings(server).resolver())
        dns01.publish([challenge("free.example.test")])
        dns01.withdraw([challenge("free.example.test")])

    assert locks.taken == []
