"""The demo's DNS server refuses what a real one refuses, also to foreign clients."""

from __future__ import annotations

import base64
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

from blocks.dns.rfc2136 import Rfc2136
from certrail.errors import AuthenticationFailed, NotFound
from certrail.model import TxtRecord
from deployments.demo.dns_server import DnsServer, serving
from tests.support.process import binary

NAME = "_acme-challenge.www.example.test"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    """A server for example.test."""
    with serving("example.test", secret=secrets.token_bytes(32)) as running:
        yield running


def key_of(server: DnsServer, *, name: str = "", secret: str = "") -> dns.tsig.Key:
    """Return the server's key, or a wrong one."""
    raw = base64.b64decode(secret or server.secret)
    return dns.tsig.Key(name or server.key_name, raw, dns.tsig.HMAC_SHA256)


def txt(server: DnsServer, name: str = NAME, *, tcp: bool = False) -> set[str]:
    """Return the TXT values that a resolver sees."""
    query = dns.message.make_query(name, "TXT")
    ask = dns.query.tcp if tcp else dns.query.udp
    answer = ask(query, "127.0.0.1", port=server.port, timeout=5)
    return {text.decode() for rrset in answer.answer for rd in rrset for text in rd.strings}


def send(server: DnsServer, change: dns.update.UpdateMessage) -> dns.rcode.Rcode:
    """Send an update as it is."""
    return dns.query.tcp(change, "127.0.0.1", port=server.port, timeout=5).rcode()


def block(server: DnsServer, **changes: object) -> Rfc2136:
    """Return our own connector for the server."""
    at = [f"127.0.0.1:{server.port}"]
    settings = {
        "server": "127.0.0.1",
        "port": server.port,
        "key_name": server.key_name,
        "key_secret": server.secret,
        "nameservers": at,
        "resolvers": at,
        "poll_interval": 0.05,
    }
    return Rfc2136.model_validate({**settings, **changes})


def test_our_connector_publishes_and_withdraws(server: DnsServer) -> None:
    """Both values of a name and its wildcard stand side by side."""
    first, second = TxtRecord(NAME, "one"), TxtRecord(NAME, "two")
    with block(server).connect() as provider:
        assert provider.check()
        for record in (first, second, first):
            provider.append_txt(record)
        provider.wait_until_visible([first, second])
        assert txt(server) == txt(server, tcp=True) == {"one", "two"}

        provider.delete_txt(first)
        assert txt(server) == {"two"}
        provider.delete_txt(second)
        provider.delete_txt(second)
        assert txt(server) == set()


def test_a_wrong_key_is_told_apart_from_a_wrong_secret(server: DnsServer) -> None:
    """The connector's remedy depends on it."""
    other = base64.b64encode(b"x" * 32).decode()
    for changes, word in (({"key_name": "nobody"}, "BADKEY"), ({"key_secret": other}, "BADSIG")):
        with (
            block(server, **changes).connect() as provider,
            pytest.raises(AuthenticationFailed) as caught,
        ):
            provider.append_txt(TxtRecord(NAME, "x"))
        assert caught.value.code == word
    assert txt(server) == set()
    with block(server).connect() as provider, pytest.raises(NotFound):
        provider.append_txt(TxtRecord("_acme-challenge.www.example.org", "x"))


def test_an_unsigned_update_is_refused(server: DnsServer) -> None:
    """Anybody could have sent it."""
    change = dns.update.UpdateMessage("example.test")
    change.add(f"{NAME}.", 60, "TXT", '"x"')

    assert send(server, change) == dns.rcode.REFUSED
    assert txt(server) == set()


@pytest.mark.parametrize(
    ("zone", "name", "rdtype", "value", "code"),
    [
        ("example.test", "www.example.test.", "TXT", '"x"', dns.rcode.REFUSED),
        ("example.test", f"{NAME}.", "A", "192.0.2.1", dns.rcode.REFUSED),
        ("example.test", "_acme-challenge.example.org.", "TXT", '"x"', dns.rcode.NOTZONE),
        ("example.org", "_acme-challenge.example.org.", "TXT", '"x"', dns.rcode.NOTAUTH),
    ],
)
def test_the_key_may_change_challenges_only(
    server: DnsServer, zone: str, name: str, rdtype: str, value: str, code: dns.rcode.Rcode
) -> None:
    """As with `update-policy` of BIND."""
    change = dns.update.UpdateMessage(zone, keyring=key_of(server))
    change.add(dns.name.from_text(name), 60, rdtype, value)

    assert send(server, change) == code


def test_an_update_is_made_as_a_whole_or_not_at_all(server: DnsServer) -> None:
    """The first change would have been allowed."""
    before = server.zone.serial
    change = dns.update.UpdateMessage("example.test", keyring=key_of(server))
    change.add(f"{NAME}.", 60, "TXT", '"x"')
    change.add("www.example.test.", 60, "TXT", '"y"')

    assert send(server, change) == dns.rcode.REFUSED
    assert txt(server) == set()
    assert server.zone.serial == before


def test_prerequisites_hold(server: DnsServer) -> None:
    """RFC 2136 section 3.2: what has to be there, or not to be there."""
    keyring = key_of(server)
    wants = dns.update.UpdateMessage("example.test", keyring=keyring)
    wants.present(f"{NAME}.", "TXT")
    wants.add(f"{NAME}.", 60, "TXT", '"x"')
    assert send(server, wants) == dns.rcode.NXRRSET

    absent = dns.update.UpdateMessage("example.test", keyring=keyring)
    absent.absent(f"{NAME}.", "TXT")
    absent.add(f"{NAME}.", 60, "TXT", '"x"')
    assert send(server, absent) == dns.rcode.NOERROR
    assert send(server, absent) == dns.rcode.YXRRSET
    assert txt(server) == {"x"}


def test_other_zones_are_refused_and_unknown_names_denied(server: DnsServer) -> None:
    """It is a primary server, not a resolver."""
    for name, code in (
        ("example.org", dns.rcode.REFUSED),
        ("nothing.example.test", dns.rcode.NXDOMAIN),
        ("ns.example.test", dns.rcode.NOERROR),
    ):
        query = dns.message.make_query(name, "TXT")
        answer = dns.query.udp(query, "127.0.0.1", port=server.port, timeout=5)
        assert answer.rcode() == code
        assert bool(answer.flags & dns.flags.AA) == (code != dns.rcode.REFUSED)


def test_a_long_answer_is_cut_over_udp_and_whole_over_tcp(server: DnsServer) -> None:
    """The client has to see that it is cut."""
    change = dns.update.UpdateMessage("example.test", keyring=key_of(server))
    values = {f"{number:03}" + "x" * 90 for number in range(20)}
    for value in values:
        change.add(f"{NAME}.", 60, "TXT", f'"{value}"')
    assert send(server, change) == dns.rcode.NOERROR

    query = dns.message.make_query(NAME, "TXT")
    cut = dns.query.udp(query, "127.0.0.1", port=server.port, timeout=5)

    assert cut.flags & dns.flags.TC
    assert txt(server, tcp=True) == values


def test_garbage_neither_ends_the_server_nor_is_echoed(server: DnsServer) -> None:
    """It listens where any program of the machine can send."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(5)
        for raw in (b"", b"x", b"\0" * 11, b"\xff" * 40):
            sender.sendto(raw, ("127.0.0.1", server.port))
        sender.sendto(b"\x12\x34\x01\x00\x00\x05" + b"\0" * 6, ("127.0.0.1", server.port))
        reply = sender.recv(512)
    assert reply[:2] == b"\x12\x34"
    assert reply[3] & 0x0F == dns.rcode.FORMERR
    assert txt(server) == set()


def test_nsupdate_and_dig_understand_it(server: DnsServer, tmp_path: Path) -> None:
    """BIND's own tools are the reference that is not ours."""
    key = tmp_path / "key"
    key.write_text(
        f'key "{server.key_name}" {{ algorithm hmac-sha256; secret "{server.secret}"; }};'
    )
    commands = (
        f"server 127.0.0.1 {server.port}\nzone example.test\n"
        f'update add {NAME}. 60 TXT "from nsupdate"\nsend\n'
    )
    subprocess.run(
        [binary("nsupdate", "bind9-dnsutils"), "-k", str(key)],
        input=commands,
        text=True,
        check=True,
        capture_output=True,
        timeout=20,
    )
    for mode in ("+notcp", "+tcp"):
        dig = [binary("dig", "bind9-dnsutils"), "@127.0.0.1", "-p", str(server.port)]
        done = subprocess.run(
            [*dig, mode, "+short", NAME, "TXT"],
            text=True,
            check=True,
            capture_output=True,
            timeout=20,
        )
        assert done.stdout.strip() == '"from nsupdate"'
