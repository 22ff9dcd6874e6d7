"""Change the certificate of one server block and no other byte of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from certrail.errors import InvalidRequest
from certrail.servers.change import Change, must_be_alone, to_replace
from certrail.servers.nginx.config import Configuration, Pair, ServerBlock, interpret
from certrail.servers.nginx.lexer import quote
from certrail.servers.nginx.listen import parse_wanted
from certrail.servers.nginx.tree import Directive
from certrail.servers.splice import Splice, splice
from certrail.servers.target import kind_of_key

_REST_IS_BLANK = re.compile(rb"[ \t]*(?:#[^\n]*)?\r?\n")


@dataclass(slots=True)
class Edit:
    """What has to change in which file; empty when everything is as wanted."""

    splices: dict[str, list[Splice]] = field(default_factory=dict)
    replaced: int = 0
    added: int = 0
    notes: list[str] = field(default_factory=list)

    def changed(self, configuration: Configuration) -> dict[str, bytes]:
        """Return the new content of each file."""
        return {
            path: splice(configuration.reader.files[path].data, splices)
            for path, splices in self.splices.items()
        }


def plan_edit(configuration: Configuration, block: ServerBlock, wanted: Change) -> Edit:
    """Work out the smallest edit after which *block* has what is wanted.

    Raises:
        InvalidRequest: that would touch another site, or has to guess; the
            remedy says which lines a person would change.
    """
    edit = Edit()
    lines = [b"ssl_certificate " + quote(wanted.certificate) + b";"]
    lines.append(b"ssl_certificate_key " + quote(wanted.key) + b";")
    if block.rejects_handshakes:
        raise InvalidRequest(
            f"{block.rejects_handshakes.place}: `ssl_reject_handshake on;` refuses every client "
            f"of the server block at {block.place}",
            remedy=f"Remove line {block.rejects_handshakes.line}, then retry.",
        )
    listens = _missing_listens(configuration, block, wanted)
    pair = _to_replace(configuration, block, wanted, lines)
    if pair is None:
        _insert(configuration, edit, block, [*listens, *lines])
    else:
        _replace(configuration, edit, pair, wanted)
        if listens:
            _insert(configuration, edit, block, listens)
    _must_be_harmless(configuration, block, edit, wanted)
    return edit


def key_kind(configuration: Configuration, pair: Pair) -> str:
    """Return ``RSA`` or ``ECDSA`` for the certificate configured, "" if it cannot be told."""
    leaf = configuration.leaf(pair)
    return kind_of_key(leaf.public_key()) if leaf else ""


def _to_replace(
    configuration: Configuration, block: ServerBlock, wanted: Change, lines: list[bytes]
) -> Pair | None:
    """Return the pair to replace, None to add one."""
    shown = " ".join(line.decode(errors="replace") for line in lines)
    for pair in block.pairs:
        if not pair.is_file:
            raise InvalidRequest(
                f"{pair.certificate.place}: ssl_certificate "
                f"{pair.certificate.arguments[0]} is not one file, so which certificate "
                f"{block.place} serves is decided for each connection",
                remedy=f"Write into the server block at {block.place}: {shown}",
            )
    own = block.own_pairs
    if not own and len(block.pairs) > 1:
        raise InvalidRequest(
            f"{block.place} inherits {len(block.pairs)} certificates from the http level "
            f"({block.pairs[0].certificate.place}); one of its own would hide all of them",
            remedy=f"Write every pair this server block needs into it, among them: {shown}",
        )
    if not own:
        return None
    present = [pair for pair in own if _names(configuration, pair, wanted)]
    return to_replace(
        block.place,
        own,
        wanted,
        ours=present,
        kind_of=lambda pair: key_kind(configuration, pair),
        place_of=lambda pair: pair.certificate.place,
        keep_one=f"Keep one of them; nginx serves only the last one of a kind. Then: {shown}",
        write=shown,
    )


def _names(configuration: Configuration, pair: Pair, wanted: Change) -> bool:
    full_name = configuration.reader.full_name
    return full_name(pair.certificate.arguments[0]) == wanted.certificate


def _replace(configuration: Configuration, edit: Edit, pair: Pair, wanted: Change) -> None:
    for directive, path in ((pair.certificate, wanted.certificate), (pair.key, wanted.key)):
        if configuration.reader.full_name(directive.arguments[0]) == path:
            continue
        must_be_alone(
            directive.place,
            directive.name,
            [user.place for user in configuration.shared_by(directive)],
            "server blocks",
            f"Remove line {directive.line} of {directive.path} and write "
            f"`{directive.name} {directive.arguments[0]};` into each of these server blocks.",
        )
        word = directive.words[1]
        edit.splices.setdefault(directive.path, []).append(
            Splice(word.start, word.end, quote(path))
        )
        edit.replaced += 1


def _insert(
    configuration: Configuration, edit: Edit, block: ServerBlock, lines: list[bytes]
) -> None:
    path = block.directive.path
    data = configuration.reader.files[path].data
    edit.splices.setdefault(path, []).append(_insertion(data, block.directive, lines))
    edit.added += len(lines)


_ANCHORS = ("ssl_certificate_key", "ssl_certificate", "server_name", "listen")


def _insertion(data: bytes, block: Directive, lines: list[bytes]) -> Splice:
    """Return the splice that puts *lines* into *block* where a person would, in its style."""
    anchor = None
    for name in _ANCHORS:
        anchor = next((child for child in reversed(block.children) if child.name == name), None)
        if anchor:
            break
    position = anchor.end if anchor else block.opened
    rest = _REST_IS_BLANK.match(data, position)
    if rest is None:
        return Splice(position, position, b" " + b" ".join(lines))
    eol = b"\r\n" if rest[0].endswith(b"\r\n") else b"\n"
    indent = _indent(data, anchor, block)
    text = b"".join(indent + line + eol for line in lines)
    return Splice(rest.end(), rest.end(), text)


def _indent(data: bytes, anchor: Directive | None, block: Directive) -> bytes:
    candidates = [anchor] if anchor else []
    for child in (*candidates, *block.children):
        lead = data[data.rfind(b"\n", 0, child.start) + 1 : child.start]
        if not lead.strip(b" \t"):
            return lead
    line = data[data.rfind(b"\n", 0, block.start) + 1 : block.start]
    outer = line[: len(line) - len(line.lstrip(b" \t"))]
    return outer + (b"\t" if outer.startswith(b"\t") else b"    ")


def _missing_listens(
    configuration: Configuration, block: ServerBlock, wanted: Change
) -> list[bytes]:
    if configuration.serves_tls(block):
        return []
    if not wanted.enable_tls:
        raise InvalidRequest(
            f"the server block at {block.place} does not serve TLS",
            remedy="Set `enable_tls: true` for the endpoint's server, or write `listen 443 ssl;` "
            f"into the server block at {block.place}.",
        )
    lines = []
    if not any(directive.name == "listen" for directive in block.directives):
        # The implicit `listen 80` goes away with the first explicit one.
        lines.append(b"listen 80;")
    for text in dict.fromkeys(_tls_addresses(block, wanted.listen)):
        key = f"*:{text}" if text.isdigit() else parse_wanted(text).key
        others = configuration.groups.get(key, [])
        if others:
            places = ", ".join(other.place for other in others[:5])
            if key not in configuration.tls_keys and block not in others:
                raise InvalidRequest(
                    f"{key} is already used without TLS by {places}",
                    remedy="Choose another address with `listen`, or move the plain listener away.",
                )
            if block in others:
                raise InvalidRequest(
                    f"the server block at {block.place} listens on {key} without TLS",
                    remedy=f"Write `listen {text} ssl;` there instead of `listen {text};`.",
                )
        lines.append(f"listen {text} ssl;".encode())
    return lines


def _tls_addresses(block: ServerBlock, listen: str) -> Iterable[str]:
    if listen:
        yield listen.removeprefix("*:")
        return
    for found in block.listens:
        if found.address == "*":
            yield "443"
        elif found.port:
            yield f"{found.address}:443"
    if all(not found.port for found in block.listens):
        yield "443"


def _must_be_harmless(
    configuration: Configuration, block: ServerBlock, edit: Edit, wanted: Change
) -> None:
    """Read the edited configuration again: this block changed, no other did."""
    if not edit.splices:
        return
    reader = configuration.reader.with_changes(edit.changed(configuration))
    after = interpret(reader, configuration.host)
    index = configuration.blocks.index(block)
    before_all, after_all = _served(configuration), _served(after)
    if len(after_all) == len(before_all):
        mine = after_all.pop(index)
        before_all.pop(index)
        if after_all == before_all and (wanted.certificate, wanted.key) in mine:
            return
    raise InvalidRequest(
        f"the server block at {block.place} cannot be changed without touching others",
        remedy=f"Write into it by hand: ssl_certificate {wanted.certificate}; "
        f"ssl_certificate_key {wanted.key};",
    )


def _served(configuration: Configuration) -> list[list[tuple[str, str]]]:
    full_name = configuration.reader.full_name
    return [
        [
            (full_name(pair.certificate.arguments[0]), full_name(pair.key.arguments[0]))
            for pair in block.pairs
        ]
        for block in (*configuration.blocks, *configuration.others)
    ]
