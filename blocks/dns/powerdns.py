"""PowerDNS Authoritative Server through its HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import httpx
from pydantic import BaseModel, Field, SecretStr

from blocks._base import DnsBlock, open_secret
from blocks._dns import (
    POLL_INTERVAL,
    PROPAGATION_TIMEOUT,
    RESOLVERS,
    nameservers_field,
    resolver_of,
    servers,
)
from certrail.connectors import DnsProvider
from certrail.dns.lookup import Resolver, authority_of
from certrail.dns.propagation import Propagation
from certrail.dns.query import Server, canonical, txt_rdata, txt_value
from certrail.errors import AuthenticationFailed, Busy, Conflict, NotFound, Rejected, Unreachable
from certrail.log import plain
from certrail.model import TxtRecord
from certrail.remote import http

# Kinds of zone that copy from elsewhere; a change made here would be lost.
_COPIES = frozenset({"slave", "secondary", "consumer"})
# Servers before 4.6 answer with the whole zone, whichever record is asked for.
_WHOLE_ZONE = 64 * 1024 * 1024


class PowerDns(DnsBlock):
    """Publish dns-01 records through the API of a PowerDNS Authoritative Server.

    Servers before 5.0 do not show disabled records when one name is asked for
    (PowerDNS issue 11473), so a disabled TXT record at the very name of a
    challenge is lost when that name changes. Reading the whole zone instead would
    take seconds for each challenge in a large one.
    """

    _block_type_slug = "dns-powerdns"
    _block_type_name = "Certrail DNS: PowerDNS"

    url: str = Field(description="Address of the API's web server, such as http://ns:8081.")
    api_key: SecretStr = Field(description="The API key (api-key), or a reference to it.")
    server_id: str = Field(default="localhost", description="The server's id in the API.")
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for an https API; empty: system."
    )
    ttl: int = Field(default=60, ge=1, le=86400, description="Lifetime of the records in seconds.")
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds the API may take.")
    nameservers: list[str] = nameservers_field("the zone's NS")
    resolvers: list[str] = RESOLVERS
    propagation_timeout: int = PROPAGATION_TIMEOUT
    poll_interval: float = POLL_INTERVAL

    def resolver(self) -> Resolver:
        """Return whom to ask for CNAMEs and name servers."""
        return resolver_of(servers(self.nameservers), self.resolvers)

    @contextmanager
    def connect(self) -> Iterator[DnsProvider]:
        """Open the provider."""
        with http.client(
            self.url,
            headers={"X-API-Key": open_secret(self.api_key)},
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield _PowerDnsDns(
                client,
                self.server_id,
                label=self.label,
                ttl=self.ttl,
                nameservers=servers(self.nameservers),
                resolver=self.resolver(),
                propagation_timeout=timedelta(seconds=self.propagation_timeout),
                poll_interval=timedelta(seconds=self.poll_interval),
            )


class _Server(BaseModel):
    version: str
    daemon_type: str


class _Record(BaseModel):
    content: str
    disabled: bool = False


class _RecordSet(BaseModel):
    name: str
    type: str
    ttl: int = 0
    records: list[_Record] = []


class _Zone(BaseModel):
    id: str
    name: str
    kind: str
    rrsets: list[_RecordSet] = []


class _PowerDnsDns(DnsProvider):
    # PATCH replaces whole record sets. (EXTEND and PRUNE, which do not, came
    # with 4.9.12 and 5.0.2.)
    appends_atomically = False

    def __init__(
        self,
        client: httpx.Client,
        server_id: str,
        *,
        label: str,
        ttl: int = 60,
        nameservers: Sequence[Server] = (),
        resolver: Resolver | None = None,
        propagation_timeout: timedelta = timedelta(minutes=2),
        poll_interval: timedelta = timedelta(seconds=2),
    ) -> None:
        self._client = client
        self._root = f"/api/v1/servers/{quote(server_id, safe='')}"
        self._label = label
        self._ttl = ttl
        self._nameservers = nameservers
        self._resolver = resolver or Resolver()
        self.propagation_timeout = propagation_timeout
        self.poll_interval = poll_interval

    def check(self) -> str:
        found = http.json_of(self._call("GET", ""), _Server)
        return f"PowerDNS {plain(found.daemon_type)} {plain(found.version)} accepts the API key"

    def zone_of(self, fqdn: str) -> str:
        return self._zone(fqdn).name.rstrip(".").lower()

    def append_txt(self, record: TxtRecord) -> None:
        def add(present: list[_Record]) -> list[_Record]:
            if any(_is(item, record.value) and not item.disabled for item in present):
                return present
            others = [item for item in present if not _is(item, record.value)]
            return [*others, _Record(content=txt_rdata(record.value).to_text())]

        self._merge(record.fqdn, add)

    def delete_txt(self, record: TxtRecord) -> None:
        self._merge(
            record.fqdn,
            lambda present: [item for item in present if not _is(item, record.value)],
        )

    def find_txt(self, fqdn: str) -> frozenset[str]:
        records = self._record_set(self._zone(fqdn), fqdn).records
        return frozenset(_value(item) for item in records if not item.disabled)

    def wait_until_visible(self, records: Sequence[TxtRecord], *, present: bool = True) -> str:
        servers = {fqdn: self._servers(fqdn) for fqdn in {record.fqdn for record in records}}
        return Propagation(records, servers, present).wait(
            timeout=self.propagation_timeout, interval=self.poll_interval
        )

    def _servers(self, fqdn: str) -> Sequence[Server]:
        if self._nameservers:
            return [address for server in self._nameservers for address in server.addresses()]
        return authority_of(fqdn, self._resolver).servers

    def _zone(self, fqdn: str) -> _Zone:
        """Return the longest zone that holds *fqdn*, without its records."""
        name = canonical(fqdn)
        while name != dns.name.root:
            # One small question for each label, since a server may have 100,000 zones.
            text = name.to_text()
            reply = self._call("GET", "/zones", params={"zone": text, "dnssec": "false"})
            for zone in http.json_of(reply, list[_Zone]):
                if zone.name.lower() == text:
                    return self._writable(zone)
            name = name.parent()
        raise NotFound(
            f"{self._label}: the server has no zone that holds {fqdn}",
            remedy="Create the zone in PowerDNS, or use another connector for this name.",
            connector=self._label,
        )

    def _writable(self, zone: _Zone) -> _Zone:
        if zone.kind.lower() in _COPIES:
            raise Rejected(
                f"{self._label}: the zone {plain(zone.name)} is only a copy ({plain(zone.kind)})",
                remedy="Point the connector at the zone's primary server.",
                connector=self._label,
                code=zone.kind.lower(),
            )
        return zone

    def _record_set(self, zone: _Zone, fqdn: str) -> _RecordSet:
        name = canonical(fqdn).to_text()
        reply = self._call(
            "GET",
            f"/zones/{quote(zone.id, safe='')}",
            params={"rrset_name": name, "rrset_type": "TXT"},
            limit=_WHOLE_ZONE,
        )
        for rrset in http.json_of(reply, _Zone).rrsets:
            if rrset.name.lower() == name and rrset.type == "TXT":
                return rrset
        return _RecordSet(name=name, type="TXT", ttl=self._ttl)

    def _merge(self, fqdn: str, change: Callable[[list[_Record]], list[_Record]]) -> None:
        zone = self._zone(fqdn)
        present = self._record_set(zone, fqdn)
        wanted = change(present.records)
        if wanted == present.records:
            return
        rrset: dict[str, Any] = {
            "name": present.name,
            "type": "TXT",
            "ttl": min(present.ttl, self._ttl),
            "changetype": "REPLACE" if wanted else "DELETE",
            "records": [item.model_dump() for item in wanted],
        }
        self._call("PATCH", f"/zones/{quote(zone.id, safe='')}", json={"rrsets": [rrset]})

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return http.send(self._client, self._label, method, self._root + path, **kwargs)
        except AuthenticationFailed as exc:
            exc.remedy = "Correct api_key: it must be the server's api-key setting."
            raise
        except Unreachable as exc:
            # SQLite allows one writer; under parallel changes the others get a 500,
            # mostly without a reason ("database is locked" is in the server's log).
            if exc.code != "500":
                raise
            raise Busy(
                str(exc),
                remedy="Retry. If it happens often, look into the server's log: a SQLite "
                "backend takes one change at a time.",
                connector=self._label,
                code=exc.code,
            ) from exc
        except Rejected as exc:
            if "Conflicts with pre-existing RRset" in str(exc):
                raise Conflict(
                    str(exc),
                    remedy="Remove the CNAME at the record name, or let it point into a zone "
                    "this connector has.",
                    connector=self._label,
                    code=exc.code,
                ) from exc
            raise


def _value(record: _Record) -> str:
    """Return the text of a TXT record's content, which is in presentation form."""
    try:
        rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, record.content)
    except dns.exception.DNSException:
        return record.content
    return txt_value(rdata)


def _is(record: _Record, value: str) -> bool:
    return _value(record) == value
