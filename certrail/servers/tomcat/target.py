"""Install certificates on Tomcat."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509

from certrail.connectors import Host
from certrail.errors import ConnectorError, InvalidRequest, NotFound
from certrail.model import Fingerprint, Site, fingerprint, subject_names
from certrail.servers.leaves import leaf_at
from certrail.servers.pair import listen
from certrail.servers.splice import Splice
from certrail.servers.target import FileTarget, Survey, Wanted, kind_of_key
from certrail.servers.tomcat.config import (
    ALIAS,
    CERTIFICATE,
    CHAIN,
    KEY,
    KEY_PASSWORD,
    OLD_NAMES,
    PASSWORD,
    STORE,
    TYPE,
    Configuration,
    TlsHost,
)
from certrail.servers.tomcat.control import TomcatControl
from certrail.servers.tomcat.settings import TomcatSettings
from certrail.servers.tomcat.store import Password, StoreVersions, chain_in
from certrail.servers.tomcat.xml import Element

_TYPES = {"RSA": ("RSA",), "ECDSA": ("EC", "ECDSA")}
_CHANGEIT = "changeit"


class TomcatTarget(FileTarget):
    """One Tomcat on one host."""

    server = "Tomcat"
    test_command = "catalina.sh configtest"
    blind = True
    settings: TomcatSettings
    control: TomcatControl

    def __init__(self, host: Host, settings: TomcatSettings) -> None:
        super().__init__(host, settings, TomcatControl(host, settings))
        self._password: Password | None = None

    @property
    def base(self) -> str:
        return self.beside(self.control.config)

    def versions(self, directory: str) -> StoreVersions:
        return StoreVersions(self.host, directory, self.key_file, self._password)

    def account(self) -> str:
        return self.control.account()

    def check(self) -> str:
        count = len(self._read().hosts)
        return (
            f"{self.control.version()} on {self.host.name}, {self.control.config}: "
            f"{count} TLS hosts"
        )

    def sites(self) -> Iterator[Site]:
        configuration = self._read()
        if not configuration.hosts:
            self._must_not_be_old(configuration)
        for host in configuration.hosts:
            for certificate in host.certificates[:1]:
                leaf = self._leaf(configuration, certificate)
                names = [host.name] if host.name else list(subject_names(leaf)) if leaf else []
                names = [one for one in names if host in configuration.serving(one, host.port)]
                if not names:
                    continue
                alone = configuration.serving(names[0], "") == [host]
                port = "" if alone else host.port
                yield Site(
                    id=f"{names[0]}@{port or '*'}",
                    names=tuple(names),
                    listens=(listen(host.address, host.port),),
                    tls=True,
                    fingerprint=fingerprint(leaf) if leaf else None,
                    settings={"site": names[0], "listen": port},
                )

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        configuration = self._read()
        host = self._host_of(configuration, site)
        directory = self.directory_of(site)
        found = self._certificate(configuration, host, wanted)
        configured = self._configured(configuration, host, found)
        place = configuration.place(found)
        if wanted is None:
            return Survey(place, directory, configured)
        self._must_stay_its_own(configuration, found, directory)
        made = tuple(self._splices(configuration, found, directory))
        path = configuration.path
        changes = {path: made} if made else {}
        return Survey(place, directory, configured, {path: configuration.data}, changes)

    def _splices(
        self, configuration: Configuration, found: Element, directory: str
    ) -> Iterator[Splice]:
        store = found.attributes.get(STORE)
        self._password = None
        if store is not None:
            password = configuration.text(found.attributes.get(PASSWORD), _CHANGEIT)
            own = configuration.text(found.attributes.get(KEY_PASSWORD), password)
            if own != password:
                raise InvalidRequest(
                    f"{configuration.place(found)}: the key has a password other than the store's",
                    remedy=f"Remove `{KEY_PASSWORD}` there, then retry.",
                )
            self._password = Password(password, found.get(ALIAS) or "tomcat")
        versions = self.versions(directory)
        if store is not None:
            wanted = {STORE: versions.live_store}
            if found.get(TYPE, "PKCS12").upper() != "PKCS12":
                wanted[TYPE] = "PKCS12"
        else:
            wanted = {CERTIFICATE: versions.live_chain, KEY: versions.live_key}
        for name, value in wanted.items():
            present = found.attributes.get(name)
            if present is None:
                text = f' {name}="{value}"'.encode(errors="surrogateescape")
                yield Splice(found.end, found.end, text)
            elif present.value != value:
                yield Splice(present.start, present.end, value.encode(errors="surrogateescape"))
        chain = found.attributes.get(CHAIN)
        if store is None and chain is not None:
            # The file of the certificate holds the chain too.
            yield Splice(chain.outer, chain.end + 1, b"")

    def _host_of(self, configuration: Configuration, site: Site) -> TlsHost:
        name, port = self.site_name(site), self.site_listen(site).rpartition(":")[2]
        found = configuration.serving(name, port)
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            places = ", ".join(configuration.place(one.element) for one in found)
            raise InvalidRequest(
                f"{len(found)} connectors have a certificate for {name}: {places}",
                remedy="Set `listen` of the endpoint's server to the port of one of them.",
            )
        self._must_not_be_old(configuration)
        raise InvalidRequest(
            f"{configuration.path} has no TLS connector for {name}"
            + (f" on port {port}" if port else ""),
            remedy='Write a connector with SSLEnabled="true", SSLHostConfig and Certificate.',
        )

    def _must_not_be_old(self, configuration: Configuration) -> None:
        for one in configuration.old_connectors():
            given = [name for name in OLD_NAMES if name in one.attributes]
            text = " ".join(
                # Of a password nothing is shown but that it stays what it is.
                f'{OLD_NAMES[name]}="{"…" if "Pass" in name else one.get(name)}"'
                for name in given
            )
            raise InvalidRequest(
                f"{configuration.place(one)}: the certificate is named on the connector itself, "
                "as versions before Tomcat 8.5 did it and Tomcat 10 no longer does",
                remedy=f"Take {', '.join(given)} out of the connector and write into it, with "
                f"the same values (Tomcat 8.5 or later): <SSLHostConfig><Certificate {text}/>"
                "</SSLHostConfig>. Then retry.",
            )

    def _certificate(
        self, configuration: Configuration, host: TlsHost, wanted: Wanted | None
    ) -> Element:
        found = host.certificates
        if not found:
            raise InvalidRequest(
                f"{configuration.place(host.element)}: no certificate is named there",
                remedy=f'Write `<Certificate {CERTIFICATE}="…" {KEY}="…"/>` into it.',
            )
        if wanted is None or len(found) == 1:
            return found[0]
        kinds = _TYPES.get(wanted.key_kind, ())
        same = [
            one
            for one in found
            if one.get("type").upper() in kinds
            or (
                (leaf := self._leaf(configuration, one))
                and kind_of_key(leaf.public_key()) == wanted.key_kind
            )
        ]
        if len(same) == 1:
            return same[0]
        places = " and ".join(configuration.place(one) for one in found)
        raise InvalidRequest(
            f"{len(found)} certificates are configured ({places}), and it cannot be told which the "
            f"{wanted.key_kind} one replaces",
            remedy="Give each `Certificate` its `type`, then retry.",
        )

    def _configured(
        self, configuration: Configuration, host: TlsHost, first: Element
    ) -> tuple[Fingerprint, ...]:
        ordered = sorted(host.certificates, key=lambda one: one is not first)
        leaves = (self._leaf(configuration, one) for one in ordered)
        return tuple(fingerprint(leaf) for leaf in leaves if leaf is not None)

    def _must_stay_its_own(
        self, configuration: Configuration, found: Element, directory: str
    ) -> None:
        """Refuse paths that are not known: what is replaced could not be told."""
        for name in (CERTIFICATE, STORE):
            attribute = found.attributes.get(name)
            if attribute is not None and not configuration.file(attribute):
                raise InvalidRequest(
                    f"{configuration.path}:{attribute.number}: `{name}` is a property, which is "
                    "set elsewhere",
                    remedy=f"Write the path there, for example {directory}/live/fullchain.pem.",
                )

    def _leaf(self, configuration: Configuration, found: Element) -> x509.Certificate | None:
        store = configuration.file(found.attributes.get(STORE))
        if not store:
            return leaf_at(self.host, configuration.file(found.attributes.get(CERTIFICATE)))
        try:
            password = configuration.text(found.attributes.get(PASSWORD), _CHANGEIT)
            chain = chain_in(self.host.read_file(store), password)
        except (ConnectorError, InvalidRequest):
            return None
        return chain.leaf if chain is not None else None

    def _read(self) -> Configuration:
        try:
            return self.control.read()
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the path of server.xml."
            raise
