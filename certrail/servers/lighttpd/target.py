"""Install certificates on lighttpd."""

from __future__ import annotations

import re
from collections.abc import Iterator

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.model import Site, fingerprint, subject_names
from certrail.servers.leaves import leaf_at
from certrail.servers.lighttpd.config import Configuration, Context, Setting
from certrail.servers.lighttpd.control import LighttpdControl
from certrail.servers.lighttpd.settings import LighttpdSettings
from certrail.servers.splice import Splice
from certrail.servers.target import FileTarget, Survey, Wanted
from certrail.servers.versions import Form
from certrail.words import counted

_PEM, _KEY = "ssl.pemfile", "ssl.privkey"


class LighttpdTarget(FileTarget):
    """One lighttpd on one host.

    Key and chain are one file, as all of its versions and TLS modules read it.
    """

    server = "lighttpd"
    form = Form.KEY_FIRST
    test_command = "lighttpd -tt -f lighttpd.conf"
    settings: LighttpdSettings
    control: LighttpdControl

    def __init__(self, host: Host, settings: LighttpdSettings) -> None:
        super().__init__(host, settings, LighttpdControl(host, settings))

    @property
    def base(self) -> str:
        return self.beside(self.settings.config)

    def check(self) -> str:
        count = len(self._read().with_certificate())
        return (
            f"{self.control.version()} on {self.host.name}, {self.settings.config}: "
            f"{counted(count, 'certificate')}"
        )

    def sites(self) -> Iterator[Site]:
        configuration, sockets = self._read(), self.control.printed().sockets
        for context in configuration.with_certificate():
            leaf = leaf_at(self.host, configuration.get(context, _PEM))
            covered = subject_names(leaf) if leaf else ()
            hosts = [
                one.value for one in context if one.what == '$HTTP["host"]' and one.operator == "=="
            ]
            names = hosts or list(covered) or [configuration.get((), "server.name")]
            listens = {
                name: [one for one in sockets if configuration.serving(one, name) == context]
                for name in names
                if name
            }
            name = next((name for name, found in listens.items() if found), "")
            if not name:
                continue
            everywhere = len(listens[name]) == len(sockets)
            listen = "" if everywhere else listens[name][0]
            yield Site(
                id=f"{name}@{listen or '*'}",
                names=tuple(one for one, found in listens.items() if found),
                listens=tuple(_shown(one) for one in listens[name]),
                tls=True,
                fingerprint=fingerprint(leaf) if leaf else None,
                settings={"site": name, "listen": listen},
            )

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        configuration, printed = self._read(), self.control.printed()
        context = self._context(configuration, printed, site)
        pem = configuration.contexts[context][_PEM]
        directory = self.directory_of(site)
        leaf = leaf_at(self.host, pem.value or "")
        configured = (fingerprint(leaf),) if leaf else ()
        if wanted is None:
            return Survey(pem.place, directory, configured)
        live = self.versions(directory).live_combined
        made: dict[str, tuple[Splice, ...]] = {}
        for setting in (pem, configuration.contexts[context].get(_KEY)):
            if setting is None or setting.value == live:
                continue
            self._must_be_text(setting, live)
            new = f'"{live}"'.encode(errors="surrogateescape")
            splice = Splice(setting.start, setting.end, new)
            made[setting.path] = (*made.get(setting.path, ()), splice)
        files = {path: configuration.files[path] for path in made}
        return Survey(pem.place, directory, configured, files, made)

    def _context(self, configuration: Configuration, printed: Configuration, site: Site) -> Context:
        name, listen = self.site_name(site), self.site_listen(site)
        sockets = [one for one in printed.sockets if _is_meant(one, listen)]
        found = {printed.serving(one, name): one for one in sockets}
        contexts = [one for one in found if one is not None]
        if not contexts:
            raise InvalidRequest(
                f"{self.settings.config} has no certificate for {name}"
                + (f" at {listen}" if listen else ""),
                remedy="Set `site` and `listen` as `certrail endpoint scan` shows them, or "
                'write `ssl.engine = "enable"` and `ssl.pemfile` for the address.',
            )
        if len(found) > 1:
            raise InvalidRequest(
                f"{name} has several certificates, one for each of {', '.join(found.values())}",
                remedy="Set `listen` of the endpoint's server to one of these addresses.",
            )
        context = contexts[0]
        if _PEM not in configuration.contexts.get(context, {}):
            places = " or ".join(configuration.commands) or self.settings.config
            raise InvalidRequest(
                f"the certificate of {name} is configured by the output of a command ({places})",
                remedy="Write its `ssl.pemfile` into a file instead.",
            )
        return context

    def _must_be_text(self, setting: Setting, live: str) -> None:
        if setting.value is None:
            raise InvalidRequest(
                f"{setting.place}: it cannot be told which file is named there",
                remedy=f'Write `ssl.pemfile = "{live}"` there, and nothing for `ssl.privkey`.',
            )

    def _read(self) -> Configuration:
        try:
            return self.control.read()
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the path of lighttpd.conf."
            raise


def _is_meant(socket: str, listen: str) -> bool:
    """Return whether *listen*, an address or a port, means *socket*; "" means every one."""
    return listen in ("", socket, _shown(socket), socket.rpartition(":")[2])


def _shown(socket: str) -> str:
    """Return a socket as ``address:port``."""
    return re.sub(r"\A(0\.0\.0\.0|\[::\])?:", "*:", socket)
