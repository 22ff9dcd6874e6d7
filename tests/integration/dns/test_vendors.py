"""What only one provider can get wrong, against its real server."""

from __future__ import annotations

import time as real_time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import dns.message
import pytest

from blocks.dns.powerdns import PowerDns as PowerDnsBlock
from blocks.dns.rfc2136 import Rfc2136
from certrail.errors import (
    AuthenticationFailed,
    Busy,
    CertrailError,
    Conflict,
    InvalidRequest,
    KeyUnavailable,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.model import TxtRecord
from tests.support.dns_servers import Bind, PowerDns, bind, powerdns
from tests.support.scripted import http_reply, scripted

NAME = "_acme-challenge.vendor.example.test"
ONE = TxtRecord(NAME, "one")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    with bind(tmp_path_factory.mktemp("bind"), ["example.test", "sub.example.test"]) as server:
        yield server


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDns]:
    with powerdns(tmp_path_factory.mktemp("pdns")) as server:
        yield server


def signed(at: Bind, **more: object) -> Rfc2136:
    return Rfc2136.model_validate(
        {
            "server": at.address,
            "port": at.port,
            "key_name": at.key_name,
            "key_secret": at.key_secret,
            "poll_interval": 0.05,
            **more,
        }
    )


def api(server: PowerDns, **more: object) -> PowerDnsBlock:
    return PowerDnsBlock.model_validate(
        {"url": server.url, "api_key": server.api_key, "nameservers": [server.endpoint], **more}
    )


def test_a_key_without_rights_is_refused_permission(server: Bind) -> None:
    """The remedy is at the server's policy, not at the credential."""
    block = signed(server, key_name=server.reader_name, key_secret=server.reader_secret)
    with block.connect() as dns:
        assert dns.check()
        with pytest.raises(PermissionRefused) as caught:
            dns.append_txt(ONE)

    assert caught.value.code == "REFUSED"
    assert "update-policy" in caught.value.remedy


@pytest.mark.parametrize(
    ("wrong", "code", "setting"),
    [
        ({"key_name": "nobody."}, "BADKEY", "key_name"),
        ({"algorithm": "hmac-sha512"}, "BADKEY", "algorithm"),
        ({"key_secret": "d3JvbmcgYnV0IGJhc2U2NA=="}, "BADSIG", "key_secret"),
    ],
    ids=["name", "algorithm", "secret"],
)
def test_each_wrong_part_of_the_key_is_named(
    server: Bind, wrong: dict[str, str], code: str, setting: str
) -> None:
    """Three settings make a key; "authentication failed" alone leaves three guesses."""
    with signed(server, **wrong).connect() as dns:
        for call in (dns.check, lambda: dns.append_txt(ONE)):
            with pytest.raises(AuthenticationFailed) as caught:
                call()

            assert code == caught.value.code
            assert setting in caught.value.remedy


def test_a_wrong_clock_is_called_that(server: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature carries the time; an hour's skew looks like a wrong key otherwise."""
    late = SimpleNamespace(time=lambda: real_time.time() - 3600)
    with signed(server).connect() as dns_:
        monkeypatch.setattr(dns.message, "time", late)
        with pytest.raises(AuthenticationFailed) as caught:
            dns_.append_txt(ONE)

    assert caught.value.code == "BADTIME"
    assert "NTP" in caught.value.remedy


@pytest.mark.parametrize("secret", ["not base64!", "", "====", "ümlaut"])
def test_a_secret_that_is_no_key_is_refused_unseen(server: Bind, secret: str) -> None:
    """The library would take an empty key and fail with BADSIG much later."""
    with pytest.raises(InvalidRequest) as caught, signed(server, key_secret=secret).connect():
        pass

    assert not secret or secret not in str(caught.value)


def test_a_secret_may_be_a_reference(
    server: Bind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By default Prefect stores where the secret is, not what it is."""
    monkeypatch.setenv("LAB_TSIG", server.key_secret)
    path = tmp_path / "key"
    path.write_text(server.key_secret + "\n")
    for reference in ("env:LAB_TSIG", f"file:{path}"):
        with signed(server, key_secret=reference).connect() as dns:
            assert dns.check()
    with pytest.raises(KeyUnavailable), signed(server, key_secret="env:NO_SUCH").connect():
        pass


def test_updates_go_over_udp_too(server: Bind) -> None:
    """Some firewalls pass only that."""
    with signed(server, tcp=False).connect() as dns:
        dns.append_txt(ONE)
        assert {"one"} == dns.find_txt(NAME)
        dns.delete_txt(ONE)

        assert frozenset() == dns.find_txt(NAME)


def test_a_given_zone_is_used_as_it_is(server: Bind) -> None:
    """Where several views or servers share names, the server's answer may mislead."""
    with signed(server, zone="Example.Test.").connect() as dns:
        assert dns.zone_of("x.example.test") == "example.test"
        assert "takes updates of example.test" in dns.check()
        with pytest.raises(NotFound, match=r"outside the zone example\.test"):
            dns.append_txt(TxtRecord("x.other.test", "one"))


def test_a_zone_the_server_has_not_is_not_found(server: Bind) -> None:
    """A secondary, or the wrong server, answers NOTAUTH."""
    with signed(server, zone="other.test").connect() as dns, pytest.raises(NotFound) as caught:
        dns.check()

    assert caught.value.code == "NOTAUTH"


def test_a_cname_at_the_record_name_is_a_conflict(server: Bind, rest: PowerDns) -> None:
    """Servers drop such a record without a word, and the CA then sees nothing."""
    for other, block in ((server, signed(server)), (rest, api(rest))):
        other.add_record("alias.example.test", "CNAME", "x.example.test.")
        with block.connect() as dns, pytest.raises(Conflict) as caught:
            dns.append_txt(TxtRecord("alias.example.test", "one"))

        assert "CNAME" in caught.value.remedy
        assert not caught.value.retryable


def test_an_alias_belongs_to_the_zone_it_is_in(server: Bind) -> None:
    """The server answers with the SOA of the alias's target, which is another zone."""
    server.add_record("into.example.test", "CNAME", "x.sub.example.test.")
    with signed(server).connect() as dns:
        assert dns.zone_of("into.example.test") == "example.test"


def test_a_private_root_is_no_zone_for_challenges(tmp_path: Path) -> None:
    """Networks with a root of their own exist; a record written there is a mistake."""
    with bind(tmp_path, resolves=True) as rooted, signed(rooted).connect() as dns:
        assert dns.zone_of("x.example.test") == "example.test"
        with pytest.raises(NotFound):
            dns.zone_of("x.other.test")


def test_an_unsigned_success_is_not_believed() -> None:
    """Anybody on the path could say NOERROR; RFC 8945 section 5.3 wants it signed."""
    secret = "c2VjcmV0IGtleSBvZiBtaW5l"

    def agree(query: bytes) -> bytes:
        identifier, zone = query[2:4], query[14 : query.index(b"\0", 14) + 5]
        wire = identifier + b"\xa8\0" + b"\0\1" + bytes(6) + zone
        return len(wire).to_bytes(2, "big") + wire

    with scripted(agree) as liar:
        block = Rfc2136.model_validate(
            {
                "server": "127.0.0.1",
                "port": liar.port,
                "key_name": "k.",
                "key_secret": secret,
                "zone": "example.test",
            }
        )
        with (
            block.connect() as provider,
            pytest.raises(UnexpectedReply, match="signature") as caught,
        ):
            provider.append_txt(ONE)

    assert "no signature" in str(caught.value)
    assert "TSIG key k" in caught.value.remedy


def test_a_host_name_is_resolved(server: Bind) -> None:
    """Servers are configured by name; it may have an IPv6 address nobody listens on."""
    with signed(server, server="localhost").connect() as dns:
        assert "accepts the key" in dns.check()


def test_comments_and_other_values_survive(tmp_path: Path) -> None:
    """An operator's notes at a record set are not ours to drop."""
    mine = TxtRecord("_acme-challenge.noted.example.test", "mine")
    rrset = {
        "name": mine.fqdn + ".",
        "type": "TXT",
        "ttl": 3600,
        "changetype": "REPLACE",
        "records": [{"content": '"theirs"', "disabled": False}],
        "comments": [{"content": "hands off", "account": "ops"}],
    }
    # LMDB keeps no comments.
    with powerdns(tmp_path, backend="sqlite") as server:
        server.api("PATCH", "/zones/example.test.", json={"rrsets": [rrset]})
        with api(server).connect() as dns:
            dns.append_txt(mine)
            assert {"theirs", "mine"} == dns.find_txt(mine.fqdn)

            dns.delete_txt(mine)

        found = server.api("GET", "/zones/example.test.").json()["rrsets"]
    (left,) = [each for each in found if each["name"] == mine.fqdn + "."]
    assert [record["content"] for record in left["records"]] == ['"theirs"']
    assert [comment["content"] for comment in left["comments"]] == ["hands off"]


def test_a_zone_that_is_a_copy_is_refused(rest: PowerDns) -> None:
    """A change on a secondary is lost at the next transfer."""
    rest.api(
        "POST", "/zones", json={"name": "copy.test.", "kind": "Slave", "masters": ["127.0.0.9"]}
    )
    with api(rest).connect() as dns, pytest.raises(Rejected, match="only a copy"):
        dns.append_txt(TxtRecord("_acme-challenge.copy.test", "one"))


def test_an_unknown_server_id_is_not_found(rest: PowerDns) -> None:
    """A proxy in front of several servers has several ids."""
    with api(rest, server_id="nowhere").connect() as dns, pytest.raises(NotFound):
        dns.check()


@pytest.mark.parametrize("body", ["Internal Server Error", '{"error": "database is locked"}'])
def test_a_locked_database_is_busy(body: str) -> None:
    """SQLite has one writer; PowerDNS then answers 500, which a retry mends."""
    with scripted(http_reply(500, body=body)) as locked:
        block = PowerDnsBlock.model_validate(
            {"url": f"http://127.0.0.1:{locked.port}", "api_key": "some-api-key"}
        )
        with block.connect() as dns, pytest.raises(Busy) as caught:
            dns.check()

    assert caught.value.retryable
    assert "SQLite" in caught.value.remedy


def test_a_flaky_database_loses_nothing_over_retries(tmp_path: Path) -> None:
    """Parallel changes on SQLite fail often; each failure must be clean and retryable."""
    seen: list[CertrailError] = []

    def publish(number: int) -> TxtRecord:
        record = TxtRecord(f"_acme-challenge.n{number % 30}.example.test", f"value-{number}")
        with block.connect() as dns:
            for _ in range(200):
                try:
                    dns.append_txt(record)
                except CertrailError as exc:
                    seen.append(exc)
                else:
                    return record
        raise AssertionError(f"never: {seen[-1]}")

    with powerdns(tmp_path, backend="sqlite") as server:
        block = api(server)
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(publish, range(30)))
        shown = {record: server.values(record.fqdn) for record in done}

    assert [str(exc) for exc in seen if not isinstance(exc, Busy)] == []
    assert all({record.value} == values for record, values in shown.items())
