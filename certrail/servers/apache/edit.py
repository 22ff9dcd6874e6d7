"""Change the certificate of one virtual host and no other byte of the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from certrail.errors import InvalidRequest
from certrail.servers.apache.config import Configuration, Pair, VirtualHost, interpret
from certrail.servers.apache.lexer import Kind, lines, quote
from certrail.servers.apache.listen import port_of
from certrail.servers.apache.tree import Directive
from certrail.servers.change import Change, must_be_alone, to_replace
from certrail.servers.splice import Splice, splice

_TLS_PORT = "443"
_TO_HTTPS = re.compile(rb"https://|%\{HTTPS\}|%\{REQUEST_SCHEME\}", re.IGNORECASE)


def _lines(wanted: Change) -> list[bytes]:
    """Return the directives."""
    return [
        b"SSLCertificateFile " + quote(wanted.certificate),
        b"SSLCertificateKeyFile " + quote(wanted.key),
    ]


def _shown(wanted: Change) -> str:
    """Return the directives for people."""
    return " and ".join(f"`{line.decode(errors='replace')}`" for line in _lines(wanted))


@dataclass(slots=True)
class _Edit:
    configuration: Configuration
    splices: dict[str, list[Splice]] = field(default_factory=dict)

    def add(self, path: str, one: Splice) -> None:
        self.splices.setdefault(path, []).append(one)

    def set(self, directive: Directive, path: str) -> None:
        """Make the directive's first argument *path*."""
        if self.configuration.reader.full_name(directive.arguments[0]) != path:
            word = directive.word
            self.add(directive.path, Splice(word.start, word.end, quote(path)))


def plan_edit(
    configuration: Configuration, host: VirtualHost, wanted: Change
) -> dict[str, tuple[Splice, ...]]:
    """Work out the smallest edit after which *host* serves what is wanted.

    Raises:
        InvalidRequest: that would touch another site, or has to guess; the
            remedy says which lines a person would change.
    """
    edit = _Edit(configuration)
    if host.uncertain:
        raise InvalidRequest(
            f"{host.place} stands inside a condition that cannot be told from here, and may not "
            "be what runs",
            remedy=f"Write {_shown(wanted)} into the virtual host that does.",
        )
    if not host.tls and not wanted.enable_tls:
        raise InvalidRequest(
            f"the virtual host at {host.place} does not serve TLS",
            remedy="Set `enable_tls: true` for the endpoint's server, or write a virtual host "
            f"for port 443 with `SSLEngine on`, {_shown(wanted)}.",
        )
    if not host.tls:
        _must_have_module(configuration)
    if not host.tls and any(port_of(key) in ("80", "") for key in host.keys):
        _add_twin(edit, host, wanted)
    else:
        _set_pair(edit, host, wanted)
    made = {path: tuple(splices) for path, splices in edit.splices.items()}
    _must_be_harmless(configuration, host, made, wanted)
    return made


def _set_pair(edit: _Edit, host: VirtualHost, wanted: Change) -> None:
    pair = _to_replace(edit.configuration, host, wanted)
    if pair is None:
        engine = [] if host.tls else [b"SSLEngine on"]
        _insert(edit, host, [*engine, *_lines(wanted)])
        return
    parts = [pair.certificate, *([pair.key] if pair.key else [])]
    if host.chain_file is not None and len(host.own_pairs) == 1:
        # The same file for both: mod_ssl then leaves the leaf in it out of the chain.
        parts.append(host.chain_file)
    for directive in parts:
        _must_be_own(edit.configuration, host, directive, wanted)
        edit.set(directive, wanted.key if directive is pair.key else wanted.certificate)
    if pair.key is None:
        data = edit.configuration.reader.files[pair.certificate.path]
        line = pair.certificate.line
        text, _ = _style(data, line.start)
        eol = b"\r\n" if data[: line.end].endswith(b"\r\n") else b"\n"
        lead = b"" if data[: line.end].endswith(b"\n") else eol
        edit.add(
            pair.certificate.path,
            Splice(line.end, line.end, lead + text + _lines(wanted)[1] + (b"" if lead else eol)),
        )
    if not host.tls:
        _insert(edit, host, [b"SSLEngine on"])


def _to_replace(configuration: Configuration, host: VirtualHost, wanted: Change) -> Pair | None:
    """Return the pair to replace, None to add one."""
    own = host.own_pairs
    if not own:
        if len(host.pairs) > 1:
            raise InvalidRequest(
                f"{host.place} inherits {len(host.pairs)} certificates from the main server "
                f"({host.pairs[0].certificate.place}); one of its own would hide only the first",
                remedy=f"Write every pair this virtual host needs into it, among them "
                f"{_shown(wanted)}.",
            )
        return None
    configuration.read_leaves(own)
    full_name = configuration.reader.full_name
    ours = [p for p in own if full_name(p.certificate.arguments[0]) == wanted.certificate]
    return to_replace(
        host.place,
        own,
        wanted,
        ours=ours,
        kind_of=configuration.key_kind,
        place_of=lambda pair: pair.certificate.place,
        keep_one=f"Keep one of them, then retry; or write {_shown(wanted)}.",
        write=_shown(wanted),
    )


def _must_be_own(
    configuration: Configuration, host: VirtualHost, directive: Directive, wanted: Change
) -> None:
    must_be_alone(
        directive.place,
        directive.line.words[0].text,
        [user.place for user in configuration.users(directive)],
        "virtual hosts",
        f"Remove line {directive.line.number} of {directive.path} and write the directive into "
        "each of these virtual hosts.",
    )
    if directive.uncertain and not host.opening.uncertain:
        raise InvalidRequest(
            f"{directive.place} stands inside a condition that cannot be told from here, and may "
            "not be what runs",
            remedy=f"Write {_shown(wanted)} where it does.",
        )


def _insert(edit: _Edit, host: VirtualHost, texts: list[bytes]) -> None:
    """Put *texts* before the closing line of *host*, indented as what is in it."""
    assert host.section.closing is not None
    path = host.opening.path
    data = edit.configuration.reader.files[path]
    inside = [one.line.start for one in host.section.directives if one.path == path]
    indent, eol = _style(data, inside[-1] if inside else host.opening.line.start)
    if not inside:
        indent += b"    "
    at = host.section.closing.start
    edit.add(path, Splice(at, at, b"".join(indent + text + eol for text in texts)))


def _add_twin(edit: _Edit, host: VirtualHost, wanted: Change) -> None:
    """Put a copy of *host* that serves TLS behind it."""
    assert host.section.closing is not None
    path = host.opening.path
    data = edit.configuration.reader.files[path]
    addresses = _tls_addresses(host, wanted)
    body = data[host.opening.line.end : host.section.closing.start]
    for line in lines(body):
        if line.kind is not Kind.OTHER and _TO_HTTPS.search(body[line.start : line.end]):
            number = host.opening.line.number + line.number
            raise InvalidRequest(
                f"{path}:{number} sends clients to https, which a copy of the virtual host for "
                "TLS would do for ever",
                remedy=f"Write `<VirtualHost {addresses}>` with the site's own directives, "
                f"`SSLEngine on`, {_shown(wanted)}; then retry.",
            )
    indent, eol = _style(data, host.opening.line.start)
    closing = data[host.section.closing.start : host.section.closing.end].rstrip(b"\r\n")
    inner, _ = (
        _style(data, host.section.directives[-1].line.start)
        if host.section.directives
        else (
            indent + b"    ",
            eol,
        )
    )
    port = port_of(addresses.split()[0])
    listens = [] if port in edit.configuration.ports else [indent + f"Listen {port}".encode()]
    texts = [
        *listens,
        indent + f"<VirtualHost {addresses}>".encode(),
        body.removesuffix(eol),
        *(inner + text for text in (b"SSLEngine on", *_lines(wanted))),
        closing,
    ]
    end = host.section.closing.end
    lead = b"" if data[:end].endswith(b"\n") else eol
    edit.add(path, Splice(end, end, lead + eol + eol.join(texts) + (b"" if lead else eol)))


def _tls_addresses(host: VirtualHost, wanted: Change) -> str:
    port = port_of(wanted.listen) or (wanted.listen if wanted.listen.isdigit() else _TLS_PORT)
    found = [f"{key.rpartition(':')[0]}:{port}" for key in host.keys]
    if wanted.listen and not wanted.listen.isdigit():
        found = [wanted.listen]
    return " ".join(dict.fromkeys(found))


def _must_have_module(configuration: Configuration) -> None:
    if "ssl_module" not in configuration.reader.modules:
        raise InvalidRequest(
            f"mod_ssl is not loaded by {configuration.reader.root_file}",
            remedy="Run `a2enmod ssl` (Debian) or `dnf install mod_ssl` (Red Hat) on the host, "
            "then retry.",
        )


def _style(data: bytes, start: int) -> tuple[bytes, bytes]:
    """Return indentation and end of line of the line that begins at *start*."""
    end = data.find(b"\n", start)
    line = data[start : end + 1 if end >= 0 else len(data)]
    indent = line[: len(line) - len(line.lstrip(b" \t"))]
    first = data.find(b"\n")
    windows = line.endswith(b"\r\n") or (end < 0 and data[first - 1 : first] == b"\r")
    return indent, b"\r\n" if windows else b"\n"


def _must_be_harmless(
    configuration: Configuration,
    host: VirtualHost,
    made: dict[str, tuple[Splice, ...]],
    wanted: Change,
) -> None:
    """Read the edited configuration again: this host changed, no other did."""
    if not made:
        return
    files = configuration.reader.files
    changed = {path: splice(files[path], splices) for path, splices in made.items()}
    after = interpret(configuration.reader.again(changed), configuration.host)
    before_all, after_all = _served(configuration), _served(after)
    index = configuration.hosts.index(host)
    if len(after_all) == len(before_all) + 1:
        # The twin stands behind the host, which stays as it is.
        mine = after_all.pop(index + 1)
    else:
        mine = after_all.pop(index)
        before_all.pop(index)
    if after_all == before_all and (wanted.certificate, wanted.key) in mine:
        return
    raise InvalidRequest(
        f"the virtual host at {host.place} cannot be changed without touching others",
        remedy=f"Write into it by hand: `SSLEngine on`, {_shown(wanted)}.",
    )


def _served(configuration: Configuration) -> list[list[tuple[str, str]]]:
    full_name = configuration.reader.full_name
    return [
        [
            (
                full_name(pair.certificate.arguments[0]),
                full_name((pair.key or pair.certificate).arguments[0]),
            )
            for pair in (one.pairs if one.tls else ())
        ]
        for one in configuration.hosts
    ]
