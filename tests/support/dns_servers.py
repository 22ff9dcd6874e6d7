"""Real DNS servers for tests: BIND with signed updates, PowerDNS with its API.

Each is a context manager that yields a :class:`DnsServer`::

    with bind(tmp_path, zones=["example.test"]) as dns:
        dns.add_record("www.example.test", "A", "127.0.0.1")
        pebble = ["pebble", "-dnsserver", dns.endpoint, ...]
        settings = {"server": dns.address, "port": dns.port, "key_name": dns.key_name, ...}

Ports are the same for UDP and TCP. ``lagging_secondary``
follows a BIND but transfers only when told to, for tests of slow propagation.
"""

from __future__ import annotations

import base64
import secrets
import signal
import sqlite3
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update
import httpx

from tests.support.process import binary, free_port, running, wait_for

_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
_Server = TypeVar("_Server", bound="DnsServer")


@dataclass
class DnsServer(ABC):
    """A running authoritative server.

    Attributes:
        address, port: where it answers DNS, over UDP and TCP.
        zones: what it is authoritative for, without trailing dots.
        process: the server, for tests that stop or pause it.
        log: its output.
    """

    address: str
    port: int
    zones: list[str]
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def endpoint(self) -> str:
        """``address:port``, as Pebble's ``-dnsserver`` and our settings take it."""
        return f"{self.address}:{self.port}"

    def ask(self, name: str, kind: str, *, tcp: bool = False) -> dns.message.Message:
        """Ask the server itself, as a resolver would."""
        query = dns.message.make_query(name, kind)
        query.flags &= ~dns.flags.RD
        if tcp:
            return dns.query.tcp(query, self.address, timeout=5, port=self.port)
        return dns.query.udp(query, self.address, timeout=5, port=self.port)

    def values(self, name: str, kind: str = "TXT") -> frozenset[str]:
        """Return what it shows at *name*; the strings of a TXT record are joined."""
        answer = self.ask(name, kind, tcp=True)
        wanted = dns.rdatatype.from_text(kind)
        found = answer.get_rrset(answer.answer, dns.name.from_text(name), dns.rdataclass.IN, wanted)
        if found is None:
            return frozenset()
        if wanted == dns.rdatatype.TXT:
            return frozenset(b"".join(rdata.strings).decode() for rdata in found)
        return frozenset(rdata.to_text() for rdata in found)

    def zone_of(self, name: str) -> str:
        """Return the longest of its zones that holds *name*."""
        holding = [z for z in self.zones if f".{name.rstrip('.')}".endswith(f".{z}")]
        return max(holding, key=len)

    @abstractmethod
    def add_zone(self, zone: str) -> None:
        """Serve one more zone."""

    @abstractmethod
    def add_record(self, name: str, kind: str, value: str, *, ttl: int = 1) -> None:
        """Add a record, *value* in presentation form (names with a trailing dot, TXT quoted)."""

    @abstractmethod
    def remove_records(self, name: str, kind: str, value: str = "") -> None:
        """Remove all records of a type at a name, or the one with *value*."""


@dataclass
class Bind(DnsServer):
    """BIND that takes signed updates.

    Attributes:
        key_name, key_secret, algorithm: a TSIG key that may change everything. (BIND
            itself refuses NS records of the zone without an address, and address
            records at names with an underscore.)
        reader_name, reader_secret: a key the server knows and that may change nothing.
    """

    folder: Path
    key_name: str
    key_secret: str
    reader_name: str
    reader_secret: str
    algorithm: str = "hmac-sha256"

    def add_zone(self, zone: str) -> None:
        self.zones.append(zone)
        _write_bind_zone(self.folder, zone, self.address)
        _write_bind_zone_list(self.folder, self.zones)
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: _serves(self, zone), f"BIND serves {zone}")

    def add_record(self, name: str, kind: str, value: str, *, ttl: int = 1) -> None:
        update = self._update(name)
        update.add(dns.name.from_text(name), ttl, kind, value)
        self._send(update)

    def remove_records(self, name: str, kind: str, value: str = "") -> None:
        update = self._update(name)
        update.delete(dns.name.from_text(name), kind, *filter(None, [value]))
        self._send(update)

    def _update(self, name: str) -> dns.update.UpdateMessage:
        key = dns.tsig.Key(self.key_name, self.key_secret, self.algorithm)
        return dns.update.UpdateMessage(self.zone_of(name) + ".", keyring=key)

    def _send(self, update: dns.update.UpdateMessage) -> None:
        reply = dns.query.tcp(update, self.address, timeout=5, port=self.port)
        assert reply.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(reply.rcode())


@dataclass
class Secondary(DnsServer):
    """A BIND that copies another server's zones, but only when told to."""

    primary: DnsServer

    def catch_up(self) -> None:
        """Send it a NOTIFY (RFC 1996) for each zone; it then transfers from its primary."""
        for zone in self.zones:
            notify = dns.message.make_query(zone + ".", "SOA")
            notify.flags = dns.opcode.to_flags(dns.opcode.NOTIFY) | dns.flags.AA
            dns.query.udp(notify, self.address, timeout=5, port=self.port)

    def add_zone(self, zone: str) -> None:
        raise AssertionError("add it to the primary, then start another secondary")

    def add_record(self, name: str, kind: str, value: str, *, ttl: int = 1) -> None:
        raise AssertionError("add it to the primary")

    def remove_records(self, name: str, kind: str, value: str = "") -> None:
        raise AssertionError("remove it from the primary")


@dataclass
class PowerDns(DnsServer):
    """PowerDNS with its HTTP API.

    Attributes:
        url: root of the API's server, without a path.
        api_key: opens it.
        server_id: always ``localhost``.
    """

    url: str
    api_key: str
    server_id: str = "localhost"
    _client: httpx.Client = field(default_factory=httpx.Client, repr=False)

    def api(self, method: str, path: str, **kwargs: object) -> httpx.Response:
        """Call the API below ``/api/v1/servers/localhost``; fails on an error status."""
        reply = self._client.request(
            method,
            f"{self.url}/api/v1/servers/{self.server_id}{path}",
            headers={"X-API-Key": self.api_key},
            **kwargs,  # type: ignore[arg-type]
        )
        assert reply.is_success, f"{reply.status_code} {reply.text}"
        return reply

    def add_zone(self, zone: str) -> None:
        self.zones.append(zone)
        ns = f"ns1.{zone}."
        self.api(
            "POST",
            "/zones",
            json={"name": zone + ".", "kind": "Native", "nameservers": [ns], "soa_edit_api": ""},
        )
        self.add_record(ns, "A", self.address)

    def add_record(self, name: str, kind: str, value: str, *, ttl: int = 1) -> None:
        present = [item["content"] for item in self.records(name, kind)]
        self._replace(name, kind, [*present, value], ttl)

    def remove_records(self, name: str, kind: str, value: str = "") -> None:
        present = [item["content"] for item in self.records(name, kind)]
        self._replace(name, kind, [each for each in present if value and each != value], 1)

    def records(self, name: str, kind: str) -> list[dict[str, object]]:
        """Return the record objects at *name* as the API gives them."""
        zone = self.zone_of(name)
        for rrset in self.api("GET", f"/zones/{zone}.").json()["rrsets"]:
            if (rrset["name"], rrset["type"]) == (name.rstrip(".") + ".", kind):
                found: list[dict[str, object]] = rrset["records"]
                return found
        return []

    def _replace(self, name: str, kind: str, values: Sequence[object], ttl: int) -> None:
        rrset = {
            "name": name.rstrip(".") + ".",
            "type": kind,
            "ttl": ttl,
            "changetype": "REPLACE" if values else "DELETE",
            "records": [{"content": value, "disabled": False} for value in values],
        }
        self.api("PATCH", f"/zones/{self.zone_of(name)}.", json={"rrsets": [rrset]})


@contextmanager
def bind(
    folder: Path,
    zones: Sequence[str] = ("example.test",),
    *,
    address: str = "127.0.0.1",
    resolves: bool = False,
) -> Iterator[Bind]:
    """Run BIND as primary for *zones*.

    With *resolves* it also answers as a resolver that knows these zones and
    nothing else: for a CA (Pebble) that has to follow a CNAME from one zone to
    another, which BIND does only then. Unknown names are then NXDOMAIN instead of REFUSED.
    """

    @contextmanager
    def start(home: Path) -> Iterator[Bind]:
        port = free_port(address)
        names = ("writer.", "reader.")
        keys = {name: base64.b64encode(secrets.token_bytes(32)).decode() for name in names}
        for zone in zones:
            _write_bind_zone(home, zone, address)
        _write_bind_zone_list(home, zones)
        declared = f'include "{home}/zones.conf";'
        if resolves:
            (home / "root.zone").write_text(
                "$TTL 1\n@ SOA . . 1 3600 600 86400 1\n@ NS ns.\nns. A 127.0.0.1\n"
            )
            declared += f'\nzone "." {{ type primary; file "{home}/root.zone"; }};'
        with _named(home, address, port, keys, declared, resolves=resolves) as process:
            yield Bind(
                address=address,
                port=port,
                zones=list(zones),
                process=process,
                log=home / "named.log",
                folder=home,
                key_name="writer.",
                key_secret=keys["writer."],
                reader_name="reader.",
                reader_secret=keys["reader."],
            )

    with _started(folder, "bind", start) as server:
        yield server


@contextmanager
def lagging_secondary(folder: Path, primary: DnsServer) -> Iterator[Secondary]:
    """Run a BIND beside *primary*, on a port of its own, that transfers only on ``catch_up()``.

    BIND listens only on addresses an interface has, so it cannot use 127.0.0.2.
    """
    declared = "".join(
        f'zone "{zone}" {{ type secondary; file "{zone}.copy"; masterfile-format text;'
        f" primaries {{ {primary.address} port {primary.port}; }};"
        f" allow-notify {{ any; }}; }};\n"
        for zone in primary.zones
    )

    @contextmanager
    def start(home: Path) -> Iterator[Secondary]:
        port = free_port(primary.address)
        with _named(home, primary.address, port, {}, declared) as process:
            server = Secondary(
                address=primary.address,
                port=port,
                zones=list(primary.zones),
                process=process,
                log=home / "named.log",
                primary=primary,
            )
            wait_for(lambda: all(_serves(server, z) for z in server.zones), "it has the zones")
            yield server

    with _started(folder, "secondary", start) as server:
        yield server


@contextmanager
def powerdns(
    folder: Path,
    zones: Sequence[str] = ("example.test",),
    *,
    backend: str = "lmdb",
    address: str = "127.0.0.1",
) -> Iterator[PowerDns]:
    """Run PowerDNS with its API.

    Its *backend* is ``lmdb``, or ``sqlite``, which answers parallel changes
    with 500 "database is locked".
    """

    @contextmanager
    def start(home: Path) -> Iterator[PowerDns]:
        port, web = free_port(address), free_port(address)
        key, marker = secrets.token_urlsafe(24), secrets.token_hex(8)
        settings = {
            "launch": "gsqlite3" if backend == "sqlite" else "lmdb",
            "local-address": address,
            "local-port": port,
            "api": "yes",
            "api-key": key,
            "webserver": "yes",
            "webserver-address": address,
            "webserver-port": web,
            "webserver-allow-from": "127.0.0.0/8",
            "server-id": marker,
            "guardian": "no",
            "daemon": "no",
            "socket-dir": home,
            "cache-ttl": 0,
            "query-cache-ttl": 0,
            "negquery-cache-ttl": 0,
            "zone-cache-refresh-interval": 0,
            "security-poll-suffix": "",
            "default-soa-content": "ns1.@ hostmaster.@ 0 3600 600 86400 1",
        }
        if backend == "sqlite":
            _create_sqlite(home / "pdns.sqlite3")
            settings["gsqlite3-database"] = home / "pdns.sqlite3"
        else:
            settings["lmdb-filename"] = home / "pdns.lmdb"
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (home / "pdns.conf").write_text("".join(lines))
        (home / "pdns.conf").chmod(0o600)
        log = home / "pdns.log"
        command = [binary("pdns_server", "pdns-server"), f"--config-dir={home}"]
        with running(command, log=log, ready=lambda: _is(address, port, marker)) as process:
            wait_for(lambda: _reaches(f"http://{address}:{web}", key), "the API answers")
            with httpx.Client(timeout=10) as client:
                server = PowerDns(
                    address=address,
                    port=port,
                    zones=[],
                    process=process,
                    log=log,
                    url=f"http://{address}:{web}",
                    api_key=key,
                    _client=client,
                )
                for zone in zones:
                    server.add_zone(zone)
                yield server

    with _started(folder, f"powerdns-{backend}", start) as server:
        yield server


@contextmanager
def _started(
    folder: Path, name: str, start: Callable[[Path], AbstractContextManager[_Server]]
) -> Iterator[_Server]:
    """Start a server, again on another port if somebody was quicker to take the first."""
    for attempt in range(3):
        home = folder / f"{name}-{secrets.token_hex(3)}"
        home.mkdir(parents=True)
        with ExitStack() as stack:
            try:
                server = stack.enter_context(start(home))
            except AssertionError:
                if attempt == 2:
                    raise
                continue
            yield server
            return


@contextmanager
def _named(
    home: Path,
    address: str,
    port: int,
    keys: dict[str, str],
    zones: str,
    *,
    resolves: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    marker = secrets.token_hex(8)
    declared = "".join(
        f'key "{name}" {{ algorithm hmac-sha256; secret "{secret}"; }};\n'
        for name, secret in keys.items()
    )
    (home / "named.conf").write_text(
        f"""options {{
  directory "{home}"; managed-keys-directory "{home}"; session-keyfile "{home}/session.key";
  pid-file none; server-id "{marker}";
  listen-on port {port} {{ {address}; }}; listen-on-v6 {{ none; }};
  recursion {"yes; allow-recursion { any; }" if resolves else "no"};
  dnssec-validation no; empty-zones-enable no; minimal-responses no;
  allow-transfer {{ any; }}; notify no; transfer-source {address}; tcp-clients 500;
}};
controls {{ }};
{declared}{zones}
"""
    )
    (home / "named.conf").chmod(0o600)
    command = [binary("named", "bind9"), "-g", "-4", "-n", "1", "-c", str(home / "named.conf")]
    log = home / "named.log"
    with running(command, log=log, ready=lambda: _is(address, port, marker)) as process:
        yield process


def _write_bind_zone(home: Path, zone: str, address: str) -> None:
    (home / f"{zone}.zone").write_text(
        f"$TTL 1\n@ SOA ns1.{zone}. hostmaster.{zone}. 1 3600 600 86400 1\n"
        f"@ NS ns1.{zone}.\nns1.{zone}. A {address}\n"
    )


def _write_bind_zone_list(home: Path, zones: Sequence[str]) -> None:
    (home / "zones.conf").write_text(
        "".join(
            f'zone "{zone}" {{ type primary; file "{home}/{zone}.zone";'
            f" update-policy {{ grant writer. zonesub ANY; }}; }};\n"
            for zone in zones
        )
    )


def _create_sqlite(path: Path) -> None:
    if not _SCHEMA.exists():
        raise AssertionError(f"{_SCHEMA} is missing: apt-get install pdns-backend-sqlite3")
    with sqlite3.connect(path) as database:
        database.executescript(_SCHEMA.read_text())
    database.close()


def _is(address: str, port: int, marker: str) -> bool:
    """Return whether the server we started is the one that answers (RFC 4892)."""
    query = dns.message.make_query("id.server.", "TXT", "CH")
    try:
        for ask in (dns.query.udp, dns.query.tcp):
            if marker not in ask(query, address, timeout=0.3, port=port).to_text():
                return False
    except (dns.exception.DNSException, OSError, EOFError):
        return False
    return True


def _serves(server: DnsServer, zone: str) -> bool:
    try:
        answer = server.ask(zone + ".", "SOA")
    except (dns.exception.DNSException, OSError):
        return False
    return bool(answer.answer) and bool(answer.flags & dns.flags.AA)


def _reaches(url: str, key: str) -> bool:
    try:
        reply = httpx.get(f"{url}/api/v1/servers", headers={"X-API-Key": key}, timeout=1)
    except httpx.TransportError:
        return False
    return reply.is_success
