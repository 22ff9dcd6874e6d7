"""Where a challenge record really lives, and who is authoritative for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset

from certrail.dns.query import (
    Server,
    canonical,
    exchange,
    has_route,
    plain_name,
    question,
)
from certrail.errors import ConnectorError, InvalidRequest, NotFound, Unreachable
from certrail.log import plain

_MAX_CNAMES = 8
_MAX_SERVERS = 32
# A lost packet is normal with UDP; the second try is given more time.
_TRIES = (timedelta(seconds=2), timedelta(seconds=4))


@dataclass(frozen=True, slots=True)
class Resolver:
    """Whom to ask where things are.

    Attributes:
        servers: asked first, in this order. They may be recursive or
            authoritative; one that does not know a name is passed over.
        use_system: whether this machine's own resolvers are asked after them.
    """

    servers: tuple[Server, ...] = ()
    use_system: bool = True

    def ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
        """Return the first answer that says something: NOERROR with content, or "no such".

        Raises:
            Unreachable: no server gave one; says what the last one did.
        """
        failure = "there is no resolver configured"
        for timeout in _TRIES:
            for server in self._all():
                try:
                    answer = exchange(server, question(name, kind, recurse=True), timeout=timeout)
                except ConnectorError as exc:
                    failure = str(exc)
                    continue
                if _says_something(answer):
                    return answer
                failure = f"{server}: {dns.rcode.to_text(answer.rcode())}"
                if answer.rcode() == dns.rcode.NOERROR:
                    failure = f"{server} does not know the name"
        raise Unreachable(
            f"no resolver could tell {dns.rdatatype.to_text(kind)} of {plain_name(name)} "
            f"({failure})",
            remedy="Set the connector's nameservers to servers that know the zone, "
            "or correct this machine's resolver.",
        )

    def _all(self) -> Iterator[Server]:
        for server in self.servers:
            yield from server.addresses()
        if self.use_system:
            yield from _system()


@dataclass(frozen=True, slots=True)
class Authority:
    """Who answers for a zone.

    Attributes:
        zone: without trailing dot.
        servers: every address of every name server that this machine has a route to.
        unknown: name servers of which no address was found.
    """

    zone: str
    servers: tuple[Server, ...]
    unknown: tuple[str, ...] = ()


def challenge_target(fqdn: str, resolver: Resolver) -> str:
    """Return the name where the record for *fqdn* has to be written, following CNAMEs.

    ``_acme-challenge.www.example.org CNAME x.delegated.test`` lets a CA look at
    the second name; nothing can be written at the first.

    Raises:
        InvalidRequest: the CNAMEs go in a circle, or there are more than eight.
        Unreachable: no resolver answered.
    """
    name = canonical(fqdn)
    seen = [name]
    while (target := _cname(resolver.ask(name, dns.rdatatype.CNAME), name)) is not None:
        path = " → ".join(plain_name(step) for step in [*seen, target])
        if target in seen:
            raise InvalidRequest(
                f"the CNAME of {fqdn} goes in a circle: {path}",
                remedy="Correct the CNAME: it has to end at a name where a TXT record can be.",
            )
        if len(seen) > _MAX_CNAMES:
            raise InvalidRequest(
                f"more than {_MAX_CNAMES} CNAMEs follow each other: {path}",
                remedy="Point the challenge name straight at the delegated name.",
            )
        seen.append(target)
        name = target
    return plain_name(name)


def authority_of(fqdn: str, resolver: Resolver) -> Authority:
    """Return the zone that holds *fqdn* and the addresses of its name servers.

    A name server whose address is that of one of the resolver's own servers is
    asked on that server's port, so that servers on other ports than 53 work.

    Raises:
        NotFound: there is no zone for it, or no name server has an address.
        Unreachable: no resolver answered.
    """
    zone = _zone_of(canonical(fqdn), resolver)
    answer = resolver.ask(zone, dns.rdatatype.NS)
    rrset = _rrset(answer, zone, dns.rdatatype.NS)
    ports: dict[str, int] = {}
    for server in resolver.servers:
        for address in server.addresses():
            ports.setdefault(address.host, server.port)
    servers: dict[Server, None] = {}
    unknown = []
    for host in sorted(rdata.target for rdata in rrset or ()):
        found = [
            Server(place, ports.get(place, 53), plain_name(host))
            for place in _addresses(host, resolver)
        ]
        if not found:
            unknown.append(plain_name(host))
        servers.update(dict.fromkeys(server for server in found if has_route(server)))
    if not servers:
        hosts = ", ".join(unknown) or "none"
        raise NotFound(
            f"no name server of {plain_name(zone)} can be asked (NS: {plain(hosts)})",
            remedy="Correct the zone's NS records, or set the connector's nameservers.",
        )
    return Authority(plain_name(zone), tuple(servers)[:_MAX_SERVERS], tuple(unknown))


def soa_owner(answer: dns.message.Message, name: dns.name.Name) -> dns.name.Name | None:
    """Return the zone of *name* that *answer* to an SOA question shows.

    None where *name* is an alias: then the SOA in it is that of another name's zone.
    """
    if _cname(answer, name) is not None:
        return None
    for section in (answer.answer, answer.authority):
        for rrset in section:
            if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name):
                return rrset.name
    return None


def _zone_of(name: dns.name.Name, resolver: Resolver) -> dns.name.Name:
    at = name
    while at != dns.name.root:
        owner = soa_owner(resolver.ask(at, dns.rdatatype.SOA), at)
        if owner is not None and owner != dns.name.root:
            return owner
        at = at.parent()
    raise NotFound(
        f"no zone holds {plain_name(name)}",
        remedy="Register and delegate the zone, or set the connector's nameservers to "
        "servers that know it.",
    )


def _addresses(host: dns.name.Name, resolver: Resolver) -> list[str]:
    found = []
    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
        try:
            answer = resolver.ask(host, kind)
        except Unreachable:
            break
        # Of the whole answer, since a name server's name may be an alias in practice.
        found += [r.address for rrset in answer.answer if rrset.rdtype == kind for r in rrset]
    return found


def _cname(answer: dns.message.Message, name: dns.name.Name) -> dns.name.Name | None:
    # A DNAME higher up also shows as a CNAME at the name (RFC 6672 section 3.1).
    rrset = _rrset(answer, name, dns.rdatatype.CNAME)
    return rrset[0].target.canonicalize() if rrset else None


def _rrset(
    answer: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType
) -> dns.rrset.RRset | None:
    return answer.get_rrset(answer.answer, name, dns.rdataclass.IN, kind)


def _says_something(answer: dns.message.Message) -> bool:
    if answer.rcode() == dns.rcode.NXDOMAIN:
        return True
    if answer.rcode() != dns.rcode.NOERROR:
        return False
    # An empty answer of a server that neither is authoritative nor recurses is
    # a referral: it only says "ask somebody else".
    return bool(answer.answer) or bool(answer.flags & (dns.flags.AA | dns.flags.RA))


def _system() -> list[Server]:
    try:
        configured = dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return []
    return [Server(str(host), configured.port) for host in configured.nameservers]
