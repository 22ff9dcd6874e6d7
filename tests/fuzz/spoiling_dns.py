"""Answers of a real name server, spoiled on their way and signed anew where they were signed.

Without the signature nothing behind the check of it would ever see a spoiled
answer to an update.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig

from certrail.dns.query import Server
from tests.fuzz.spoiling import Spoiler
from tests.support.process import free_port

_SECONDS = 5
_NAMES = ("@", ".", "www", "_acme-challenge.www", "a." * 20 + "example.test.", r"\027[31m.test.")
# Addresses of this machine only: whoever believes them asks nobody else.
_RECORDS = (
    *(("CNAME", name) for name in _NAMES),
    *(("NS", name) for name in _NAMES),
    *(("TXT", text) for text in ('""', '"value"', '"\\255\\000\\027[2J"', '"x" "y"')),
    *(("A", "127.0.0.1"), ("AAAA", "::1"), ("DNAME", "."), ("MX", "0 .")),
    ("SOA", "ns hostmaster 1 1 1 1 1"),
    ("TXT", " ".join(['"' + "x" * 250 + '"'] * 3)),
)


@dataclass
class DnsRelay:
    """A relay, over UDP and TCP, to a name server that knows *key*."""

    server: Server
    key: dns.tsig.Key
    due: Callable[[], Spoiler | None]

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Pass questions on while the block runs; yields where."""
        with _pair() as (udp, tcp):
            threads = [
                threading.Thread(target=self._datagrams, args=(udp,), daemon=True),
                threading.Thread(target=self._connections, args=(tcp,), daemon=True),
            ]
            for thread in threads:
                thread.start()
            yield Server("127.0.0.1", int(udp.getsockname()[1]))
            with suppress(OSError):
                tcp.shutdown(socket.SHUT_RDWR)
            udp.close()
            for thread in threads:
                thread.join(_SECONDS)

    def _datagrams(self, sock: socket.socket) -> None:
        while True:
            try:
                wire, client = sock.recvfrom(65535)
            except TimeoutError:
                continue
            except OSError:
                return
            # What does not fit into one datagram is cut: over TCP it is asked for again.
            sock.sendto(self._answer(wire, tcp=False)[:60000], client)

    def _connections(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), client:
                client.settimeout(_SECONDS)
                while head := client.recv(2, socket.MSG_WAITALL):
                    (length,) = struct.unpack("!H", head)
                    wire = client.recv(length, socket.MSG_WAITALL)
                    answer = self._answer(wire, tcp=True)[:65535]
                    client.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, wire: bytes, *, tcp: bool) -> bytes:
        asked = dns.message.from_wire(wire, keyring=self.key)
        reply = self._told(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, wire)
        spoiler = self.due()
        if spoiler is None:
            return reply
        if spoiler.chance.random() < 0.3:
            return spoiler.bytes(reply)
        found = dns.message.from_wire(
            reply, keyring=self.key, request_mac=asked.mac or b"", ignore_trailing=True
        )
        _change(found, spoiler.chance)
        if asked.had_tsig and spoiler.chance.random() < 0.9:
            found.use_tsig(self.key)
            found.request_mac = asked.mac or b""
        try:
            return found.to_wire(max_size=65535)
        except (dns.exception.DNSException, ValueError):
            return spoiler.bytes(reply)

    def _told(self, kind: socket.SocketKind, wire: bytes) -> bytes:
        with socket.socket(socket.AF_INET, kind) as there:
            there.settimeout(_SECONDS)
            there.connect((self.server.host, self.server.port))
            if kind is socket.SOCK_DGRAM:
                there.send(wire)
                return there.recv(65535)
            there.sendall(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", there.recv(2, socket.MSG_WAITALL))
            return there.recv(length, socket.MSG_WAITALL)


def _change(message: dns.message.Message, chance: random.Random) -> None:
    """Do one to three things to a message that is well-formed after it, too."""
    for _ in range(chance.randint(1, 3)):
        match chance.randrange(6):
            case 0:
                message.set_rcode(dns.rcode.Rcode(chance.choice((*range(11), 16, 23, 4095))))
            case 1:
                message.flags ^= chance.choice((dns.flags.AA, dns.flags.TC, dns.flags.QR))
            case 2:
                chance.choice(message.sections).clear()
            case 3:
                message.id = chance.randrange(65536)
            case _:
                _put(message, chance)


def _put(message: dns.message.Message, chance: random.Random) -> None:
    origin = dns.name.from_text("example.test.")
    question = message.question[0].name if message.question else origin
    owner = chance.choice((question, origin, dns.name.root))
    kind, text = chance.choice(_RECORDS)
    section = chance.choice((message.sections[1], message.sections[2]))
    with suppress(dns.exception.DNSException):
        section.append(dns.rrset.from_text_list(owner, 1, "IN", kind, [text], origin=origin))


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Have one port for UDP and TCP."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port))
        udp.settimeout(0.2)
        with socket.create_server(("127.0.0.1", port)) as tcp:
            yield udp, tcp
