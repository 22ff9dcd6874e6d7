"""What an nginx configuration serves: server blocks, their names, addresses and certificates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from cryptography import x509

from certrail.connectors import Host
from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.model import Chain, Fingerprint, fingerprint
from certrail.servers.bulk import read_many
from certrail.servers.nginx.listen import DEFAULT, Listen, parse_listen
from certrail.servers.nginx.tree import Directive, Reader, load


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A certificate and its key, as two directives.

    Attributes:
        certificate, key: the directives; nginx pairs them by order.
        inherited: they stand at the ``http`` level.
    """

    certificate: Directive
    key: Directive
    inherited: bool = False

    @property
    def has_variables(self) -> bool:
        """Whether nginx chooses the file for each connection (``$ssl_server_name``)."""
        return "$" in self.certificate.arguments[0] + self.key.arguments[0]

    @property
    def is_file(self) -> bool:
        """Whether both are plain files (not ``data:``, ``engine:``, ``store:``)."""
        return not self.has_variables and not any(
            directive.arguments[0].startswith(("data:", "engine:", "store:"))
            for directive in (self.certificate, self.key)
        )


@dataclass(frozen=True, eq=False)
class ServerBlock:
    """One ``server { … }`` of the ``http`` level.

    Attributes:
        directive: the block itself, with file and byte range.
        directives: its directives, includes followed.
        names: all its ``server_name`` arguments as written, lower case.
        listens: its addresses; ``*:80`` where it has no ``listen``.
        pairs: certificates that apply to it, own or inherited.
    """

    directive: Directive
    directives: tuple[Directive, ...]
    names: tuple[str, ...]
    listens: tuple[Listen, ...]
    pairs: tuple[Pair, ...]
    rejects_handshakes: Directive | None = None
    old_ssl_on: bool = False

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return self.directive.place

    @property
    def own_pairs(self) -> tuple[Pair, ...]:
        """Certificates of its own."""
        return tuple(pair for pair in self.pairs if not pair.inherited)

    @property
    def is_nameless(self) -> bool:
        """Whether it has no name a client could ask for (``_``, ``""``, none)."""
        return all(name in ("", "_") for name in self.names)


@dataclass(eq=False)
class Configuration:
    """One host's configuration, read once.

    Attributes:
        blocks: server blocks of the ``http`` level.
        others: those of ``stream`` and ``mail``; they may use the same certificates.
    """

    reader: Reader
    host: Host
    blocks: tuple[ServerBlock, ...]
    others: tuple[ServerBlock, ...] = ()

    @cached_property
    def groups(self) -> dict[str, list[ServerBlock]]:
        """Server blocks by listening address, in the order of the configuration.

        nginx chooses by name only among the blocks of the address that the
        connection came in on.
        """
        groups: dict[str, list[ServerBlock]] = {}
        for block in self.blocks:
            for key in dict.fromkeys(listen.key for listen in block.listens):
                groups.setdefault(key, []).append(block)
        return groups

    def default_of(self, key: str) -> ServerBlock:
        """Return the default server of a listening address: marked as such, else the first."""
        for block in self.groups[key]:
            if any(listen.default and listen.key == key for listen in block.listens):
                return block
        return self.groups[key][0]

    @cached_property
    def tls_keys(self) -> frozenset[str]:
        """Listening addresses that speak TLS: one ``ssl`` is enough for all blocks on it."""
        return frozenset(
            listen.key
            for block in self.blocks
            for listen in block.listens
            if listen.tls or block.old_ssl_on
        )

    def serves_tls(self, block: ServerBlock) -> bool:
        """Return whether *block* has an address that speaks TLS."""
        return any(listen.key in self.tls_keys for listen in block.listens)

    def shared_by(self, directive: Directive) -> tuple[ServerBlock, ...]:
        """Return the server blocks that *directive* applies to."""
        where = _where(directive)
        return tuple(
            block
            for block in (*self.blocks, *self.others)
            if any(where in (_where(pair.certificate), _where(pair.key)) for pair in block.pairs)
        )

    def leaf(self, pair: Pair) -> x509.Certificate | None:
        """Return the first certificate in the pair's file, None if it cannot be told."""
        if not pair.is_file:
            return None
        path = self.reader.full_name(pair.certificate.arguments[0])
        if path not in self._leaves:
            self.read_leaves([pair])
        return self._leaves[path]

    def read_leaves(self, pairs: Iterable[Pair]) -> None:
        """Read the certificates of *pairs* together, for :meth:`leaf`."""
        full_name = self.reader.full_name
        paths = {full_name(pair.certificate.arguments[0]) for pair in pairs if pair.is_file}
        texts = read_many(self.host, sorted(paths - self._leaves.keys()))
        for path in paths - self._leaves.keys():
            try:
                self._leaves[path] = Chain.from_pem(texts[path].decode(errors="replace")).leaf
            except (KeyError, UnexpectedReply):
                self._leaves[path] = None

    @cached_property
    def _leaves(self) -> dict[str, x509.Certificate | None]:
        return {}

    def fingerprint(self, pair: Pair) -> Fingerprint | None:
        """Return the fingerprint of the pair's leaf, None if it cannot be told."""
        leaf = self.leaf(pair)
        return fingerprint(leaf) if leaf else None


def read_configuration(host: Host, root: str) -> Configuration:
    """Read the configuration at *root* with everything it includes.

    Raises:
        InvalidRequest: it cannot be parsed; the message names file and line.
    """
    return interpret(load(host, root), host)


def interpret(reader: Reader, host: Host) -> Configuration:
    """Return what the files of *reader* mean."""
    blocks: list[ServerBlock] = []
    others: list[ServerBlock] = []
    for directive in reader.main():
        if directive.name == "http" and directive.opened:
            blocks.extend(_blocks(reader, directive))
        elif directive.name in ("stream", "mail") and directive.opened:
            others.extend(_blocks(reader, directive))
    return Configuration(reader, host, tuple(blocks), tuple(others))


def _blocks(reader: Reader, http: Directive) -> list[ServerBlock]:
    servers: list[Directive] = []
    own: list[Directive] = []
    for directive in reader.inside(http):
        (servers if directive.name == "server" and directive.opened else own).append(directive)
    inherited = _pairs(own, inherited=True)
    return [_block(reader, server, inherited) for server in servers]


def _block(reader: Reader, server: Directive, inherited: tuple[Pair, ...]) -> ServerBlock:
    directives = tuple(reader.inside(server))
    said = _said(directives)
    if said.unpaired:
        raise InvalidRequest(
            f"{server.place}: {said.unpaired}",
            remedy="Write both directives, in the same number, into this server block.",
        )
    pairs = said.pairs or inherited
    return ServerBlock(
        server, directives, said.names, said.listens, pairs, said.rejects, said.ssl_on
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What the directives of a server block say by themselves."""

    names: tuple[str, ...]
    listens: tuple[Listen, ...]
    pairs: tuple[Pair, ...]
    unpaired: str
    rejects: Directive | None
    ssl_on: bool


@lru_cache(maxsize=2048)
def _said(directives: tuple[Directive, ...]) -> _Said:
    names: list[str] = []
    listens: list[Listen] = []
    rejects: Directive | None = None
    ssl_on = False
    own = dict.fromkeys(("ssl_certificate", "ssl_certificate_key"), 0)
    for directive in directives:
        if directive.name in own:
            own[directive.name] += 1
        elif directive.name == "server_name":
            names.extend(_folded(name) for name in directive.arguments)
        elif directive.name == "listen":
            try:
                listens.extend(parse_listen(directive.arguments))
            except InvalidRequest as exc:
                raise InvalidRequest(f"{directive.place}: {exc}") from exc
        elif directive.name == "ssl_reject_handshake" and directive.arguments == ("on",):
            rejects = directive
        elif directive.name == "ssl" and directive.arguments == ("on",):
            ssl_on = True
    certificates, keys = own.values()
    unpaired = f"{certificates} ssl_certificate but {keys} ssl_certificate_key"
    return _Said(
        tuple(names),
        tuple(listens) or parse_listen((DEFAULT,)),
        _pairs(directives),
        unpaired if certificates != keys else "",
        rejects,
        ssl_on,
    )


def _pairs(
    directives: tuple[Directive, ...] | list[Directive], *, inherited: bool = False
) -> tuple[Pair, ...]:
    certificates = [found for found in directives if found.name == "ssl_certificate"]
    keys = [found for found in directives if found.name == "ssl_certificate_key"]
    return tuple(
        Pair(certificate, key, inherited)
        for certificate, key in zip(certificates, keys, strict=False)
    )


def _folded(name: str) -> str:
    return name if name.startswith("~") else name.lower().rstrip(".")


def _where(directive: Directive) -> str:
    return f"{directive.path}:{directive.start}"
