"""Waiting until every authoritative server shows a record."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from blocks.dns.powerdns import PowerDns as PowerDnsBlock
from blocks.dns.rfc2136 import Rfc2136
from certrail.dns.propagation import Propagation
from certrail.dns.query import Server
from certrail.errors import NotFound, NotPropagated
from certrail.model import TxtRecord
from tests.support.dns_servers import (
    Bind,
    DnsServer,
    Secondary,
    bind,
    lagging_secondary,
    powerdns,
)
from tests.support.process import free_port, wait_for

NAME = "_acme-challenge.www.example.test"
ONE = TxtRecord(NAME, "one")
SOON = timedelta(seconds=0.4)
LONG = timedelta(seconds=30)
OFTEN = timedelta(seconds=0.02)


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Bind]:
    with bind(tmp_path) as server:
        yield server


@pytest.fixture
def secondary(tmp_path: Path, primary: Bind) -> Iterator[Secondary]:
    with lagging_secondary(tmp_path, primary) as server:
        yield server


def settings(server: Bind, **more: object) -> Rfc2136:
    return Rfc2136.model_validate(
        {
            "server": server.address,
            "port": server.port,
            "key_name": server.key_name,
            "key_secret": server.key_secret,
            "poll_interval": 0.05,
            **more,
        }
    )


def watch(*servers: DnsServer | Server, present: bool = True, timeout: timedelta = SOON) -> str:
    asked = [s if isinstance(s, Server) else Server(s.address, s.port) for s in servers]
    return Propagation([ONE], {NAME: asked}, present).wait(timeout=timeout, interval=OFTEN)


def test_a_lagging_secondary_is_named_with_what_it_shows(
    primary: Bind, secondary: Secondary
) -> None:
    """The CA may ask that one; "not visible" without saying where helps nobody."""
    block = settings(
        primary, nameservers=[primary.endpoint, secondary.endpoint], propagation_timeout=1
    )
    with block.connect() as dns:
        dns.append_txt(ONE)

        with pytest.raises(NotPropagated) as caught:
            dns.wait_until_visible([ONE])

    assert f"TXT {NAME} is not visible on {secondary.endpoint}, which shows: NXDOMAIN" == str(
        caught.value
    )
    assert "propagation_timeout" in caught.value.remedy


def test_a_secondary_that_catches_up_ends_the_wait(primary: Bind, secondary: Secondary) -> None:
    """Publishing waits as long as needed and not longer."""
    block = settings(primary, nameservers=[primary.endpoint, secondary.endpoint])
    with block.connect() as dns:
        dns.append_txt(ONE)
        assert frozenset() == secondary.values(NAME)
        later = threading.Timer(0.2, secondary.catch_up)
        later.start()

        line = dns.wait_until_visible([ONE])

        later.join()
    assert f"1 TXT record visible on {primary.endpoint}, {secondary.endpoint}" == line
    assert {"one"} == secondary.values(NAME)


def test_a_secondary_that_keeps_a_removed_record_is_named(
    primary: Bind, secondary: Secondary
) -> None:
    """Before a name is reused its old values should be gone everywhere."""
    primary.add_record(NAME, "TXT", '"one"')
    secondary.catch_up()
    wait_for(lambda: secondary.values(NAME) == {"one"}, "the secondary has the record")
    primary.remove_records(NAME, "TXT")

    with pytest.raises(NotPropagated) as caught:
        watch(primary, secondary, present=False)

    assert f'is still visible on {secondary.endpoint}, which shows: "one"' in str(caught.value)


def test_other_values_are_shown_and_do_not_count(primary: Bind) -> None:
    """An old value at the name is the commonest reason for a failed validation."""
    primary.add_record(NAME, "TXT", '"old\\027[2J"')
    primary.add_record(NAME, "TXT", '"older"')

    with pytest.raises(NotPropagated) as caught:
        watch(primary)

    assert str(caught.value).isprintable()
    assert '"old\\x1b[2J", "older"' in str(caught.value)


def test_a_cname_at_the_name_is_shown(primary: Bind) -> None:
    """A delegation that was made after we looked explains itself."""
    primary.add_record(NAME, "CNAME", "x.example.test.")

    with pytest.raises(NotPropagated, match=r"a CNAME to x\.example\.test"):
        watch(primary)


def test_a_server_without_the_zone_is_named(primary: Bind, tmp_path: Path) -> None:
    """A lame delegation answers REFUSED, which says what is wrong with it."""
    with bind(tmp_path / "other", ["other.test"]) as lame:
        with pytest.raises(NotPropagated) as caught:
            watch(lame)

        assert f"{lame.endpoint}, which shows: REFUSED" in str(caught.value)


def test_a_dead_server_that_was_configured_is_waited_for(primary: Bind) -> None:
    """Who lists a server wants it asked."""
    primary.add_record(NAME, "TXT", '"one"')
    dead = Server("127.0.0.1", free_port())

    with pytest.raises(NotPropagated) as caught:
        watch(primary, dead)

    assert str(dead) in str(caught.value)
    assert "can be reached from here" in caught.value.remedy


class PatientClock:
    """A clock on which every pause takes ten seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float, /) -> None:
        self.now += 10


def test_a_dead_server_that_an_ns_record_names_is_left_out_after_a_while(primary: Bind) -> None:
    """Resolvers pass over a dead name server, so a certificate need not wait for it."""
    primary.add_record(NAME, "TXT", '"one"')
    dead = Server("127.0.0.1", free_port(), "ns2.example.test")
    clock = PatientClock()
    good = Server(primary.address, primary.port, "ns1.example.test")

    line = Propagation([ONE], {NAME: [good, dead]}, clock=clock).wait(
        timeout=timedelta(minutes=2), interval=OFTEN
    )

    assert line == (
        f"1 TXT record visible on ns1.example.test ({primary.endpoint}); "
        f"no answer from ns2.example.test (127.0.0.1:{dead.port})"
    )
    assert clock.now == 20


def test_a_lagging_server_that_an_ns_record_names_is_never_left_out(
    primary: Bind, secondary: Secondary
) -> None:
    """It answers, so the CA may believe it."""
    primary.add_record(NAME, "TXT", '"one"')
    good = Server(primary.address, primary.port, "ns1.example.test")
    late = Server(secondary.address, secondary.port, "ns2.example.test")

    with pytest.raises(NotPropagated, match=r"ns2\.example\.test"):
        Propagation([ONE], {NAME: [good, late]}, clock=PatientClock()).wait(
            timeout=timedelta(minutes=2), interval=OFTEN
        )


def test_only_dead_servers_are_no_success(primary: Bind) -> None:
    """At least one server has to have shown the record."""
    dead = Server("127.0.0.1", free_port(), "ns1.example.test")

    with pytest.raises(NotPropagated):
        Propagation([ONE], {NAME: [dead]}, clock=PatientClock()).wait(
            timeout=timedelta(seconds=50), interval=OFTEN
        )


def test_a_server_that_restarts_meanwhile_is_asked_again(primary: Bind) -> None:
    """One lost answer in two minutes is not a failure."""
    primary.add_record(NAME, "TXT", '"one"')
    primary.process.send_signal(signal.SIGSTOP)
    threading.Timer(0.5, primary.process.send_signal, (signal.SIGCONT,)).start()

    assert "1 TXT record visible on" in watch(primary, timeout=LONG)


def test_an_answer_too_long_for_udp_is_read_over_tcp(primary: Bind) -> None:
    """Twenty names validated at one delegated record exceed a datagram."""
    records = [TxtRecord(NAME, f"{number:02d}" + "v" * 200) for number in range(20)]
    for record in records:
        primary.add_record(NAME, "TXT", f'"{record.value}"')
    udp = primary.ask(NAME, "TXT")
    assert udp.flags & dns.flags.TC

    line = Propagation(records, {NAME: [Server(primary.address, primary.port)]}).wait(
        timeout=LONG, interval=OFTEN
    )

    assert line.startswith("20 TXT records visible")


def test_the_zones_own_servers_are_asked_by_default(primary: Bind, tmp_path: Path) -> None:
    """Without any setting every NS of the zone counts, on the primary's port if it is there."""
    with settings(primary).connect() as dns:
        dns.append_txt(ONE)

        assert f"1 TXT record visible on {primary.endpoint}" == dns.wait_until_visible([ONE])


def test_a_zone_without_usable_ns_is_asked_of_its_primary(primary: Bind) -> None:
    """A laboratory's zone often has NS records that lead nowhere."""
    primary.add_record("example.test", "NS", "ns.nowhere.invalid.")
    primary.remove_records("example.test", "NS", "ns1.example.test.")
    with settings(primary).connect() as dns:
        dns.append_txt(ONE)

        assert f"1 TXT record visible on {primary.endpoint}" == dns.wait_until_visible([ONE])


def test_powerdns_without_nameservers_finds_those_of_the_zone(tmp_path: Path) -> None:
    """The API says nothing of where DNS is served, so the NS records have to."""
    with powerdns(tmp_path) as server:
        block = PowerDnsBlock.model_validate(
            {"url": server.url, "api_key": server.api_key, "resolvers": [server.endpoint]}
        )
        with block.connect() as provider:
            provider.append_txt(ONE)

            line = provider.wait_until_visible([ONE])

            assert f"1 TXT record visible on ns1.example.test ({server.endpoint})" == line
            server.remove_records("ns1.example.test", "A")
            with pytest.raises(NotFound):
                provider.wait_until_visible([ONE])
