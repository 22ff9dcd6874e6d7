"""Install certificates on Dovecot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.model import Fingerprint, Site, fingerprint, subject_names
from certrail.servers.dovecot.config import Configuration, Setting, read_configuration
from certrail.servers.dovecot.control import DovecotControl
from certrail.servers.dovecot.settings import DovecotSettings
from certrail.servers.leaves import leaf_at
from certrail.servers.splice import Splice
from certrail.servers.target import FileTarget, Survey, Wanted, kind_of_key
from certrail.words import counted

_STARTTLS = {"imap": "imap", "pop3": "pop3", "submission": "smtp"}


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: Setting
    key: Setting | None


class DovecotTarget(FileTarget):
    """One Dovecot on one host."""

    server = "Dovecot"
    test_command = "doveconf -n"
    blind = True
    settings: DovecotSettings
    control: DovecotControl

    def __init__(self, host: Host, settings: DovecotSettings) -> None:
        super().__init__(host, settings, DovecotControl(host, settings))

    @property
    def base(self) -> str:
        return self.beside(self.settings.config)

    def check(self) -> str:
        count = len(self.control.listeners())
        return (
            f"{self.control.version()} on {self.host.name}, {self.settings.config}: "
            f"{counted(count, 'listener')}"
        )

    def sites(self) -> Iterator[Site]:
        configuration = self._read()
        listeners = self.control.listeners()
        for blocks in configuration.blocks_with_certificate():
            pairs = self._pairs(configuration, blocks)
            leaf = leaf_at(self.host, pairs[0].certificate.file) if pairs else None
            named = [b.partition(" ")[2].strip('"') for b in blocks if b.startswith("local_name ")]
            over = "".join(b.partition(" ")[2] for b in blocks if b.startswith("protocol "))
            names = named or (list(subject_names(leaf)) if leaf else [])
            if not names:
                continue
            ours = {
                n: one for n, one in listeners.items() if n.removesuffix("s") == over or not over
            }
            # Where TLS begins at once no client needs to be told how to ask for it.
            at_once = [port for port, tls in ours.values() if tls]
            asked = next((name for name in ours if name in _STARTTLS), "")
            listen = over if not named else ""
            yield Site(
                id=f"{names[0]}@{listen or '*'}",
                names=tuple(names),
                listens=tuple(f"*:{port}" for port in at_once or [p for p, _ in ours.values()]),
                tls=self._ssl(configuration) != "no",
                fingerprint=fingerprint(leaf) if leaf else None,
                settings={"site": names[0], "listen": listen},
                starttls="" if at_once else _STARTTLS.get(asked, ""),
            )

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        configuration = self._read()
        blocks = configuration.scope(self.site_name(site), self.site_listen(site))
        pairs = self._pairs(configuration, blocks)
        directory = self.directory_of(site)
        versions = self.versions(directory)
        place = pairs[0].certificate.place if pairs else configuration.root
        configured = self._configured(configuration, pairs, versions.live_chain)
        if wanted is None:
            return Survey(place, directory, configured)
        lines = configuration.names.lines(versions.live_chain, versions.live_key)
        shown = " and ".join(f"`{line}`" for line in lines)
        off = self._ssl(configuration) == "no"
        if (off or not pairs) and not self.settings.enable_tls:
            raise InvalidRequest(
                f"{configuration.root} has {'`ssl = no`' if off else 'no certificate'}",
                remedy="Set `enable_tls: true` for the endpoint's server, or write `ssl = yes`, "
                f"{shown}.",
            )
        made: dict[str, tuple[Splice, ...]] = {}
        pair = self._chosen(pairs, versions.live_chain, wanted, shown)
        if off and (setting := configuration.last("ssl")):
            made[setting.path] = (Splice(setting.start, setting.end, b"yes"),)
        if pair is None or pair.key is None:
            data = configuration.files[configuration.root]
            eol = "\r\n" if data.endswith(b"\r\n") else "\n"
            lead = "" if not data or data.endswith(b"\n") else eol
            text = lead + "".join(line + eol for line in lines)
            splice = Splice(len(data), len(data), text.encode(errors="surrogateescape"))
            made[configuration.root] = (*made.get(configuration.root, ()), splice)
        else:
            place = pair.certificate.place
            for setting, path in (
                (pair.certificate, versions.live_chain),
                (pair.key, versions.live_key),
            ):
                if setting.file != path:
                    new = f"{configuration.names.mark}{path}".encode(errors="surrogateescape")
                    splice = Splice(setting.start, setting.end, new)
                    made[setting.path] = (*made.get(setting.path, ()), splice)
        files = {path: configuration.files[path] for path in made}
        return Survey(place, directory, configured, files, made)

    def _read(self) -> Configuration:
        try:
            return read_configuration(self.host, self.settings.config)
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the path of dovecot.conf."
            raise

    def _ssl(self, configuration: Configuration) -> str:
        setting = configuration.last("ssl")
        return setting.value if setting else "yes"

    def _pairs(self, configuration: Configuration, blocks: tuple[str, ...]) -> list[_Pair]:
        pairs = []
        for certificate, key in configuration.names.pairs:
            found = configuration.last(certificate, blocks)
            if found is not None and found.value:
                pairs.append(_Pair(found, configuration.last(key, blocks)))
        return pairs

    def _chosen(self, pairs: list[_Pair], live: str, wanted: Wanted, shown: str) -> _Pair | None:
        if not pairs:
            return None
        for pair in pairs:
            if not pair.certificate.file or pair.key is None or not pair.key.file:
                raise InvalidRequest(
                    f"{pair.certificate.place} does not name a file for certificate and key",
                    remedy=f"Write there: {shown}.",
                )
        ours = [one for one in pairs if one.certificate.file == live]
        same_kind = [
            one
            for one in pairs
            if (leaf := leaf_at(self.host, one.certificate.file))
            and kind_of_key(leaf.public_key()) == wanted.key_kind
        ]
        for few in (ours, same_kind, pairs):
            if len(few) == 1:
                return few[0]
        places = " and ".join(one.certificate.place for one in same_kind or pairs)
        raise InvalidRequest(
            f"{len(pairs)} certificates are configured ({places}), and it cannot be told which "
            f"the {wanted.key_kind} one replaces",
            remedy=f"Write {shown} in its place.",
        )

    def _configured(
        self, configuration: Configuration, pairs: list[_Pair], live: str
    ) -> tuple[Fingerprint, ...]:
        if self._ssl(configuration) == "no":
            return ()
        ordered = sorted(pairs, key=lambda one: one.certificate.file != live)
        leaves = (leaf_at(self.host, one.certificate.file) for one in ordered)
        return tuple(fingerprint(leaf) for leaf in leaves if leaf is not None)
