"""One question to one DNS server, and its answer or an error of ours."""

from __future__ import annotations

import ipaddress
import socket
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rdtypes.txtbase
import dns.tsig

from certrail.errors import InvalidRequest, UnexpectedReply, Unreachable

UNSIGNED = "unsigned"
QUERY_TIMEOUT = timedelta(seconds=4)

# What the DNS community agreed on as safe from fragmentation (DNS flag day 2020).
_PAYLOAD = 1232
_MAX_STRING = 255


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """A DNS server.

    Attributes:
        host: IP address, or a host name as configured.
        port: for UDP and TCP.
        name: of the NS record it was found by, "" when it was configured.
    """

    host: str
    port: int = 53
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Server:
        """Read ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address.

        Raises:
            InvalidRequest: it is none of these.
        """
        host, port = text.strip(), ""
        if host.startswith("["):
            host, _, rest = host[1:].partition("]")
            port = rest.removeprefix(":")
            bad = bool(rest) and not rest.startswith(":")
        else:
            bad = False
            if host.count(":") == 1:
                host, _, port = host.partition(":")
        number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
        if not host or bad or (port and not 0 < number < 65536):
            raise InvalidRequest(
                f"not a DNS server: {text!r}", remedy="Write it as host, host:port or [v6]:port."
            )
        return cls(host, number or 53)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port != 53 else self.host
        place = host if self.port == 53 else f"{host}:{self.port}"
        return f"{self.name} ({place})" if self.name else place

    def addresses(self) -> tuple[Server, ...]:
        """Return it with its IP address; a host name becomes one server for each address.

        Raises:
            Unreachable: the host name has no address.
        """
        if is_address(self.host):
            return (self,)
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as exc:
            raise Unreachable(
                f"the DNS server {self.host} has no address: {exc}",
                remedy="Configure it by its IP address, or correct the host name.",
            ) from exc
        hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
        return tuple(replace(self, host=host, name=self.name or self.host) for host in hosts)


def is_address(text: str) -> bool:
    """Return whether *text* is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def has_route(server: Server) -> bool:
    """Return whether this machine has a route there; sends nothing.

    Most machines lack IPv6 while most zones have it; those servers cannot be asked.
    """
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((server.host, server.port))
    except OSError:
        return False
    return True


def question(
    name: dns.name.Name | str, kind: dns.rdatatype.RdataType, *, recurse: bool = False
) -> dns.message.QueryMessage:
    """Return a query message with EDNS."""
    return dns.message.make_query(
        name, kind, use_edns=0, payload=_PAYLOAD, flags=dns.flags.RD if recurse else 0
    )


def exchange(
    server: Server,
    message: dns.message.Message,
    *,
    tcp: bool = False,
    timeout: timedelta = QUERY_TIMEOUT,
) -> dns.message.Message:
    """Send *message* and return the answer, whatever its code.

    A truncated answer over UDP is asked again over TCP (RFC 7766 section 5).
    *server* has an IP address as host. Errors of ``dns.tsig`` pass through.

    Raises:
        Unreachable: no answer in time, connection refused or cut.
        UnexpectedReply: what came is not a DNS answer to this question, or (with the
            code :data:`UNSIGNED`) lacks the signature that a signed question demands.
    """
    seconds = timeout.total_seconds()
    try:
        if tcp:
            return dns.query.tcp(message, server.host, timeout=seconds, port=server.port)
        with _connected(server) as sock:
            return dns.query.udp_with_fallback(
                message,
                server.host,
                timeout=seconds,
                port=server.port,
                ignore_unexpected=True,
                udp_sock=sock,
            )[0]
    except dns.exception.Timeout as exc:
        raise Unreachable(f"{server}: no answer in time", code="timeout") from exc
    except EOFError as exc:
        raise Unreachable(f"{server}: the connection was cut") from exc
    except OSError as exc:
        raise Unreachable(f"{server}: {exc.strerror or exc}") from exc
    except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadKey, dns.tsig.BadTime):
        raise
    except (dns.exception.DNSException, ValueError) as exc:
        if message.had_tsig and "requires a TSIG" in str(exc):
            raise UnexpectedReply(
                f"{server}: the answer to a signed question has no signature", code=UNSIGNED
            ) from exc
        raise UnexpectedReply(
            f"{server}: the answer is not a DNS message that fits the question "
            f"({type(exc).__name__})",
            remedy="Check that address and port are those of a DNS server.",
        ) from exc


def _connected(server: Server) -> AbstractContextManager[socket.socket | None]:
    """Return a UDP socket that is told at once when nobody listens.

    An unconnected one, the library's default, waits for the whole timeout. Other
    systems than Linux do not let a connected one be used the way the library does.
    """
    if sys.platform != "linux":
        return nullcontext()
    sock = socket.socket(
        socket.AF_INET6 if ":" in server.host else socket.AF_INET, socket.SOCK_DGRAM
    )
    try:
        sock.connect((server.host, server.port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def canonical(fqdn: str) -> dns.name.Name:
    """Return *fqdn* as an absolute name, in lower case.

    Raises:
        InvalidRequest: it is no DNS name.
    """
    try:
        return dns.name.from_text(fqdn.lower())
    except dns.exception.DNSException as exc:
        raise InvalidRequest(f"not a DNS name: {fqdn!r} ({exc})") from exc


def plain_name(name: dns.name.Name) -> str:
    """Return *name* as we write names: lower case, without the trailing dot."""
    return name.canonicalize().to_text(omit_final_dot=True)


def txt_rdata(value: str) -> dns.rdata.Rdata:
    """Return a TXT record of *value*, in strings of at most 255 octets (RFC 1035 section 3.3)."""
    raw = value.encode()
    strings = [raw[i : i + _MAX_STRING] for i in range(0, len(raw), _MAX_STRING)] or [b""]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)


def txt_value(rdata: dns.rdata.Rdata) -> str:
    """Return the strings of a TXT record joined, undecodable octets replaced."""
    assert isinstance(rdata, dns.rdtypes.txtbase.TXTBase)
    return b"".join(rdata.strings).decode(errors="replace")


def txt_values(answer: dns.message.Message, name: dns.name.Name) -> frozenset[str]:
    """Return the TXT values that *answer* has at exactly *name*."""
    rrset = answer.get_rrset(answer.answer, name, dns.rdataclass.IN, dns.rdatatype.TXT)
    return frozenset(txt_value(rdata) for rdata in rrset) if rrset else frozenset()
