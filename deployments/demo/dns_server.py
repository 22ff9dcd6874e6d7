"""An authoritative DNS server for one zone that takes signed updates, over UDP and TCP.

It keeps to what a primary server does: answers from its zone and refuses the
rest (RFC 1034), checks signatures (RFC 8945), and makes an update as a whole
or not at all (RFC 2136 section 3). The key may change TXT records below
``_acme-challenge`` names only, as a careful administrator would set it up.
"""

from __future__ import annotations

import base64
import errno
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TSIG
import dns.rrset
import dns.tsig
import dns.update

_CHALLENGE = b"_acme-challenge"
_UDP_LIMIT = 1232
_HEADER = 12
_TTL = 60


class Refusal(Exception):
    """An update that is not made, with the code the client gets."""

    def __init__(self, code: dns.rcode.Rcode) -> None:
        super().__init__(dns.rcode.to_text(code))
        self.code = code


Records = dict[tuple[dns.name.Name, dns.rdatatype.RdataType], list[dns.rdata.Rdata]]


class Zone:
    """The records of one zone; changes happen under a lock."""

    def __init__(self, origin: str) -> None:
        self.origin = dns.name.from_text(origin)
        self._lock = threading.Lock()
        server = f"ns.{self.origin}"
        self._serial = 1
        self._records: Records = {}
        for rdtype, text in (
            (dns.rdatatype.SOA, f"{server} hostmaster.{self.origin} 1 3600 600 86400 {_TTL}"),
            (dns.rdatatype.NS, server),
        ):
            self._records[self.origin, rdtype] = [
                dns.rdata.from_text(dns.rdataclass.IN, rdtype, text)
            ]
        address = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.A, "127.0.0.1")
        self._records[dns.name.from_text(server), dns.rdatatype.A] = [address]

    @property
    def serial(self) -> int:
        """Grows with every change."""
        with self._lock:
            return self._serial

    def answer(self, query: dns.message.Message, response: dns.message.Message) -> None:
        """Fill *response* from the zone."""
        if len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
            return
        name, rdtype = query.question[0].name, query.question[0].rdtype
        if not name.is_subdomain(self.origin):
            response.set_rcode(dns.rcode.REFUSED)
            return
        response.flags |= dns.flags.AA
        with self._lock:
            found = self._find(name, rdtype)
            exists = any(known.is_subdomain(name) for known, _ in self._records)
            soa = self._rrset(self.origin, dns.rdatatype.SOA)
        if found is not None:
            response.answer.append(found)
            return
        response.authority.append(soa)
        if not exists:
            response.set_rcode(dns.rcode.NXDOMAIN)

    def update(self, message: dns.update.UpdateMessage) -> None:
        """Make the changes of *message*: all of them, or none.

        Raises:
            Refusal: a prerequisite does not hold, or a change is not allowed.
        """
        zone = message.zone[0] if len(message.zone) == 1 else None
        if zone is None or zone.rdtype != dns.rdatatype.SOA:
            raise Refusal(dns.rcode.FORMERR)
        if zone.name != self.origin:
            raise Refusal(dns.rcode.NOTAUTH)
        with self._lock:
            for one in message.prerequisite:
                self._check(one)
            changed = {key: list(value) for key, value in self._records.items()}
            for one in message.update:
                _change(changed, one, self.origin)
            if changed != self._records:
                self._records = {key: value for key, value in changed.items() if value}
                self._serial += 1

    def _find(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        return self._rrset(name, rdtype) if (name, rdtype) in self._records else None

    def _rrset(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.rrset.RRset:
        return dns.rrset.from_rdata_list(name, _TTL, self._records[name, rdtype])

    def _check(self, wanted: dns.rrset.RRset) -> None:
        """Check one prerequisite (RFC 2136 section 3.2)."""
        if not wanted.name.is_subdomain(self.origin):
            raise Refusal(dns.rcode.NOTZONE)
        any_type = wanted.rdtype == dns.rdatatype.ANY
        there = (
            any(name == wanted.name for name, _ in self._records)
            if any_type
            else (wanted.name, wanted.rdtype) in self._records
        )
        if wanted.deleting == dns.rdataclass.NONE and there:
            raise Refusal(dns.rcode.YXDOMAIN if any_type else dns.rcode.YXRRSET)
        if wanted.deleting != dns.rdataclass.NONE and not there:
            raise Refusal(dns.rcode.NXDOMAIN if any_type else dns.rcode.NXRRSET)
        if wanted.deleting is None and set(wanted) != set(
            self._records[wanted.name, wanted.rdtype]
        ):
            raise Refusal(dns.rcode.NXRRSET)


def _change(records: Records, one: dns.rrset.RRset, origin: dns.name.Name) -> None:
    """Make one change (RFC 2136 section 3.4.2)."""
    if not one.name.is_subdomain(origin):
        raise Refusal(dns.rcode.NOTZONE)
    if one.rdtype != dns.rdatatype.TXT or one.name.labels[0].lower() != _CHALLENGE:
        raise Refusal(dns.rcode.REFUSED)
    values = records.setdefault((one.name, one.rdtype), [])
    if one.deleting == dns.rdataclass.ANY:
        values.clear()
    elif one.deleting == dns.rdataclass.NONE:
        values[:] = [value for value in values if value not in one]
    else:
        values += [value for value in one if value not in values]


class Authority:
    """Turns one request into one response."""

    def __init__(self, zone: Zone, key: dns.tsig.Key) -> None:
        self.zone = zone
        self._keys = {key.name: key}

    def respond(self, wire: bytes, limit: int) -> bytes:
        """Return the response to *wire*, "" bytes where none is due.

        Args:
            wire: the request.
            limit: longest response; a longer one is sent empty with TC set.
        """
        if len(wire) < _HEADER or wire[2] & 0x80:
            return b""
        try:
            query = dns.message.from_wire(wire, keyring=self._keys)
        except dns.message.UnknownTSIGKey:
            return _unsigned_refusal(wire, dns.rcode.BADKEY)
        except (dns.tsig.BadSignature, dns.tsig.BadKey):
            return _unsigned_refusal(wire, dns.rcode.BADSIG)
        except dns.tsig.BadTime:
            return _unsigned_refusal(wire, dns.rcode.BADTIME)
        except dns.exception.DNSException:
            return _header(wire, dns.rcode.FORMERR)
        response = dns.message.make_response(query)
        self._fill(query, response)
        reply = response.to_wire(max_size=65535)
        if len(reply) > limit:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            reply = response.to_wire()
        return reply

    def _fill(self, query: dns.message.Message, response: dns.message.Message) -> None:
        if query.opcode() == dns.opcode.QUERY:
            self.zone.answer(query, response)
        elif query.opcode() == dns.opcode.UPDATE:
            if not query.had_tsig:
                response.set_rcode(dns.rcode.REFUSED)
                return
            try:
                self.zone.update(cast(dns.update.UpdateMessage, query))
            except Refusal as refusal:
                response.set_rcode(refusal.code)
        else:
            response.set_rcode(dns.rcode.NOTIMP)


def _header(wire: bytes, code: dns.rcode.Rcode, records: int = 0) -> bytes:
    # Identifier, opcode and RD of the request; nothing else can be trusted.
    flags = 0x8000 | (struct.unpack("!H", wire[2:4])[0] & 0x7900) | int(code)
    return wire[:2] + struct.pack("!HHHHH", flags, 0, 0, 0, records)


def _unsigned_refusal(wire: bytes, error: dns.rcode.Rcode) -> bytes:
    """Return NOTAUTH with a TSIG record that says why (RFC 8945 section 5.2)."""
    signed = dns.message.from_wire(wire, keyring=False, continue_on_error=True)
    if signed.tsig is None:
        return _header(wire, dns.rcode.FORMERR)
    theirs = cast(dns.rdtypes.ANY.TSIG.TSIG, signed.tsig[0])
    ours = cast(
        dns.rdtypes.ANY.TSIG.TSIG,
        theirs.replace(time_signed=int(time.time()), mac=b"", error=int(error), other=b""),
    )
    data = ours.to_wire()
    assert data is not None
    name = signed.tsig.name.to_wire()
    assert name is not None
    record = name + struct.pack("!HHIH", dns.rdatatype.TSIG, dns.rdataclass.ANY, 0, len(data))
    return _header(wire, dns.rcode.NOTAUTH, 1) + record + data


@dataclass(frozen=True)
class DnsServer:
    """A running server.

    Attributes:
        port: of 127.0.0.1, the same for UDP and TCP.
        zone: what it serves.
        key_name: of the TSIG key.
        secret: the key itself, base64.
    """

    port: int
    zone: Zone
    key_name: str
    secret: str

    def __repr__(self) -> str:
        return f"DnsServer(port={self.port})"


@contextmanager
def serving(origin: str, *, secret: bytes) -> Iterator[DnsServer]:
    """Serve *origin* on a free port while the context lasts; *secret* may update it."""
    key = dns.tsig.Key("certrail-demo.", secret, dns.tsig.HMAC_SHA256)
    zone = Zone(origin)
    respond = Authority(zone, key).respond
    tcp, udp = _on_one_port(_tcp_handler(respond), _udp_handler(respond))
    port = tcp.server_address[1]
    with tcp, udp:
        threads = [
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
            for server in (tcp, udp)
        ]
        for thread in threads:
            thread.start()
        try:
            yield DnsServer(port, zone, "certrail-demo", base64.b64encode(secret).decode())
        finally:
            tcp.shutdown()
            udp.shutdown()
            for thread in threads:
                thread.join()


def _on_one_port(
    tcp_handler: type[socketserver.BaseRequestHandler],
    udp_handler: type[socketserver.BaseRequestHandler],
) -> tuple[socketserver.TCPServer, socketserver.UDPServer]:
    while True:
        tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), tcp_handler)
        tcp.daemon_threads = True
        try:
            return tcp, socketserver.UDPServer(("127.0.0.1", tcp.server_address[1]), udp_handler)
        except OSError as exc:
            tcp.server_close()
            # Somebody's query goes out from that number; TCP and UDP are counted separately.
            if exc.errno != errno.EADDRINUSE:
                raise


def _udp_handler(
    respond: Callable[[bytes, int], bytes],
) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            wire, socket = self.request
            if reply := respond(wire, _UDP_LIMIT):
                socket.sendto(reply, self.client_address)

    return Handler


def _tcp_handler(
    respond: Callable[[bytes, int], bytes],
) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            try:
                while len(size := self.rfile.read(2)) == 2:
                    wire = self.rfile.read(int.from_bytes(size, "big"))
                    reply = respond(wire, 65535)
                    self.wfile.write(len(reply).to_bytes(2, "big") + reply)
            except OSError:
                return  # the client went away, or said nothing for too long

    return Handler
