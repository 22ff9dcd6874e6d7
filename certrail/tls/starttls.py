"""The plain-text exchange that some protocols have before the TLS handshake."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from certrail.tls.channel import Channel
from certrail.tls.findings import Reason, Stopped, failure
from certrail.x509.findings import shorten

_MOST_LINES = 128
# MariaDB and MySQL: CLIENT_MYSQL, CLIENT_PROTOCOL_41, CLIENT_SSL, CLIENT_SECURE_CONNECTION.
_MYSQL_TLS = 0x0800
_MYSQL_CLIENT = 0x0001 | 0x0200 | _MYSQL_TLS | 0x8000
_MYSQL_UTF8 = 45
_MYSQL_LONGEST_PACKET = 1 << 24


class StartTls(StrEnum):
    """How TLS begins on a port."""

    NONE = "none"
    SMTP = "smtp"
    IMAP = "imap"
    POP3 = "pop3"
    LDAP = "ldap"
    POSTGRES = "postgres"
    MYSQL = "mysql"


_KNOWN_PORTS = {
    25: StartTls.SMTP,
    587: StartTls.SMTP,
    143: StartTls.IMAP,
    110: StartTls.POP3,
    389: StartTls.LDAP,
    5432: StartTls.POSTGRES,
    3306: StartTls.MYSQL,
}


def guess_starttls(port: int) -> StartTls:
    """Suggest a protocol by well-known port; a suggestion only, the endpoint's setting decides."""
    return _KNOWN_PORTS.get(port, StartTls.NONE)


def negotiate(channel: Channel, protocol: StartTls) -> None:
    """Bring the server to the point where it expects the TLS handshake.

    Text that the server sends beyond its agreement must not be taken for
    protected data later (CVE-2011-0411, CVE-2021-23222), so it ends the probe.

    Raises:
        Stopped: refused, another protocol, or plain text after the agreement.
        OSError: the connection broke or the deadline passed.
    """
    if protocol is StartTls.NONE:
        return
    try:
        _PREAMBLES[protocol](channel)
    except ValueError as exc:
        message = f"{channel.address} does not speak {protocol.upper()}: {shorten(exc)}"
        raise Stopped(failure(Reason.WRONG_PROTOCOL, message)) from exc
    if channel.buffered:
        message = (
            f"{channel.address} sent {len(channel.buffered)} bytes of plain text after it agreed "
            "to STARTTLS"
        )
        raise Stopped(failure(Reason.PLAINTEXT_INJECTED, message))


def _smtp(channel: Channel) -> None:
    """Follow RFC 3207 section 4: greeting, EHLO, STARTTLS, each possibly of several lines."""
    code, text = _smtp_reply(channel)
    if code != 220:
        raise _refused(channel, text)
    channel.send(b"EHLO certrail.invalid\r\n")
    code, text = _smtp_reply(channel)
    if code != 250:
        raise _refused(channel, text)
    channel.send(b"STARTTLS\r\n")
    code, text = _smtp_reply(channel)
    if code != 220:
        raise _refused(channel, text)


def _smtp_reply(channel: Channel) -> tuple[int, str]:
    """Read one reply; ``250-`` goes on, ``250 `` ends it (RFC 5321 section 4.2.1)."""
    for _ in range(_MOST_LINES):
        line = channel.read_line()
        if not line[:3].isdigit() or line[3:4] not in (b" ", b"-", b""):
            raise ValueError(f"unexpected line {_text(line)!r}")
        if line[3:4] != b"-":
            return int(line[:3]), _text(line)
    raise ValueError("a reply without end")


def _imap(channel: Channel) -> None:
    """Follow RFC 9051 section 6.2.1: greeting, tagged STARTTLS, untagged lines may come first."""
    greeting = channel.read_line()
    if not greeting.upper().startswith((b"* OK", b"* PREAUTH", b"* BYE")):
        raise ValueError(f"unexpected greeting {_text(greeting)!r}")
    if not greeting.upper().startswith(b"* OK"):
        raise _refused(channel, _text(greeting))
    channel.send(b"a1 STARTTLS\r\n")
    for _ in range(_MOST_LINES):
        line = channel.read_line()
        if line.upper().startswith(b"A1 OK"):
            return
        if line.upper().startswith(b"A1 "):
            raise _refused(channel, _text(line))
        if not line.startswith(b"* "):
            raise ValueError(f"unexpected line {_text(line)!r}")
    raise ValueError("a reply without end")


def _pop3(channel: Channel) -> None:
    """Follow RFC 2595 section 4: greeting, then STLS."""
    _pop3_reply(channel)
    channel.send(b"STLS\r\n")
    _pop3_reply(channel)


def _pop3_reply(channel: Channel) -> None:
    line = channel.read_line()
    if line.upper().startswith(b"-ERR"):
        raise _refused(channel, _text(line))
    if not line.upper().startswith(b"+OK"):
        raise ValueError(f"unexpected line {_text(line)!r}")


def _ldap(channel: Channel) -> None:
    """Send the StartTLS extended request (RFC 4511 section 4.14) and read its result."""
    oid = b"1.3.6.1.4.1.1466.20037"
    request = _tlv(0x02, b"\x01") + _tlv(0x77, _tlv(0x80, oid))
    channel.send(_tlv(0x30, request))
    content = _read_message(channel)
    identifier, content = _split_tlv(content)
    response, _ = _split_tlv(content)
    # Message 0 is the notice of disconnection, also an extended response (section 4.4.1).
    if identifier[0] != 0x02 or response[0] != 0x78:
        raise ValueError("the answer is not an extended response")
    result, rest = _split_tlv(response[1])
    if result[0] != 0x0A:
        raise ValueError("the answer has no result code")
    code = int.from_bytes(result[1], "big")
    if code != 0 or identifier[1] != b"\x01":
        _, rest = _split_tlv(rest)
        diagnostic, _ = _split_tlv(rest)
        raise _refused(channel, f"result code {code} {_text(diagnostic[1])}")


def _postgres(channel: Channel) -> None:
    """Send SSLRequest; the answer is one byte (PostgreSQL manual, "Message Flow", SSL)."""
    channel.send((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
    answer = channel.read_exactly(1)
    if answer == b"N":
        raise _refused(channel, "the server has SSL switched off")
    if answer == b"E":
        # The text of the error is from nobody known yet and is not shown (CVE-2024-10977).
        raise _refused(channel, "the server answered with an error")
    if answer != b"S":
        raise ValueError(f"unexpected answer {_text(answer)!r}")


def _mysql(channel: Channel) -> None:
    """Read the greeting and send SSLRequest (MariaDB documentation, "Connection"; MySQL, "TLS")."""
    header = channel.read_exactly(4)
    length = int.from_bytes(header[:3], "little")
    if header[3] != 0 or not 1 < length <= 4096:
        raise ValueError(f"unexpected greeting {_text(header)!r}")
    greeting = channel.read_exactly(length)
    if greeting[0] == 0xFF:
        raise _refused(channel, _text(greeting[3:]))
    # The version ends with NUL; connection id, scramble and a filler come before the capabilities.
    at = greeting.find(b"\0") + 1 + 4 + 8 + 1
    if greeting[0] != 10 or at < 15 or length < at + 2:
        raise ValueError(f"unexpected greeting {_text(greeting)!r}")
    if not int.from_bytes(greeting[at : at + 2], "little") & _MYSQL_TLS:
        raise _refused(channel, "the server has TLS switched off")
    request = _MYSQL_CLIENT.to_bytes(4, "little") + _MYSQL_LONGEST_PACKET.to_bytes(4, "little")
    request += bytes((_MYSQL_UTF8,)) + bytes(23)
    channel.send(len(request).to_bytes(3, "little") + b"\x01" + request)


def _refused(channel: Channel, words: str) -> Stopped:
    message = f"{channel.address} refused STARTTLS: {shorten(words)}"
    return Stopped(failure(Reason.STARTTLS_REFUSED, message))


def _text(line: bytes) -> str:
    return shorten(line.decode("utf-8", errors="replace"), 100)


def _tlv(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


def _read_message(channel: Channel) -> bytes:
    """Read one LDAP message: a BER sequence of definite length (X.690 8.1.3), at most 64 KiB."""
    tag, first = channel.read_exactly(2)
    if tag != 0x30:
        raise ValueError("the answer is not an LDAP message")
    if first < 0x80:
        return channel.read_exactly(first)
    if first not in (0x81, 0x82, 0x83, 0x84):
        raise ValueError("an element of unknown length")
    length = int.from_bytes(channel.read_exactly(first & 0x7F), "big")
    if length > 64 * 1024:
        raise ValueError("an answer of unreasonable length")
    return channel.read_exactly(length)


def _split_tlv(data: bytes) -> tuple[tuple[int, bytes], bytes]:
    """Return the first element of *data* as tag and content, and what follows it."""
    if len(data) < 2:
        raise ValueError("an answer cut short")
    tag, length, start = data[0], data[1], 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    end = start + length
    if len(data) < end:
        raise ValueError("an answer cut short")
    return (tag, data[start:end]), data[end:]


_PREAMBLES: dict[StartTls, Callable[[Channel], None]] = {
    StartTls.SMTP: _smtp,
    StartTls.IMAP: _imap,
    StartTls.POP3: _pop3,
    StartTls.LDAP: _ldap,
    StartTls.POSTGRES: _postgres,
    StartTls.MYSQL: _mysql,
}
