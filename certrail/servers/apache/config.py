"""What an Apache configuration serves: virtual hosts, their names, addresses and certificates."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from cryptography import x509

from certrail.connectors import Host
from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.model import Chain, Fingerprint, fingerprint
from certrail.servers.apache.listen import address_key, matches, port_of
from certrail.servers.apache.tree import Directive, Reader, Section
from certrail.servers.bulk import read_many
from certrail.servers.target import kind_of_key


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A certificate and its key; *key* is None where both are in one file."""

    certificate: Directive
    key: Directive | None
    inherited: bool = False


@dataclass(eq=False)
class VirtualHost:
    """One ``<VirtualHost>``.

    Attributes:
        name: its ``ServerName`` without scheme and port, "" if it has none.
        aliases: its ``ServerAlias`` names, lower case, with their wildcards.
        keys: its addresses, in one form.
        tls: whether ``SSLEngine`` is on for it.
        uncertain: whether it runs depends on a condition that cannot be told from the files.
    """

    section: Section
    opening: Directive
    name: str
    aliases: tuple[str, ...]
    keys: tuple[str, ...]
    tls: bool
    pairs: tuple[Pair, ...]
    chain_file: Directive | None = None
    uncertain: bool = False

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return self.opening.place

    @property
    def names(self) -> tuple[str, ...]:
        """Name and aliases."""
        return tuple(dict.fromkeys(name for name in (self.name, *self.aliases) if name))

    @property
    def own_pairs(self) -> tuple[Pair, ...]:
        """Certificates of its own."""
        return tuple(pair for pair in self.pairs if not pair.inherited)

    def answers(self, name: str) -> bool:
        """Return whether Apache chooses it for *name*: its name, an alias, or a wildcard."""
        return any(
            one == name or (("*" in one or "?" in one) and fnmatch.fnmatchcase(name, one))
            for one in self.names
        )


@dataclass(eq=False)
class Configuration:
    """One host's configuration, read once."""

    reader: Reader
    host: Host
    hosts: tuple[VirtualHost, ...]
    _absent: set[VirtualHost] = field(default_factory=set)
    _leaves: dict[str, x509.Certificate | None] = field(default_factory=dict)

    @property
    def active(self) -> tuple[VirtualHost, ...]:
        """The virtual hosts that run, as far as is known."""
        return tuple(one for one in self.hosts if one not in self._absent)

    def confirm(self, seen: frozenset[tuple[str, int]] | None) -> None:
        """Take over which virtual hosts Apache itself has, by file and line."""
        for one in self.hosts:
            if seen is not None and one.uncertain:
                one.uncertain = False
                if (one.opening.path, one.opening.line.number) not in seen:
                    self._absent.add(one)

    @property
    def ports(self) -> set[str]:
        """Ports that the server listens on."""
        return {port_of(one.arguments[0]) for one in self.reader.main.all("listen")}

    @cached_property
    def groups(self) -> dict[str, list[VirtualHost]]:
        """Virtual hosts by address, in the order in which Apache asks them for a name."""
        groups: dict[str, list[VirtualHost]] = {}
        for one in self.active:
            for key in one.keys:
                groups.setdefault(key, []).append(one)
        return groups

    def match(self, site: str, listen: str = "") -> VirtualHost:
        """Return the virtual host that answers for *site* (on *listen*, where given).

        Raises:
            InvalidRequest: none does, or several could be meant; says where they stand.
        """
        name = site.lower().rstrip(".")
        groups = {
            key: group for key, group in self.groups.items() if not listen or matches(key, listen)
        }
        hits = list(
            dict.fromkeys(
                hit
                for group in groups.values()
                if (hit := next((one for one in group if one.answers(name)), None))
            )
        )
        hits = [one for one in hits if one.tls] or hits
        if not hits:
            # Apache hands a name that nobody has to the first host of the address. One that
            # has a name of its own belongs to another site, whose certificate stays.
            firsts = list(dict.fromkeys(group[0] for group in groups.values()))
            hits = [one for one in firsts if one.tls and not one.names]
        if len(hits) == 1:
            return hits[0]
        if not hits:
            raise InvalidRequest(
                f"no virtual host of {self.reader.root_file} has the name {site}"
                + (f" on {listen}" if listen else ""),
                remedy=f"Add `ServerAlias {site}` to the virtual host that is meant"
                f"{self._known()}.",
            )
        places = ", ".join(f"{one.place} ({' '.join(one.keys)})" for one in hits)
        raise InvalidRequest(
            f"{len(hits)} virtual hosts could be meant by {site}: {places}",
            remedy="Set `listen` of the endpoint's server to the address of one of them.",
        )

    def users(self, directive: Directive) -> list[VirtualHost]:
        """Return the virtual hosts that *directive*, by where it stands, applies to."""
        where = (directive.path, directive.line.start)
        return [
            one
            for one in self.hosts
            if any((other.path, other.line.start) == where for other in one.section.directives)
        ]

    def leaf(self, pair: Pair) -> x509.Certificate | None:
        """Return the first certificate in the pair's file, None if it cannot be told."""
        self.read_leaves([pair])
        return self._leaves[self._path(pair)]

    def read_leaves(self, pairs: Iterable[Pair]) -> None:
        """Read the certificates of *pairs* together, for :meth:`leaf`."""
        wanted = {self._path(pair) for pair in pairs} - self._leaves.keys()
        texts = read_many(self.host, sorted(wanted)) if wanted else {}
        for path in wanted:
            try:
                self._leaves[path] = Chain.from_pem(texts[path].decode(errors="replace")).leaf
            except (KeyError, UnexpectedReply):
                self._leaves[path] = None

    def fingerprint(self, pair: Pair) -> Fingerprint | None:
        """Return the fingerprint of the pair's leaf, None if it cannot be told."""
        leaf = self.leaf(pair)
        return fingerprint(leaf) if leaf else None

    def key_kind(self, pair: Pair) -> str:
        """Return ``RSA`` or ``ECDSA``, "" if it cannot be told."""
        leaf = self.leaf(pair)
        return kind_of_key(leaf.public_key()) if leaf else ""

    def _path(self, pair: Pair) -> str:
        return self.reader.full_name(pair.certificate.arguments[0])

    def _known(self) -> str:
        names = sorted({name for one in self.hosts for name in one.names})
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        macros = "; what <Macro> makes is not read" if self.reader.macros else ""
        return (f"; there are {shown}" if names else "") + macros


def interpret(reader: Reader, host: Host) -> Configuration:
    """Return what the files that *reader* has read mean.

    Raises:
        InvalidRequest: certificates and keys do not pair up.
    """
    main = reader.main
    inherited = _pairs(main, inherited=True)
    engine = main.last("sslengine").lower()
    hosts = tuple(_virtual_host(section, inherited, engine) for section in reader.hosts)
    return Configuration(reader, host, hosts)


def _virtual_host(section: Section, inherited: tuple[Pair, ...], engine: str) -> VirtualHost:
    opening = section.opening
    assert opening is not None
    aliases = [
        name.lower().rstrip(".") for one in section.all("serveralias") for name in one.arguments
    ]
    chain_files = section.all("sslcertificatechainfile")
    return VirtualHost(
        section,
        opening,
        _host_name(section.last("servername")),
        tuple(aliases),
        tuple(dict.fromkeys(address_key(text) for text in opening.arguments)),
        (section.last("sslengine").lower() or engine) == "on",
        _pairs(section) or inherited,
        chain_files[-1] if chain_files else None,
        opening.uncertain,
    )


def _pairs(section: Section, *, inherited: bool = False) -> tuple[Pair, ...]:
    certificates = section.all("sslcertificatefile")
    keys = section.all("sslcertificatekeyfile")
    if keys and len(keys) != len(certificates):
        where = section.opening.place if section.opening else "the main server"
        raise InvalidRequest(
            f"{where}: {len(certificates)} SSLCertificateFile but {len(keys)} "
            "SSLCertificateKeyFile",
            remedy="Write both directives, in the same number, into this virtual host.",
        )
    paired: list[Directive | None] = [*keys] if keys else [None] * len(certificates)
    return tuple(
        Pair(certificate, key, inherited)
        for certificate, key in zip(certificates, paired, strict=True)
    )


def _host_name(text: str) -> str:
    """Return the host of a ServerName: ``https://www.example.test:443`` is allowed."""
    host = text.lower().rpartition("://")[2]
    return (host if host.startswith("[") else host.partition(":")[0]).rstrip(".")
