"""Install certificates on Caddy, in its Caddyfile."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.model import Site, fingerprint, subject_names
from certrail.servers.caddy.config import Configuration, Line, SiteBlock
from certrail.servers.caddy.control import CaddyControl
from certrail.servers.caddy.settings import CaddySettings
from certrail.servers.leaves import leaf_at
from certrail.servers.pair import listen
from certrail.servers.splice import Splice
from certrail.servers.target import FileTarget, Survey, Wanted
from certrail.words import counted


class CaddyTarget(FileTarget):
    """One Caddy on one host."""

    server = "Caddy"
    test_command = "caddy validate"
    settings: CaddySettings
    control: CaddyControl

    def __init__(self, host: Host, settings: CaddySettings) -> None:
        super().__init__(host, settings, CaddyControl(host, settings))

    @property
    def base(self) -> str:
        return self.beside(self.settings.config)

    def account(self) -> str:
        return self.control.account()

    def check(self) -> str:
        count = len(self._read().sites)
        return (
            f"{self.control.version()} on {self.host.name}, {self.settings.config}: "
            f"{counted(count, 'site')}"
        )

    def sites(self) -> Iterator[Site]:
        configuration = self._read()
        for block in configuration.sites:
            secure = [one for one in block.addresses if one.is_tls]
            pair = self._pair(block.tls)
            leaf = leaf_at(self.host, self._full(pair[0])) if pair else None
            names = [one.host for one in secure if one.host] or (
                list(subject_names(leaf)) if leaf else []
            )
            if not names:
                continue
            alone = [configuration.serving(names[0], "")] == [[block]]
            port = "" if alone else configuration.port(secure[0])
            bound = [one.text for one in block.names("bind")] or ["*"]
            ports = dict.fromkeys(configuration.port(one) for one in secure)
            yield Site(
                id=f"{names[0]}@{port or '*'}",
                names=tuple(dict.fromkeys(names)),
                listens=tuple(listen(one, port) for port in ports for one in bound),
                tls=True,
                fingerprint=fingerprint(leaf) if leaf else None,
                settings={"site": names[0], "listen": port},
            )

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        configuration = self._read()
        block = self._block(configuration, site)
        directory = self.directory_of(site)
        line = block.tls
        pair = self._pair(line)
        leaf = leaf_at(self.host, self._full(pair[0])) if pair else None
        configured = (fingerprint(leaf),) if leaf else ()
        place = line.place if line else block.place
        if wanted is None:
            return Survey(place, directory, configured)
        versions = self.versions(directory)
        paths = (versions.live_chain, versions.live_key)
        made: tuple[Splice, ...] = ()
        if line is not None and pair:
            self._must_be_own(configuration, line, block, paths)
            made = tuple(
                Splice(word.start, word.end, _raw(path))
                for word, path in zip(line.words[1:3], paths, strict=True)
                if word.text != path
            )
            changed = line.path
        else:
            changed, made = self._given(configuration, block, line, paths)
        files = {changed: configuration.files[changed]} if made else {}
        return Survey(place, directory, configured, files, {changed: made} if made else {})

    def _given(
        self,
        configuration: Configuration,
        block: SiteBlock,
        line: Line | None,
        paths: tuple[str, str],
    ) -> tuple[str, tuple[Splice, ...]]:
        """Return the change that gives a certificate to a site for which Caddy gets one."""
        shown = f"`tls {paths[0]} {paths[1]}`"
        place = line.place if line else block.place
        if not self.settings.enable_tls:
            raise InvalidRequest(
                f"{place}: Caddy gets the certificate of this site itself",
                remedy="Set `enable_tls: true` for the endpoint's server to replace it, or write "
                f"{shown} into the site.",
            )
        if line is not None:
            raise InvalidRequest(
                f"{place}: `tls` says how Caddy gets the certificate, and only a person can tell "
                "what of it shall stay",
                remedy=f"Write {shown} instead, then retry.",
            )
        if block.gap is None:
            raise InvalidRequest(
                f"{place}: the site is written without braces",
                remedy=f"Write {shown} on a line below its address, then retry.",
            )
        path, at = block.gap
        data = configuration.files[path]
        eol = b"\r\n" if b"\r\n" in data else b"\n"
        text = eol + b"\ttls " + b" ".join(_raw(one) for one in paths)
        return path, (Splice(at, at, text),)

    def _must_be_own(
        self, configuration: Configuration, line: Line, block: SiteBlock, paths: tuple[str, str]
    ) -> None:
        shown = f"`tls {paths[0]} {paths[1]}`"
        if not all(word.known for word in line.words[1:3]):
            raise InvalidRequest(
                f"{line.place}: it cannot be told which files are named there",
                remedy=f"Write {shown} there, then retry.",
            )
        others = [one.place for one in configuration.users(line) if one is not block]
        if others and line.words[1].text != paths[0]:
            raise InvalidRequest(
                f"{line.place} names the certificate of other sites too: {', '.join(others)}",
                remedy=f"Write {shown} into the site at {block.place}, then retry.",
            )

    def _block(self, configuration: Configuration, site: Site) -> SiteBlock:
        name, listen = self.site_name(site), self.site_listen(site)
        port = listen.rpartition(":")[2]
        found = configuration.serving(name, port)
        if len(found) == 1:
            return found[0]
        if not found:
            raise InvalidRequest(
                f"{self.settings.config} has no site for {name}" + (f" at {listen}" * bool(listen)),
                remedy="Set `site` and `listen` as `certrail endpoint scan` shows them.",
            )
        raise InvalidRequest(
            f"{len(found)} sites answer for {name}: {', '.join(one.place for one in found)}",
            remedy="Set `listen` of the endpoint's server to the port of one of them.",
        )

    def _pair(self, line: Line | None) -> tuple[str, str] | None:
        """Return the files that a ``tls`` directive names, None if it names none."""
        words = [one for one in line.words[1:] if not one.is_bracket("{")] if line else []
        return (words[0].text, words[1].text) if len(words) == 2 else None

    def _full(self, path: str) -> str:
        return posixpath.join(posixpath.dirname(self.settings.config), path)

    def _read(self) -> Configuration:
        try:
            return self.control.read()
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the path of the Caddyfile."
            raise


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
