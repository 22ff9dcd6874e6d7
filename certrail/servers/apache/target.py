"""Install certificates on Apache httpd."""

from __future__ import annotations

from collections.abc import Iterator

from certrail.connectors import Host
from certrail.errors import InvalidRequest
from certrail.model import Fingerprint, Site, subject_names
from certrail.names import matches as name_matches
from certrail.servers.apache.config import Configuration, VirtualHost, interpret
from certrail.servers.apache.control import ApacheControl
from certrail.servers.apache.edit import plan_edit
from certrail.servers.apache.settings import ApacheSettings
from certrail.servers.change import Change
from certrail.servers.target import FileTarget, Survey, Wanted


class ApacheTarget(FileTarget):
    """One Apache on one host."""

    server = "Apache"
    test_command = "apachectl configtest"
    blind = True
    settings: ApacheSettings
    control: ApacheControl

    def __init__(self, host: Host, settings: ApacheSettings) -> None:
        super().__init__(host, settings, ApacheControl(host, settings))

    @property
    def base(self) -> str:
        return self.beside(self.control.config)

    def check(self) -> str:
        version = self.control.version()
        count = len(self._read().active)
        return f"{version} on {self.host.name}, {self.control.config}: {count} virtual hosts"

    def sites(self) -> Iterator[Site]:
        configuration = self._read()
        configuration.read_leaves(pair for one in configuration.hosts for pair in one.pairs)
        for one in configuration.active:
            found = _address_of(configuration, one)
            if found is None:
                # Apache never chooses it: its names belong to an earlier one.
                continue
            name, listen = found
            yield Site(
                id=f"{name}@{listen or '*'}",
                names=one.names,
                listens=one.keys,
                tls=one.tls,
                fingerprint=next(iter(self._configured(configuration, one)), None),
                settings={"site": name, "listen": listen},
            )

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        configuration = self._read()
        name, listen = self.site_name(site), self.site_listen(site)
        host = self._host_of(configuration, name, listen)
        configured = self._configured(configuration, host)
        if wanted is None:
            return Survey(host.place, self.directory_of(site), configured)
        directory = self._directory(configuration, host, site, wanted)
        versions = self.versions(directory)
        change = Change(
            versions.live_chain,
            versions.live_key,
            wanted.key_kind,
            beside=self.settings.key_types == "add",
            enable_tls=self.settings.enable_tls,
            listen=listen,
        )
        made = plan_edit(configuration, host, change)
        self._must_not_strip_others(configuration, host, versions.live_chain, wanted.names)
        files = {path: configuration.reader.files[path] for path in made}
        return Survey(host.place, directory, configured, files, made)

    def _read(self) -> Configuration:
        configuration = interpret(self.control.read(), self.host)
        if any(one.uncertain for one in configuration.hosts):
            # A condition may hold that cannot be told from the files; Apache itself knows.
            configuration.confirm(self.control.virtual_hosts())
        return configuration

    def _host_of(self, configuration: Configuration, name: str, listen: str) -> VirtualHost:
        try:
            return configuration.match(name, listen)
        except InvalidRequest:
            # The address asked for may be the one that is to be added.
            if not (listen and self.settings.enable_tls):
                raise
        return configuration.match(name)

    def _configured(
        self, configuration: Configuration, host: VirtualHost
    ) -> tuple[Fingerprint, ...]:
        """Return the certificates configured; one of ours, if there is any, first."""
        if not host.tls:
            return ()
        configuration.read_leaves(host.pairs)
        full_name = configuration.reader.full_name
        ordered = sorted(
            host.pairs,
            key=lambda pair: (
                not full_name(pair.certificate.arguments[0]).startswith(f"{self.base}/")
            ),
        )
        found = (configuration.fingerprint(pair) for pair in ordered)
        return tuple(one for one in found if one is not None)

    def _directory(
        self, configuration: Configuration, host: VirtualHost, site: Site, wanted: Wanted
    ) -> str:
        """Return where this certificate is kept; of two kinds on one site, each has its own."""
        directory = self.directory_of(site)
        beside = f"{directory}.{wanted.key_kind.lower()}"
        full_name = configuration.reader.full_name
        present = {
            full_name(pair.certificate.arguments[0]): configuration.key_kind(pair)
            for pair in host.own_pairs
        }
        if self.versions(beside).live_chain in present:
            return beside
        others = [path for path, kind in present.items() if kind not in ("", wanted.key_kind)]
        several = len(host.own_pairs) > 1 or (others and self.settings.key_types == "add")
        if several and self.versions(directory).live_chain in others:
            return beside
        return directory

    def _must_not_strip_others(
        self,
        configuration: Configuration,
        host: VirtualHost,
        live: str,
        names: tuple[str, ...],
    ) -> None:
        """Refuse to switch a certificate that another virtual host uses for names of its own."""
        for other in configuration.hosts:
            if other is host:
                continue
            for pair in other.pairs:
                if configuration.reader.full_name(pair.certificate.arguments[0]) != live:
                    continue
                leaf = configuration.leaf(pair)
                had = subject_names(leaf) if leaf else ()
                lost = [
                    name
                    for name in other.names
                    if any(name_matches(one, name) for one in had)
                    and not any(name_matches(one, name) for one in names)
                ]
                if lost:
                    raise InvalidRequest(
                        f"{pair.certificate.place} uses this site's certificate too, and the new "
                        f"one no longer covers {', '.join(lost)}",
                        remedy=f"Give the virtual host at {other.place} a certificate of its own, "
                        f"or add {', '.join(lost)} to the names of this one.",
                    )


def _address_of(configuration: Configuration, host: VirtualHost) -> tuple[str, str] | None:
    """Return the shortest name and address by which *host* is found again."""
    for listen in ("", *(key for key in host.keys if not key.endswith(":*"))):
        for name in host.names or ("_default_",):
            try:
                if configuration.match(name, listen) is host:
                    return name, listen
            except InvalidRequest:
                continue
    return None
