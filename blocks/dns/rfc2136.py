"""Signed dynamic updates (RFC 2136 with RFC 8945): BIND, Knot, PowerDNS, Windows and others."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
from pydantic import Field, SecretStr, field_validator

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
from certrail.dns.lookup import Resolver, authority_of, soa_owner
from certrail.dns.propagation import Propagation
from certrail.dns.query import (
    UNSIGNED,
    Server,
    canonical,
    exchange,
    plain_name,
    question,
    txt_rdata,
    txt_values,
)
from certrail.errors import (
    AuthenticationFailed,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Unreachable,
)
from certrail.model import TxtRecord

Algorithm = Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1"]


class Rfc2136(DnsBlock):
    """Publish dns-01 records by dynamic updates, signed with a TSIG key."""

    _block_type_slug = "dns-rfc2136"
    _block_type_name = "Certrail DNS: dynamic update (RFC 2136)"

    server: str = Field(description="Primary server of the zones: address or host name.")
    port: int = Field(default=53, ge=1, le=65535, description="Port of the primary server.")
    key_name: str = Field(description="Name of the TSIG key, as the server knows it.")
    key_secret: SecretStr = Field(description="The TSIG key in base64, or a reference to it.")
    algorithm: Algorithm = Field(default="hmac-sha256", description="Algorithm of the key.")
    zone: str = Field(default="", description="The zone to change; empty: ask the server.")
    ttl: int = Field(default=60, ge=0, le=86400, description="Lifetime of the records in seconds.")
    tcp: bool = Field(default=True, description="Update over TCP; off for UDP.")
    timeout: int = Field(
        default=10, ge=1, le=120, description="Seconds the server may take to answer."
    )
    nameservers: list[str] = nameservers_field("the primary and the zone's NS")
    resolvers: list[str] = RESOLVERS
    propagation_timeout: int = PROPAGATION_TIMEOUT
    poll_interval: float = POLL_INTERVAL

    @field_validator("algorithm", mode="before")
    @classmethod
    def _as_tools_write_it(cls, value: object) -> object:
        return value.lower().rstrip(".") if isinstance(value, str) else value

    def resolver(self) -> Resolver:
        """Return whom to ask for CNAMEs and name servers."""
        return resolver_of(
            (*servers(self.nameservers), Server(self.server, self.port)), self.resolvers
        )

    @contextmanager
    def connect(self) -> Iterator[DnsProvider]:
        """Open the provider; each call then uses a connection of its own."""
        yield _Rfc2136Dns(
            Server(self.server, self.port),
            _key(self.key_name, open_secret(self.key_secret), self.algorithm),
            label=self.label,
            zone=self.zone,
            ttl=self.ttl,
            tcp=self.tcp,
            timeout=timedelta(seconds=self.timeout),
            nameservers=servers(self.nameservers),
            resolver=self.resolver(),
            propagation_timeout=timedelta(seconds=self.propagation_timeout),
            poll_interval=timedelta(seconds=self.poll_interval),
        )


class _Key(dns.tsig.Key):
    """A key that does not print its secret, as the library's own does."""

    def __repr__(self) -> str:
        return f"_Key({self.name}, <hidden>)"


def _key(name: str, secret: str, algorithm: str) -> _Key:
    try:
        raw = base64.b64decode("".join(secret.split()), validate=True)
    except ValueError:
        raw = b""
    if not raw:
        raise InvalidRequest(
            f"the secret of the TSIG key {name} is not base64",
            remedy="Copy the text between the quotes after `secret` in the server's key file.",
        )
    return _Key(canonical(name), raw, algorithm + ".")


class _Rfc2136Dns(DnsProvider):
    # One update is one transaction at the server (RFC 2136 section 3.7), and it
    # adds or deletes a single record of a set.
    appends_atomically = True

    def __init__(
        self,
        server: Server,
        key: dns.tsig.Key,
        *,
        label: str,
        zone: str = "",
        ttl: int = 60,
        tcp: bool = True,
        timeout: timedelta = timedelta(seconds=10),
        nameservers: Sequence[Server] = (),
        resolver: Resolver | None = None,
        propagation_timeout: timedelta = timedelta(minutes=2),
        poll_interval: timedelta = timedelta(seconds=2),
    ) -> None:
        self._server = server
        self._key = key
        self._label = label
        self._zone = canonical(zone) if zone else None
        self._ttl = ttl
        self._tcp = tcp
        self._timeout = timeout
        self._nameservers = nameservers
        self._resolver = resolver or Resolver((server,))
        self.propagation_timeout = propagation_timeout
        self.poll_interval = poll_interval

    def check(self) -> str:
        key = plain_name(self._key.name)
        if self._zone is None:
            # Any signed question proves the key; the server may refuse the root.
            self._ask(question(dns.name.root, dns.rdatatype.SOA))
            return f"{self._server} accepts the key {key}"
        # An update without changes: proves that this is the primary, and does nothing.
        # What the key may change shows only with a change (BIND's policies are per name).
        self._update(dns.update.UpdateMessage(self._zone), plain_name(self._zone))
        return f"{self._server} takes updates of {plain_name(self._zone)}, accepts the key {key}"

    def zone_of(self, fqdn: str) -> str:
        name = canonical(fqdn)
        if self._zone is not None:
            if not name.is_subdomain(self._zone):
                raise NotFound(
                    f"{fqdn} is outside the zone {plain_name(self._zone)} of this connector",
                    remedy="Use another connector for this name, or leave its zone empty.",
                    connector=self._label,
                )
            return plain_name(self._zone)
        at = name
        while at != dns.name.root:
            answer = self._ask(question(at, dns.rdatatype.SOA))
            if answer.rcode() == dns.rcode.SERVFAIL:
                raise Unreachable(
                    f"{self._server} answered SERVFAIL for {plain_name(at)}",
                    remedy="Look into the server's log: a zone may not be loaded or be expired.",
                    connector=self._label,
                    code="SERVFAIL",
                )
            if not answer.flags & dns.flags.AA:
                break
            owner = soa_owner(answer, at)
            if owner == dns.name.root:
                break  # a private root; nobody puts challenges there
            if owner is not None:
                return plain_name(owner)
            at = at.parent()
        raise NotFound(
            f"{self._server} is not authoritative for a zone that holds {fqdn}",
            remedy="Name the primary server of the zone, or create the zone there.",
            connector=self._label,
        )

    def append_txt(self, record: TxtRecord) -> None:
        name = canonical(record.fqdn)
        zone = self.zone_of(record.fqdn)
        change = dns.update.UpdateMessage(canonical(zone))
        # Where a CNAME is, servers drop an added record without a word (section 3.4.2.2).
        change.absent(name, dns.rdatatype.CNAME)
        change.add(name, self._ttl, txt_rdata(record.value))
        self._update(change, zone)

    def delete_txt(self, record: TxtRecord) -> None:
        zone = self.zone_of(record.fqdn)
        change = dns.update.UpdateMessage(canonical(zone))
        change.delete(canonical(record.fqdn), txt_rdata(record.value))
        self._update(change, zone)

    def find_txt(self, fqdn: str) -> frozenset[str]:
        name = canonical(fqdn)
        self.zone_of(fqdn)
        return txt_values(self._ask(question(name, dns.rdatatype.TXT)), name)

    def wait_until_visible(self, records: Sequence[TxtRecord], *, present: bool = True) -> str:
        servers = {fqdn: self._servers(fqdn) for fqdn in {record.fqdn for record in records}}
        return Propagation(records, servers, present).wait(
            timeout=self.propagation_timeout, interval=self.poll_interval
        )

    def _servers(self, fqdn: str) -> list[Server]:
        if self._nameservers:
            return [address for server in self._nameservers for address in server.addresses()]
        servers = {(s.host, s.port): s for s in self._server.addresses()}
        try:
            found = authority_of(fqdn, self._resolver).servers
        except (NotFound, Unreachable):
            # A zone in a laboratory has no delegation; its primary is all there is.
            found = ()
        for server in found:
            servers.setdefault((server.host, server.port), server)
        return list(servers.values())

    def _update(self, change: dns.update.UpdateMessage, zone: str) -> None:
        code = self._ask(change).rcode()
        if code == dns.rcode.NOERROR:
            return
        word = dns.rcode.to_text(code)
        message = f"{self._server} answered {word} to an update of {zone}"
        key = plain_name(self._key.name)
        match code:
            case dns.rcode.REFUSED:
                raise PermissionRefused(
                    message,
                    remedy=f"Allow the key {key} to change TXT records in {zone} "
                    "(BIND: update-policy or allow-update).",
                    connector=self._label,
                    code=word,
                )
            case dns.rcode.NOTAUTH:
                raise NotFound(
                    message,
                    remedy=f"Name the primary server of {zone}; this one is not.",
                    connector=self._label,
                    code=word,
                )
            case dns.rcode.YXRRSET:
                raise Conflict(
                    message + ": the record name is a CNAME",
                    remedy="Remove the CNAME, or let it point into a zone this connector has.",
                    connector=self._label,
                    code=word,
                )
            case dns.rcode.SERVFAIL:
                raise Unreachable(
                    message,
                    remedy="Look into the server's log: often it may not write its journal, or "
                    "cannot reach the primary it forwards updates to.",
                    connector=self._label,
                    code=word,
                )
            case _:
                raise Rejected(
                    message,
                    remedy="Check that the server takes dynamic updates for the zone.",
                    connector=self._label,
                    code=word,
                )

    def _ask(self, message: dns.message.Message) -> dns.message.Message:
        """Sign and send *message* to the server; only a signed answer counts."""
        message.use_tsig(self._key)
        key = plain_name(self._key.name)
        try:
            answer = self._exchange(message)
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime) as exc:
            raise AuthenticationFailed(
                f"{self._server} and this machine disagree about the time (TSIG BADTIME)",
                remedy="Set both clocks right (NTP): a signature is good for five minutes.",
                connector=self._label,
                code="BADTIME",
            ) from exc
        except dns.tsig.PeerBadKey as exc:
            raise AuthenticationFailed(
                f"{self._server} does not know the TSIG key {key} (BADKEY)",
                remedy="Correct key_name and algorithm, or add the key to the server.",
                connector=self._label,
                code="BADKEY",
            ) from exc
        except dns.tsig.PeerError as exc:
            raise AuthenticationFailed(
                f"{self._server} refused the signature with the TSIG key {key} "
                f"({type(exc).__name__.removeprefix('Peer')})",
                remedy="Correct key_secret and algorithm: both must be as on the server.",
                connector=self._label,
                code="BADSIG",
            ) from exc
        except (dns.tsig.BadSignature, dns.tsig.BadKey) as exc:
            raise AuthenticationFailed(
                f"the answer of {self._server} is not signed with the TSIG key {key}",
                remedy="Correct key_secret and algorithm; if they are right, something on the "
                "way changes the answers.",
                connector=self._label,
            ) from exc
        except ConnectorError as exc:
            exc.connector = self._label
            if exc.code == UNSIGNED:
                exc.remedy = (
                    f"Check that the server knows the TSIG key {key}, and that address and "
                    "port are those of the primary server."
                )
            raise
        return answer

    def _exchange(self, message: dns.message.Message) -> dns.message.Message:
        servers = self._server.addresses()
        for server in servers[:-1]:
            try:
                return exchange(server, message, tcp=self._tcp, timeout=self._timeout)
            except Unreachable:
                continue  # a host name with an IPv6 address that is not routed here
        return exchange(servers[-1], message, tcp=self._tcp, timeout=self._timeout)
