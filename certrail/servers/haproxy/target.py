"""Install certificates on HAProxy."""

from __future__ import annotations

from collections.abc import Iterator

from certrail.connectors import Host
from certrail.errors import InvalidRequest
from certrail.model import Site
from certrail.servers.haproxy.certificates import Configuration, read_configuration
from certrail.servers.haproxy.control import HaproxyControl
from certrail.servers.haproxy.select import plan_edit, select, serving
from certrail.servers.haproxy.settings import HaproxySettings
from certrail.servers.target import FileTarget, Survey, Wanted
from certrail.servers.versions import Form


class HaproxyTarget(FileTarget):
    """One HAProxy on one host, run in master-worker mode.

    Certificate and key are one file, in versions of our own; the ``bind`` line,
    or the line of a list, names the live one. Folders of certificates are left alone.
    """

    server = "HAProxy"
    form = Form.CHAIN_FIRST
    test_command = "haproxy -c"
    settings: HaproxySettings
    control: HaproxyControl

    def __init__(self, host: Host, settings: HaproxySettings) -> None:
        super().__init__(host, settings, HaproxyControl(host, settings))

    @property
    def base(self) -> str:
        return self.beside(self.settings.config)

    def check(self) -> str:
        version = self.control.version()
        count = sum(bind.tls for bind in self._read().binds)
        return f"{version} on {self.host.name}, {self.settings.config}: {count} TLS bind lines"

    def sites(self) -> Iterator[Site]:
        configuration = self._read()
        configuration.read_leaves(crt for bind in configuration.binds for crt in bind.crts)
        seen = set()
        for bind in configuration.binds:
            for crt in bind.crts if bind.tls else ():
                names = configuration.names(crt)
                for name in names[:1]:
                    listen = self._needed_address(configuration, name, bind.addresses)
                    if (name, listen) not in seen:
                        seen.add((name, listen))
                        yield Site(
                            id=f"{name}@{listen or '*'}",
                            names=names,
                            listens=bind.addresses,
                            tls=True,
                            fingerprint=configuration.fingerprint(crt),
                            settings={"site": name, "listen": listen},
                        )

    def site_name(self, site: Site) -> str:
        return super().site_name(site).lower()

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        name, listen = self.site_name(site), self.site_listen(site)
        directory = self.directory_of(site)
        live = self.versions(directory).live_combined
        configuration = self._read()
        key = wanted.key_kind if wanted else ""
        selection = select(configuration, name, listen, live=live, key=key)
        now = serving(configuration, selection)
        configured = (now,) if now else ()
        if wanted is None:
            return Survey(selection.place, directory, configured)
        edit = plan_edit(configuration, selection, name, live, set(wanted.names))
        return Survey(
            selection.place,
            directory,
            configured,
            {path: configuration.files[path] for path in edit},
            edit,
        )

    def _read(self) -> Configuration:
        return read_configuration(self.host, self.settings.config)

    def _needed_address(
        self, configuration: Configuration, name: str, addresses: tuple[str, ...]
    ) -> str:
        """Return the address without which *name* would not be found, "" if it is not needed."""
        for listen in ("", *addresses):
            site = Site(name, settings={"site": name, "listen": listen})
            live = self.versions(self.directory_of(site)).live_combined
            try:
                select(configuration, name, listen, live=live)
            except InvalidRequest:
                continue
            return listen
        return addresses[0]
