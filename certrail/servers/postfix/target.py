"""Install certificates on Postfix."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.model import Fingerprint, Site, fingerprint
from certrail.servers.leaves import leaf_at
from certrail.servers.postfix.config import Service, Value, main_settings, services
from certrail.servers.postfix.control import PostfixControl
from certrail.servers.postfix.settings import PostfixSettings
from certrail.servers.splice import Splice
from certrail.servers.target import FileTarget, Survey, Wanted, kind_of_key
from certrail.servers.versions import Form

_CHAINS = "smtpd_tls_chain_files"
_PARAMETER = re.compile(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))")
_DEEPEST = 10
_LEVEL = "smtpd_tls_security_level"
_PAIRS = (
    ("smtpd_tls_cert_file", "smtpd_tls_key_file"),
    ("smtpd_tls_eccert_file", "smtpd_tls_eckey_file"),
    ("smtpd_tls_dcert_file", "smtpd_tls_dkey_file"),
)


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a parameter of one service is set: in its own line, or for all."""

    main: dict[str, Value]
    service: Service | None

    def get(self, name: str) -> Value | None:
        own = self.service.overrides.get(name) if self.service else None
        found = own or self.main.get(name)
        return found if found is not None and found.text else None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A certificate that is configured: the values to be changed, and its file."""

    values: tuple[Value, ...]
    path: str

    @property
    def place(self) -> str:
        return self.values[0].place


class PostfixTarget(FileTarget):
    """One Postfix instance on one host.

    Postfix reads its files whenever a process starts, also before a reload, so
    key and chain are one file: the switch of a link changes both.
    """

    server = "Postfix"
    form = Form.KEY_FIRST
    test_command = "postfix check"
    blind = True
    settings: PostfixSettings
    control: PostfixControl

    def __init__(self, host: Host, settings: PostfixSettings) -> None:
        super().__init__(host, settings, PostfixControl(host, settings))

    @property
    def base(self) -> str:
        # Not below the folder of main.cf: `postfix check` warns of every link there.
        beside = posixpath.dirname(self.settings.config)
        return self.settings.directory or posixpath.join(beside, "certrail", "postfix")

    @property
    def _main(self) -> str:
        return posixpath.join(self.settings.config, "main.cf")

    @property
    def _master(self) -> str:
        return posixpath.join(self.settings.config, "master.cf")

    def check(self) -> str:
        count = sum(one.is_server for one in self._services())
        return (
            f"{self.control.version()} on {self.host.name}, {self.settings.config}: "
            f"{count} SMTP services"
        )

    def sites(self) -> Iterator[Site]:
        main = main_settings(self._read(self._main), self._main)
        servers = [one for one in self._services() if one.is_server]
        name = self.control.value("myhostname").lower()
        own = [one for one in servers if _has_own(one)]
        shared = [one for one in servers if not _has_own(one)]
        if shared:
            yield self._site(name, "", shared, _Scope(main, None))
        for one in own:
            yield self._site(name, one.name, [one], _Scope(main, one))

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        files = {path: self._read(path) for path in (self._main, self._master)}
        scope = self._scope(files, self.site_listen(site))
        entries = self._entries(scope)
        directory = self.directory_of(site)
        live = self.versions(directory).live_combined
        place = entries[0].place if entries else self._main
        if wanted is None:
            return Survey(place, directory, self._configured(entries, live))
        if table := self.control.in_sni_map(self.site_name(site)):
            raise InvalidRequest(
                f"{self.site_name(site)} has a certificate of its own in {table}, which is a "
                "compiled table that Certrail does not write",
                remedy=f"Name {live} for it there and run `postmap -F {table}`.",
            )
        entry = self._chosen(entries, live, wanted)
        if entry is None:
            made = {self._main: self._enabled(files[self._main], scope, live)}
        else:
            place = entry.place
            made = {}
            for value in entry.values:
                if self._expanded(value.text, scope.main) != live:
                    splice = Splice(value.start, value.end, live.encode(errors="surrogateescape"))
                    made[value.path] = (*made.get(value.path, ()), splice)
        changed = {path: files[path] for path in made}
        return Survey(place, directory, self._configured(entries, live), changed, made)

    def _site(self, name: str, listen: str, servers: list[Service], scope: _Scope) -> Site:
        entries = self._entries(scope)
        wrapped = all(
            one.overrides["smtpd_tls_wrappermode"].text == "yes"
            if "smtpd_tls_wrappermode" in one.overrides
            else False
            for one in servers
        )
        return Site(
            id=f"{name}@{listen or '*'}",
            names=(name,),
            listens=tuple(one.address for one in servers),
            tls=bool(entries),
            fingerprint=next(iter(self._configured(entries, "")), None),
            settings={"site": name, "listen": listen},
            starttls="" if wrapped else "smtp",
        )

    def _scope(self, files: dict[str, bytes], listen: str) -> _Scope:
        main = main_settings(files[self._main], self._main)
        if not listen:
            return _Scope(main, None)
        found = [
            one
            for one in services(files[self._master], self._master)
            if one.is_server and one.is_meant(listen)
        ]
        if len(found) != 1:
            raise InvalidRequest(
                f"{len(found)} SMTP services of {self._master} are called {listen}",
                remedy="Set `listen` of the endpoint's server to the first column of one of them, "
                "or leave it out for the certificate of main.cf.",
            )
        return _Scope(main, found[0])

    def _entries(self, scope: _Scope) -> list[_Entry]:
        chains = scope.get(_CHAINS)
        if chains is not None:
            parts = [part for part in chains.parts() if part.text]
            return [_Entry((part,), self._expanded(part.text, scope.main)) for part in parts]
        entries = []
        for certificate, key in _PAIRS:
            value = scope.get(certificate)
            if value is None or self._expanded(value.text, scope.main) in ("", "none"):
                continue
            own_key = scope.get(key)
            values = (value, own_key) if own_key is not None else (value,)
            entries.append(_Entry(values, self._expanded(value.text, scope.main)))
        return entries

    def _chosen(self, entries: list[_Entry], live: str, wanted: Wanted) -> _Entry | None:
        ours = [one for one in entries if one.path == live]
        same_kind = [
            one
            for one in entries
            if (leaf := leaf_at(self.host, one.path))
            and kind_of_key(leaf.public_key()) == wanted.key_kind
        ]
        for few in (ours, same_kind, entries):
            if len(few) == 1:
                return few[0]
        if not entries:
            return None
        places = " and ".join(one.place for one in same_kind or entries)
        raise InvalidRequest(
            f"{len(entries)} certificates are configured ({places}), and it cannot be told which "
            f"the {wanted.key_kind} one replaces",
            remedy=f"Write {live} in its place.",
        )

    def _enabled(self, data: bytes, scope: _Scope, live: str) -> tuple[Splice, ...]:
        lines = [f"{_CHAINS} = {live}"]
        if scope.get(_LEVEL) is None:
            lines.append(f"{_LEVEL} = may")
        shown = " and ".join(f"`{line}`" for line in lines)
        if not self.settings.enable_tls or (scope.service and _has_own(scope.service)):
            raise InvalidRequest(
                f"{self._main} names no certificate for the SMTP server",
                remedy="Set `enable_tls: true` for the endpoint's server, or write into it: "
                f"{shown}.",
            )
        eol = b"\r\n" if data.endswith(b"\r\n") else b"\n"
        lead = b"" if not data or data.endswith(b"\n") else eol
        text = lead + b"".join(line.encode() + eol for line in lines)
        return (Splice(len(data), len(data), text),)

    def _configured(self, entries: list[_Entry], live: str) -> tuple[Fingerprint, ...]:
        ordered = sorted(entries, key=lambda one: one.path != live)
        leaves = (leaf_at(self.host, one.path) for one in ordered)
        return tuple(fingerprint(leaf) for leaf in leaves if leaf is not None)

    def _expanded(self, text: str, main: dict[str, Value], depth: int = 0) -> str:
        """Return *text* with the parameters in it replaced, as far as they are known."""

        def value(found: re.Match[str]) -> str:
            name = found[1] or found[2] or found[3]
            own = main.get(name)
            return self._expanded(own.text, main, depth + 1) if own else self.control.value(name)

        return text if depth > _DEEPEST else _PARAMETER.sub(value, text)

    def _services(self) -> list[Service]:
        return services(self._read(self._master), self._master)

    def _read(self, path: str) -> bytes:
        try:
            return self.host.read_file(path)
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the folder of main.cf."
            raise


def _has_own(service: Service) -> bool:
    names = {_CHAINS, *(name for pair in _PAIRS for name in pair)}
    return bool(names & service.overrides.keys())
