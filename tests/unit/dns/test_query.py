"""How servers are written and TXT values are cut into strings."""

from __future__ import annotations

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.dns.query import (
    Server,
    canonical,
    has_route,
    is_address,
    plain_name,
    txt_rdata,
    txt_value,
)
from certrail.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "server", "shown"),
    [
        ("192.0.2.1", Server("192.0.2.1", 53), "192.0.2.1"),
        ("192.0.2.1:5353", Server("192.0.2.1", 5353), "192.0.2.1:5353"),
        (" ns1.example.test ", Server("ns1.example.test", 53), "ns1.example.test"),
        ("ns1.example.test:54", Server("ns1.example.test", 54), "ns1.example.test:54"),
        ("2001:db8::1", Server("2001:db8::1", 53), "2001:db8::1"),
        ("[2001:db8::1]", Server("2001:db8::1", 53), "2001:db8::1"),
        ("[2001:db8::1]:5353", Server("2001:db8::1", 5353), "[2001:db8::1]:5353"),
    ],
)
def test_a_server_is_read_and_shown(text: str, server: Server, shown: str) -> None:
    """What people write in settings, and what they read in messages, is the same."""
    assert server == Server.parse(text)
    assert shown == str(server)


@pytest.mark.parametrize(
    "text", ["", ":53", "host:0", "host:70000", "host:dns", "host:²", "[::1]53", "[]:53"]
)
def test_what_is_no_server_is_refused(text: str) -> None:
    """A typo shows when the connector is opened, not as a timeout later."""
    with pytest.raises(InvalidRequest) as caught:
        Server.parse(text)

    assert "host:port" in caught.value.remedy


def test_a_server_found_by_an_ns_record_shows_both_names() -> None:
    """People know their servers by name and firewalls by address."""
    assert str(Server("192.0.2.1", 53, "ns1.example.test")) == "ns1.example.test (192.0.2.1)"


def test_a_host_name_becomes_its_addresses() -> None:
    """Every address has to show a record, since a CA may use any."""
    found = Server("localhost", 5353).addresses()

    assert "127.0.0.1" in {server.host for server in found}
    assert {("localhost", 5353)} == {(server.name, server.port) for server in found}


def test_a_route_is_seen_without_sending_anything() -> None:
    """Servers that only have IPv6 addresses cannot be asked from most machines."""
    assert has_route(Server("127.0.0.1"))
    assert not has_route(Server("2001:db8::1%nosuchif"))


@given(st.text())
def test_reading_a_server_never_raises_anything_else(text: str) -> None:
    """Settings come from files written by people."""
    try:
        server = Server.parse(text)
    except InvalidRequest:
        return
    assert 0 < server.port < 65536
    assert server.host


@given(st.text(max_size=1200).filter(lambda text: text.isprintable()))
def test_a_value_survives_being_a_record(value: str) -> None:
    """Cutting at 255 octets must not cut a character, nor lose one to quoting."""
    rdata = txt_rdata(value)

    written = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, rdata.to_text())

    assert value == txt_value(rdata) == txt_value(written)


@given(st.text())
def test_naming_never_raises_anything_else(text: str) -> None:
    """Names reach us from CAs and settings."""
    try:
        name = canonical(text)
    except InvalidRequest:
        return
    assert name.is_absolute()
    assert name == canonical(plain_name(name)) or name == dns.name.root


@given(st.binary(max_size=300))
def test_the_library_raises_what_we_translate(wire: bytes) -> None:
    """An error of another kind would pass the translation and end as a traceback."""
    try:
        dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return


def test_addresses_are_told_from_names() -> None:
    """Only a name needs to be resolved."""
    assert [is_address(text) for text in ("127.0.0.1", "::1", "localhost", "1.2.3")] == [
        True,
        True,
        False,
        False,
    ]
