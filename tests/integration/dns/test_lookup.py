"""Where a challenge record lives and who answers for it, asked of real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from certrail.dns.lookup import Resolver, authority_of, challenge_target
from certrail.dns.query import Server
from certrail.errors import InvalidRequest, NotFound, Unreachable
from tests.support.dns_servers import Bind, PowerDns, bind, powerdns
from tests.support.process import free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    zones = ["example.test", "sub.example.test", "delegated.test", "broken.test"]
    with bind(tmp_path_factory.mktemp("bind"), zones) as server:
        yield server


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDns]:
    with powerdns(tmp_path_factory.mktemp("pdns"), ["elsewhere.test"]) as server:
        yield server


@pytest.fixture
def resolver(server: Bind, other: PowerDns) -> Resolver:
    """Return one that asks two authoritative servers, as in a split-horizon network."""
    return Resolver(
        (Server(server.address, server.port), Server(other.address, other.port)), use_system=False
    )


def test_a_name_that_does_not_exist_yet_is_its_own_target(resolver: Resolver) -> None:
    """The usual case: nothing is there before the first order."""
    assert (
        challenge_target("_acme-challenge.new.example.test", resolver)
        == "_acme-challenge.new.example.test"
    )


def test_a_name_with_records_is_its_own_target(server: Bind, resolver: Resolver) -> None:
    """An old TXT record is no delegation."""
    server.add_record("_acme-challenge.txt.example.test", "TXT", '"old"')

    assert (
        challenge_target("_acme-challenge.txt.example.test", resolver)
        == "_acme-challenge.txt.example.test"
    )


def test_a_cname_is_followed_into_another_zone(server: Bind, resolver: Resolver) -> None:
    """Delegation lets a locked-down zone be validated through a small one of its own."""
    server.add_record("_acme-challenge.www.example.test", "CNAME", "WWW.delegated.test.")

    assert challenge_target("_acme-challenge.WWW.example.test", resolver) == "www.delegated.test"


def test_a_cname_is_followed_to_another_server(
    server: Bind, other: PowerDns, resolver: Resolver
) -> None:
    """The delegated zone is often with another provider than the zone itself."""
    server.add_record("_acme-challenge.far.example.test", "CNAME", "a.example.test.")
    server.add_record("a.example.test", "CNAME", "b.elsewhere.test.")
    other.add_record("b.elsewhere.test", "CNAME", "c.elsewhere.test.")

    assert challenge_target("_acme-challenge.far.example.test", resolver) == "c.elsewhere.test"


def test_a_dname_counts_as_a_delegation(server: Bind, resolver: Resolver) -> None:
    """A whole subtree can be delegated at once (RFC 6672)."""
    server.add_record("tree.example.test", "DNAME", "tree.delegated.test.")

    assert (
        challenge_target("_acme-challenge.x.tree.example.test", resolver)
        == "_acme-challenge.x.tree.delegated.test"
    )


def test_a_circle_of_cnames_is_refused(server: Bind, resolver: Resolver) -> None:
    """Following it for ever would hang the step; retrying would not mend it."""
    server.add_record("_acme-challenge.loop.example.test", "CNAME", "loop.delegated.test.")
    server.add_record("loop.delegated.test", "CNAME", "_acme-challenge.loop.example.test.")

    with pytest.raises(InvalidRequest) as caught:
        challenge_target("_acme-challenge.loop.example.test", resolver)

    assert "circle" in str(caught.value)
    assert "loop.delegated.test" in str(caught.value)


def test_a_long_chain_of_cnames_is_refused(server: Bind, resolver: Resolver) -> None:
    """Resolvers of CAs have a limit too, so such a name fails there later."""
    for number in range(10):
        server.add_record(f"c{number}.example.test", "CNAME", f"c{number + 1}.example.test.")

    with pytest.raises(InvalidRequest) as caught:
        challenge_target("c0.example.test", resolver)

    assert "more than 8" in str(caught.value)
    assert challenge_target("c2.example.test", resolver) == "c10.example.test"


def test_a_cname_into_a_zone_nobody_knows_is_unreachable(server: Bind, resolver: Resolver) -> None:
    """Writing to the delegated name would fail; the resolver may just be down."""
    server.add_record("_acme-challenge.gone.example.test", "CNAME", "x.unknown.test.")

    with pytest.raises(Unreachable) as caught:
        challenge_target("_acme-challenge.gone.example.test", resolver)

    assert "x.unknown.test" in str(caught.value)
    assert "nameservers" in caught.value.remedy


def test_no_answer_at_all_is_unreachable(server: Bind) -> None:
    """A dead resolver may not look like "there is no CNAME"."""
    dead = Resolver((Server("127.0.0.1", free_port()),), use_system=False)

    with pytest.raises(Unreachable):
        challenge_target("_acme-challenge.www.example.test", dead)


def test_a_dead_resolver_is_passed_over(server: Bind) -> None:
    """The second resolver is there for this."""
    dead = Server("127.0.0.1", free_port())
    resolver = Resolver((dead, Server(server.address, server.port)), use_system=False)

    assert challenge_target("new.example.test", resolver) == "new.example.test"


def test_the_authority_is_that_of_the_longest_zone(server: Bind, resolver: Resolver) -> None:
    """A name below a delegated zone is asked of that zone's servers."""
    found = authority_of("_acme-challenge.a.b.sub.example.test", resolver)

    assert found.zone == "sub.example.test"
    assert (Server(server.address, server.port, "ns1.sub.example.test"),) == found.servers


def test_the_authority_of_an_apex_is_the_zone_itself(resolver: Resolver) -> None:
    """A delegated challenge name can be a zone of its own."""
    assert authority_of("delegated.test", resolver).zone == "delegated.test"


def test_the_authority_of_an_alias_is_its_own_zone(server: Bind, resolver: Resolver) -> None:
    """The SOA in the answer belongs to the target's zone and would mislead."""
    server.add_record("alias.example.test", "CNAME", "deep.sub.example.test.")

    assert authority_of("alias.example.test", resolver).zone == "example.test"


def test_every_address_of_every_server_is_found(server: Bind, resolver: Resolver) -> None:
    """A CA asks any of them, so all of them have to show the record."""
    server.add_record("ns2.broken.test", "A", "127.0.0.2")
    server.add_record("broken.test", "NS", "ns2.broken.test.")
    server.add_record("ns2.broken.test", "A", "127.0.0.3")
    server.add_record("ns2.broken.test", "AAAA", "::1")
    server.add_record("broken.test", "NS", "ns3.nowhere.test.")

    found = authority_of("x.broken.test", resolver)

    ns2 = {Server(host, 53, "ns2.broken.test") for host in ("127.0.0.2", "127.0.0.3", "::1")}
    assert {Server(server.address, server.port, "ns1.broken.test"), *ns2} == set(found.servers)
    assert found.unknown == ("ns3.nowhere.test",)


def test_no_server_with_an_address_is_not_found(server: Bind, resolver: Resolver) -> None:
    """Nothing can be asked then, and the remedy is a setting."""
    server.add_zone("lame.test")
    server.add_record("lame.test", "NS", "ns.nowhere.test.")
    server.remove_records("lame.test", "NS", "ns1.lame.test.")

    with pytest.raises(NotFound) as caught:
        authority_of("x.lame.test", resolver)

    assert "ns.nowhere.test" in str(caught.value)
    assert "nameservers" in caught.value.remedy
