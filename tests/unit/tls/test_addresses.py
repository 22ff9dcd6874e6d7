"""Address texts, networks and the choice of trust anchors."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.tls.addresses import Address, expand, expand_all
from certrail.tls.findings import Reason, failure
from certrail.tls.starttls import StartTls, guess_starttls
from certrail.tls.trust import load
from tests.support.tls_servers import Authority, pem


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:443", "127.0.0.1", 443),
        (" www.example.com:8443 ", "www.example.com", 8443),
        ("[::1]:443", "::1", 443),
        ("10.0.0.0/30:443", "10.0.0.0/30", 443),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    """The form is the one people know from URLs."""
    assert Address.parse(text) == Address(host, port)
    assert str(Address.parse(text)) == text.strip()


@pytest.mark.parametrize(
    "text", ["", ":443", "host", "host:", "host:0", "host:65536", "host:x", "::1", "::1:443", "h:²"]
)
def test_what_is_no_address_is_refused_with_the_form(text: str) -> None:
    """IPv6 without brackets cannot be told from a port."""
    with pytest.raises(InvalidRequest) as caught:
        Address.parse(text)
    assert "HOST:PORT" in caught.value.remedy


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Targets come from files and forms."""
    try:
        address = Address.parse(text)
    except InvalidRequest:
        return
    assert 0 < address.port < 65536


def test_networks_give_their_hosts() -> None:
    """Network and broadcast address are no hosts (RFC 950); a /32 is one."""
    hosts = [address.host for address in expand("192.0.2.0/29:443")]
    assert hosts == [f"192.0.2.{number}" for number in range(1, 7)]
    assert [str(a) for a in expand("192.0.2.7/32:443")] == ["192.0.2.7:443"]
    assert str(next(expand("[2001:db8::/126]:443"))) == "[2001:db8::1]:443"
    assert [str(a) for a in expand("www.example.com:443")] == ["www.example.com:443"]


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8:443", "[2001:db8::/64]:443", "x/24:443", "10.0.0.0/99:1"]
)
def test_impossible_networks_are_refused_at_once(text: str) -> None:
    """A slip in the prefix must not start sixteen million connections."""
    with pytest.raises(InvalidRequest):
        expand(text)


def test_all_targets_together_are_limited_and_unique() -> None:
    """Many small networks are a large one."""
    assert len(expand_all(["10.0.0.0/30:443", "10.0.0.1:443"])) == 2
    with pytest.raises(InvalidRequest, match="more than the 5"):
        expand_all(["10.0.0.0/30:443", "10.0.1.0/30:443", "10.0.2.0/30:443"], most=5)


def test_known_ports_suggest_a_protocol() -> None:
    """Only a suggestion: 465 and 993 speak TLS at once, like all other ports."""
    guesses = {port: guess_starttls(port) for port in (25, 587, 143, 110, 389, 443, 465)}
    smtp, none = StartTls.SMTP, StartTls.NONE
    imap, pop3, ldap = StartTls.IMAP, StartTls.POP3, StartTls.LDAP
    assert list(guesses.values()) == [smtp, smtp, imap, pop3, ldap, none, none]
    assert guess_starttls(5432) is StartTls.POSTGRES
    assert guess_starttls(3306) is StartTls.MYSQL


def test_every_reason_has_a_remedy() -> None:
    """A finding without a way out is only bad news."""
    assert all(failure(reason, "x").remedy for reason in Reason)


def test_trust_anchors_are_parsed_once_for_each_content() -> None:
    """A bulk job probes thousands of endpoints of one profile."""
    text = pem(Authority.root().certificate)
    assert load(text) is load("" + text)
    assert load(text) is not load(pem(Authority.root().certificate))


def test_unreadable_trust_anchors_are_the_users_to_correct() -> None:
    """Wrong configuration, not a fault of the endpoint."""
    with pytest.raises(InvalidRequest, match="trust anchors cannot be read"):
        load("no certificate")


def test_system_anchors_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SSL_CERT_FILE means the same as to OpenSSL; one odd certificate does not cost the rest."""
    root = Authority.root().certificate
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("# comment\n" + broken + pem(root))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert load(None).certificates == (root,)
    second = Authority.root("Second").certificate
    bundle.write_text(pem(root, second))
    assert load(None).certificates == (root, second)
    monkeypatch.delenv("SSL_CERT_FILE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(load(None).certificates) > 50
