"""Servers that lie, stall, flood or inject: everything must end as a finding, in time."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certrail.model import fingerprint
from certrail.tls.addresses import Address
from certrail.tls.findings import Reason
from certrail.tls.handshake import fetch
from certrail.tls.starttls import StartTls
from certrail.x509.findings import CertificateReason, Finding
from tests.support.tls_servers import (
    Authority,
    Issued,
    new_key,
    scripted_server,
    server_context,
    tls_server,
)

HOST = "www.example.com"
SHORT = timedelta(seconds=0.4)


def _code(port: int, starttls: StartTls = StartTls.NONE, timeout: timedelta = SHORT) -> Finding:
    seen = fetch(Address("127.0.0.1", port), sni=HOST, starttls=starttls, timeout=timeout)
    assert seen.leaf is None
    return seen.findings[0]


def _saying(*answers: bytes, wait: bool = False) -> Callable[[socket.socket], None]:
    """Return a server that speaks first, then gives one answer for each thing it hears."""

    def talk(connection: socket.socket) -> None:
        for position, answer in enumerate(answers):
            if position and not connection.recv(4096):
                return
            connection.sendall(answer)
        while wait and connection.recv(4096):
            pass

    return talk


# MySQL: length and number of the packet, protocol 10, version, id, scramble, filler, capabilities.
GREETING = (
    b"\x15\0\0\0" + b"\x0a" + b"8.4\0" + b"\1\0\0\0" + b"12345678" + b"\0" + b"\xff\xff" + b"\x2d"
)


@pytest.mark.parametrize(
    ("protocol", "answers"),
    [
        (StartTls.SMTP, [b"220 hello\r\n", b"250 STARTTLS\r\n", b"220 go\r\n250 injected\r\n"]),
        (StartTls.IMAP, [b"* OK hello\r\n", b"a1 OK go\r\n* CAPABILITY injected\r\n"]),
        (StartTls.POP3, [b"+OK hello\r\n", b"+OK go\r\n+OK injected\r\n"]),
        (StartTls.POSTGRES, [b"", b"Sinjected"]),
        (StartTls.MYSQL, [GREETING + b"injected"]),
        (
            StartTls.LDAP,
            [b"", b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00injected"],
        ),
    ],
)
def test_plain_text_after_the_agreement_ends_the_probe(
    protocol: StartTls, answers: list[bytes]
) -> None:
    """Such text would count as protected; real clients had this hole (CVE-2021-23222)."""
    with scripted_server(_saying(*answers)) as port:
        assert _code(port, protocol).code is Reason.PLAINTEXT_INJECTED


@pytest.mark.parametrize(
    ("protocol", "answers", "code"),
    [
        (StartTls.SMTP, [b"554 go away\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.SMTP, [b"220 a\r\n", b"250 b\r\n", b"454 no key\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.SMTP, [b"SSH-2.0-x\r\n"], Reason.WRONG_PROTOCOL),
        (StartTls.SMTP, [b"220-" + b"x" * 5000], Reason.WRONG_PROTOCOL),
        (StartTls.SMTP, [b"220-x\r\n" * 500], Reason.WRONG_PROTOCOL),
        (StartTls.SMTP, [b"220 a\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.IMAP, [b"* BYE busy\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.IMAP, [b"* PREAUTH hello\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.IMAP, [b"* OK\r\n", b"* x\r\na1 BAD no\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.IMAP, [b"* OK\r\n", b"+ what\r\n"], Reason.WRONG_PROTOCOL),
        (StartTls.IMAP, [b"* OK\r\n", b"* x\r\n" * 500], Reason.WRONG_PROTOCOL),
        (StartTls.POP3, [b"-ERR busy\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.POP3, [b"+OK\r\n", b"-ERR no\r\n"], Reason.STARTTLS_REFUSED),
        (StartTls.POP3, [b"* OK\r\n"], Reason.WRONG_PROTOCOL),
        (StartTls.POSTGRES, [b"", b"N"], Reason.STARTTLS_REFUSED),
        (StartTls.POSTGRES, [b"", b"E\x00\x00\x00\x10secret"], Reason.STARTTLS_REFUSED),
        (StartTls.POSTGRES, [b"", b"HTTP"], Reason.WRONG_PROTOCOL),
        (StartTls.MYSQL, [b"\x08\0\0\0\xff\x69\x04secre"], Reason.STARTTLS_REFUSED),
        (StartTls.MYSQL, [GREETING.replace(b"\xff\xff", b"\xff\xf7")], Reason.STARTTLS_REFUSED),
        (StartTls.MYSQL, [b"SSH-2.0-x\r\n"], Reason.WRONG_PROTOCOL),
        (StartTls.MYSQL, [b"\x05\0\0\0\x0a5.5\0"], Reason.WRONG_PROTOCOL),
        (
            StartTls.LDAP,
            [b"", b"\x30\x0e\x02\x01\x01\x78\x09\x0a\x01\x02\x04\x00\x04\x02no"],
            Reason.STARTTLS_REFUSED,
        ),
        (StartTls.LDAP, [b"", b"HTTP/1.1 400"], Reason.WRONG_PROTOCOL),
        (StartTls.LDAP, [b"", b"\x30\x84\xff\xff\xff\xff"], Reason.WRONG_PROTOCOL),
        (StartTls.LDAP, [b"", b"\x30\x80\x00\x00"], Reason.WRONG_PROTOCOL),
        (StartTls.LDAP, [b"", b"\x30\x02\x02\x05"], Reason.WRONG_PROTOCOL),
    ],
)
def test_refusals_and_strangers_are_told_apart(
    protocol: StartTls, answers: list[bytes], code: Reason
) -> None:
    """Refused means the right service with TLS off; a stranger means the wrong port."""
    with scripted_server(_saying(*answers)) as port:
        finding = _code(port, protocol, timedelta(seconds=5))
    assert finding.code is code, finding.message
    assert "secret" not in finding.message


def test_multi_line_replies_are_read_whole() -> None:
    """Real mail servers greet in several lines."""
    context = server_context(Authority.root().issue(HOST))

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"220-welcome\r\n220-to\r\n220 mail\r\n")
        assert connection.recv(4096).startswith(b"EHLO ")
        for part in (b"250-mail\r\n250-SIZE 1", b"0\r\n250-STARTTLS\r", b"\n250 HELP\r\n"):
            connection.sendall(part)
        assert connection.recv(4096) == b"STARTTLS\r\n"
        connection.sendall(b"220-go\r\n220 ahead\r\n")
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    with scripted_server(talk) as port:
        seen = fetch(Address("127.0.0.1", port), sni=HOST, starttls=StartTls.SMTP)
    assert seen.leaf is not None


@pytest.mark.parametrize("protocol", [StartTls.NONE, StartTls.SMTP, StartTls.LDAP])
def test_trickle_ends_at_the_deadline(protocol: StartTls) -> None:
    """A byte now and then keeps a per-read timeout alive for ever; ours is for the whole."""
    stop = threading.Event()
    start = {
        StartTls.NONE: b"\x16\x03\x03\x40\x00",
        StartTls.SMTP: b"220-",
        StartTls.LDAP: b"0\x7f",
    }

    def talk(connection: socket.socket) -> None:
        connection.sendall(start[protocol])
        while not stop.wait(0.05):
            connection.sendall(b"\x02")

    with scripted_server(talk) as port:
        finding = _code(port, protocol)
        stop.set()
    assert finding.code is Reason.TIMED_OUT
    assert "did not finish" in finding.message


def test_flood_is_cut_off() -> None:
    """A peer must not be able to fill our memory."""

    def talk(connection: socket.socket) -> None:
        # Handshake records of a certificate message that announces 16 MiB.
        connection.sendall(b"\x16\x03\x03\x00\x04\x0b\xff\xff\xff")
        while True:
            connection.sendall((b"\x16\x03\x03\x40\x00" + b"\x00" * 16384) * 16)

    with scripted_server(talk) as port:
        assert _code(port, timeout=timedelta(seconds=5)).code is Reason.HANDSHAKE_FAILED


def test_huge_chain_is_refused() -> None:
    """OpenSSL limits the chain to 100 KiB; that is an answer, not a crash."""
    root = Authority.root()
    issued = root.intermediate().issue(HOST)
    with tls_server(issued, sent=[*issued.chain, *[root.certificate] * 400]) as port:
        seen = fetch(Address("127.0.0.1", port), sni=HOST)
    assert [f.code for f in seen.findings] == [Reason.HANDSHAKE_FAILED]


def test_closed_and_reset_connections_are_findings() -> None:
    """A service that crashes on connect must not crash the probe."""

    def reset(connection: socket.socket) -> None:
        # Earlier it could still be the connecting that fails.
        connection.recv(1)
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    for talk in (reset, _saying(b"")):
        with scripted_server(talk) as port:
            finding = _code(port, timeout=timedelta(seconds=5))
            assert finding.code is Reason.HANDSHAKE_FAILED, finding.message


def test_unreadable_certificate_is_a_finding() -> None:
    """OpenSSL takes certificates that break the encoding rules; strict parsers do not."""
    own = new_key()
    good = Authority.root().issue(HOST, key=own)
    der = good.leaf.public_bytes(Encoding.DER)
    # A version number that does not exist; the signature is not looked at when a server loads it.
    broken = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    context = _with_certificate(broken, good)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    with scripted_server(talk) as port:
        finding = _code(port, timeout=timedelta(seconds=5))
    assert finding.code is CertificateReason.UNREADABLE, finding.message


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers whatever the list holds."""
    answers: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        for answer in list(answers):
            connection.sendall(answer)
            connection.recv(4096)

    with scripted_server(talk) as port:
        yield port, answers


_SCRAPS = st.sampled_from(
    [
        b"220 x\r\n", b"250 x\r\n", b"* OK\r\n", b"a1 OK\r\n", b"+OK\r\n", b"S", b"N", b"\r\n",
        b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00", b"\x16\x03\x03\x00\x02",
        b"\x15\x03\x03\x00\x02\x02\x28", b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
    ]
)  # fmt: skip


@given(
    protocol=st.sampled_from(list(StartTls)),
    said=st.lists(_SCRAPS | st.binary(max_size=200), max_size=6),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_answer_at_all_leads_to_an_exception(
    fuzzed: tuple[int, list[bytes]], protocol: StartTls, said: list[bytes]
) -> None:
    """Whatever bytes come back, the outcome is a finding with words and a remedy."""
    port, answers = fuzzed
    answers[:] = said
    finding = _code(port, protocol, timedelta(seconds=0.1))
    assert finding.message
    assert finding.remedy
    assert finding.message.isprintable()


@pytest.fixture(scope="module")
def plain_flights() -> Iterator[tuple[Issued, int]]:
    """A TLS 1.2 server, whose certificate travels in the clear."""

    def prepare(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    issued = Authority.root().issue(HOST)
    with tls_server(issued, prepare=prepare) as port:
        yield issued, port


@given(position=st.integers(0, 900), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_damaged_handshakes_lead_to_findings(
    plain_flights: tuple[Issued, int], position: int, value: int
) -> None:
    """A changed byte anywhere in the server's first flight must not raise."""
    issued, inner = plain_flights

    def talk(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", inner), 5) as server:
            server.sendall(connection.recv(16384))
            flight = bytearray(server.recv(16384))
            flight[position % len(flight)] = value
            connection.sendall(flight)
            server.sendall(connection.recv(16384))
            connection.sendall(server.recv(16384))

    with scripted_server(talk) as port:
        seen = fetch(Address("127.0.0.1", port), sni=HOST, timeout=timedelta(seconds=0.5))
    assert seen.findings or seen.fingerprint == fingerprint(issued.leaf)


def _with_certificate(der: bytes, issued: Issued) -> ssl.SSLContext:
    """Return server settings with a leaf that only OpenSSL can read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(issued.key_pem() + ssl.DER_cert_to_PEM_cert(der))
        file.flush()
        context.load_cert_chain(file.name)
    return context
