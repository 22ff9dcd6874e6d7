"""The DNS providers under contract, and a reference that shows what the contract means.

A case knows how to start the other side and how to make the block talk to it.
A new provider adds a ``Case`` to :data:`CASES`; the promises are in
``test_dns_provider.py``.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dns.query
import dns.zone

from blocks._base import DnsBlock
from blocks.dns.powerdns import PowerDns
from blocks.dns.rfc2136 import Rfc2136
from certrail.connectors import DnsProvider
from certrail.errors import AuthenticationFailed, NotFound, NotPropagated
from certrail.model import TxtRecord
from tests.support import dns_servers
from tests.support.scripted import Script, http_reply

ZONE = "example.test"
SUBZONE = "sub.example.test"
GAPS = frozenset({"network", "throttling"})
"""What a case may lack: a network under it, a way to say "come back later"."""


class Opens(Protocol):
    """Anything that opens a provider; every DNS block does."""

    def connect(self) -> AbstractContextManager[DnsProvider]:
        """Open it."""
        ...


class World(ABC):
    """A running other side with the zones :data:`ZONE` and :data:`SUBZONE`.

    Attributes:
        block: good settings.
        intruder: the same with a wrong credential.
        secrets: texts that may never be seen.
        port: where it takes changes.
    """

    block: Opens
    intruder: Opens
    secrets: tuple[str, ...]
    port: int = 0

    def __init__(self) -> None:
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @abstractmethod
    def add_record(self, name: str, kind: str, value: str) -> None:
        """Add a record behind the provider's back; *value* in presentation form."""

    @abstractmethod
    def snapshot(self) -> frozenset[tuple[str, str, str]]:
        """Return all that is in the zones: names, types and values."""

    def at(self, port: int) -> Opens:
        """Return the block pointing at another port of this machine, with a deadline of 1 s."""
        raise AssertionError("declare that the network is lacking")

    def lock(self, name: str) -> AbstractContextManager[object]:
        """Return the lock that a step would hold around a change of *name*."""
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())

    def change(self, provider: DnsProvider, name: str) -> AbstractContextManager[object]:
        """Return what has to be held to change *name* through *provider*."""
        return nullcontext() if provider.appends_atomically else self.lock(name)


@dataclass(frozen=True)
class Case:
    """A provider under contract.

    Attributes:
        block: the block class, None for a reference.
        world: starts the other side in a folder.
        nonsense: replies outside the protocol.
        cut: a reply that breaks off.
        throttled: makes a reply with this Retry-After.
        echo: a refusal that quotes the whole request.
        done: what the reply to a change that was made has in it.
        denied: an error that is said although it was made, b"" for none that could be made up.
        lacks: declared gaps, of :data:`GAPS`.
    """

    name: str
    block: type[DnsBlock] | None
    world: Callable[[Path], AbstractContextManager[World]]
    nonsense: Sequence[Script] = ()
    cut: Script = b""
    throttled: Callable[[str], Script] | None = None
    echo: Script = b""
    done: bytes = b""
    denied: bytes = b""
    lacks: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.name


class _BindWorld(World):
    def __init__(self, server: dns_servers.Bind) -> None:
        super().__init__()
        self._server = server
        self.port = server.port
        self._settings: dict[str, Any] = {
            "server": server.address,
            "port": server.port,
            "key_name": server.key_name,
            "key_secret": server.key_secret,
            "algorithm": server.algorithm,
            "propagation_timeout": 5,
            "poll_interval": 0.05,
        }
        self.block = Rfc2136(**self._settings)
        self.intruder = Rfc2136(**{**self._settings, "key_secret": server.reader_secret})
        self.secrets = (server.key_secret, server.reader_secret)

    def add_record(self, name: str, kind: str, value: str) -> None:
        self._server.add_record(name, kind, value)

    def snapshot(self) -> frozenset[tuple[str, str, str]]:
        found = set()
        for zone in (ZONE, SUBZONE):
            transfer = dns.query.xfr(
                self._server.address, zone, port=self._server.port, relativize=False
            )
            nodes = dns.zone.from_xfr(transfer, relativize=False)
            for name, _, rdata in nodes.iterate_rdatas():
                found.add((name.to_text(), rdata.rdtype.name, rdata.to_text()))
        return frozenset(found)

    def at(self, port: int) -> Opens:
        return Rfc2136(**{**self._settings, "port": port, "timeout": 1})


class _PowerDnsWorld(World):
    def __init__(self, server: dns_servers.PowerDns) -> None:
        super().__init__()
        self._server = server
        self.port = int(server.url.rpartition(":")[2])
        self._settings: dict[str, Any] = {
            "url": server.url,
            "api_key": server.api_key,
            "nameservers": [server.endpoint],
            "propagation_timeout": 5,
            "poll_interval": 0.05,
        }
        self.block = PowerDns(**self._settings)
        self.intruder = PowerDns(**{**self._settings, "api_key": "not-the-api-key"})
        self.secrets = (server.api_key, "not-the-api-key")

    def add_record(self, name: str, kind: str, value: str) -> None:
        self._server.add_record(name, kind, value)

    def snapshot(self) -> frozenset[tuple[str, str, str]]:
        return frozenset(
            (rrset["name"], rrset["type"], record["content"])
            for zone in (ZONE, SUBZONE)
            for rrset in self._server.api("GET", f"/zones/{zone}.").json()["rrsets"]
            for record in rrset["records"]
        )

    def at(self, port: int) -> Opens:
        return PowerDns(**{**self._settings, "url": f"http://127.0.0.1:{port}", "timeout": 1})


class ReferenceDns(DnsProvider):
    """The contract in memory, as short as it can be."""

    appends_atomically = True

    def __init__(self, world: ReferenceWorld, *, known: bool = True) -> None:
        self._world = world
        self._known = known

    def check(self) -> str:
        """Answer for the memory."""
        self._enter()
        return "the memory answers"

    def zone_of(self, fqdn: str) -> str:
        """Find the longest zone."""
        self._enter()
        holding = [zone for zone in (ZONE, SUBZONE) if f".{fqdn.lower()}".endswith(f".{zone}")]
        if not holding:
            raise NotFound(f"no zone for {fqdn}")
        return max(holding, key=len)

    def append_txt(self, record: TxtRecord) -> None:
        """Add one value."""
        self.zone_of(record.fqdn)
        self._world.records.add((record.fqdn.lower(), "TXT", record.value))

    def delete_txt(self, record: TxtRecord) -> None:
        """Remove one value."""
        self.zone_of(record.fqdn)
        self._world.records.discard((record.fqdn.lower(), "TXT", record.value))

    def find_txt(self, fqdn: str) -> frozenset[str]:
        """Return the values."""
        self.zone_of(fqdn)
        with self._world.guard:
            present = set(self._world.records)
        return frozenset(v for name, kind, v in present if (name, kind) == (fqdn.lower(), "TXT"))

    def wait_until_visible(self, records: Sequence[TxtRecord], *, present: bool = True) -> str:
        """Look once: memory does not propagate."""
        for record in records:
            if present is not (record.value in self.find_txt(record.fqdn)):
                raise NotPropagated(f"TXT {record.fqdn} is not as wanted in the memory")
        return f"{len(records)} TXT records in memory"

    def _enter(self) -> None:
        if not self._known:
            raise AuthenticationFailed("the memory does not know you")


@dataclass(frozen=True)
class _Opener:
    make: Callable[[], DnsProvider]

    @contextmanager
    def connect(self) -> Iterator[DnsProvider]:
        yield self.make()


class ReferenceWorld(World):
    """Zones in memory, reached through *provider*."""

    def __init__(self, provider: type[ReferenceDns] = ReferenceDns) -> None:
        super().__init__()
        self.records: set[tuple[str, str, str]] = set()
        self.guard = threading.Lock()
        self.block = _Opener(lambda: provider(self))
        self.intruder = _Opener(lambda: provider(self, known=False))
        self.secrets = ()

    def add_record(self, name: str, kind: str, value: str) -> None:
        self.records.add((name, kind, value))

    def snapshot(self) -> frozenset[tuple[str, str, str]]:
        return frozenset(self.records)


@contextmanager
def _bind_world(folder: Path) -> Iterator[World]:
    with dns_servers.bind(folder, [ZONE, SUBZONE]) as server:
        yield _BindWorld(server)


@contextmanager
def _powerdns_world(folder: Path) -> Iterator[World]:
    with dns_servers.powerdns(folder, [ZONE, SUBZONE]) as server:
        yield _PowerDnsWorld(server)


@contextmanager
def _reference_world(_: Path) -> Iterator[World]:
    yield ReferenceWorld()


def _echo(request: bytes) -> bytes:
    return http_reply(400, body=b"cannot do " + request)


CASES = (
    Case(
        "dns-rfc2136",
        Rfc2136,
        _bind_world,
        # Length-prefixed garbage; another protocol's greeting; a header that promises records.
        nonsense=(
            b"\x00\x05hello",
            b"\x00\x10SSH-2.0-OpenSSH_9",
            lambda got: b"\x00\x0c" + got[2:4] + b"\x84\x00\x00\x01\xff\xff\x00\x00\x00\x00",
        ),
        cut=b"\x00\xffhalf of it",
        # A response with the opcode UPDATE. An error would have to be signed.
        done=b"\xa8",
        lacks=frozenset({"throttling"}),
    ),
    Case(
        "dns-powerdns",
        PowerDns,
        _powerdns_world,
        nonsense=(
            http_reply(200, body="<html>Welcome to nginx!</html>"),
            http_reply(200, body='{"surprise": []}'),
            http_reply(204),
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ),
        cut=http_reply(200, {"Content-Length": "500"}, "[{"),
        throttled=lambda wait: http_reply(429, {"Retry-After": wait}, "slow down"),
        echo=_echo,
        done=b" 204 ",
        denied=http_reply(502),
    ),
)

REFERENCE = Case("reference", None, _reference_world, lacks=GAPS)
