"""Install certificates on nginx."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from certrail.connectors import Host
from certrail.errors import ActivationRefused, Conflict, InvalidRequest
from certrail.model import (
    Bundle,
    Csr,
    Fingerprint,
    Site,
    Staged,
    SubjectSpec,
    key_text,
    subject_names,
)
from certrail.names import matches
from certrail.servers.change import Change
from certrail.servers.nginx.config import Configuration, ServerBlock, read_configuration
from certrail.servers.nginx.control import NginxControl
from certrail.servers.nginx.edit import Edit, plan_edit
from certrail.servers.nginx.match import Matcher
from certrail.servers.nginx.settings import NginxSettings
from certrail.servers.plan import Plan
from certrail.servers.splice import replacements
from certrail.servers.switched import SwitchedTarget
from certrail.servers.target import SITE_FIELDS, kind_of_algorithm, kind_of_key
from certrail.servers.transaction import FileChange, Transaction
from certrail.servers.versions import Versions, slug, version_of
from certrail.x509.chain import must_be_installable


class NginxTarget(SwitchedTarget):
    """One nginx on one host."""

    server = "nginx"
    test_command = "nginx -t"
    settings: NginxSettings
    control: NginxControl

    def __init__(self, host: Host, settings: NginxSettings) -> None:
        self.host = host
        self.settings = settings
        self.control = NginxControl(host, settings)
        self.group = f"nginx {settings.model_dump_json(exclude=SITE_FIELDS)}"

    def check(self) -> str:
        version = self.control.version()
        blocks = len(self._read().blocks)
        return f"{version} on {self.host.name}, {self.settings.config}: {blocks} server blocks"

    def sites(self) -> Iterator[Site]:
        configuration = self._read()
        configuration.read_leaves(pair for block in configuration.blocks for pair in block.pairs)
        matcher = Matcher(configuration)
        for block in configuration.blocks:
            found = _address_of(matcher, block)
            if found is None:
                # nginx never chooses it: its names are claimed by an earlier block.
                continue
            name, listen = found
            yield Site(
                id=site_id(name, listen),
                names=block.names,
                listens=tuple(dict.fromkeys(one.key for one in block.listens)),
                tls=configuration.serves_tls(block),
                fingerprint=self._configured(configuration, block),
                settings={"site": name, "listen": listen},
            )

    def serving(self, site: Site) -> Fingerprint | None:
        configuration = self._read()
        return self._configured(configuration, self._block(configuration, site))

    def plan(self, site: Site, bundle: Bundle) -> Plan:
        """Return what installing *bundle* would change; nothing is changed.

        Raises:
            InvalidRequest: the configuration cannot be changed safely.
        """
        kind = kind_of_key(bundle.chain.leaf.public_key())
        configuration = self._read()
        return self._plan(configuration, self._block(configuration, site), site, kind)[0]

    def make_csr(self, site: Site, subject: SubjectSpec, reference: str) -> Csr:
        configuration = self._read()
        block = self._block(configuration, site)
        plan, _ = self._plan(configuration, block, site, kind_of_algorithm(subject.algorithm))
        return self._versions(plan.directory).make_csr(subject, reference)

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_be_installable(bundle)
        if not self.is_sound:
            self.must_be_sound()
        configuration = self._read()
        block = self._block(configuration, site)
        leaf = bundle.chain.leaf
        new = bundle.chain.fingerprint
        configured = self._all_configured(configuration, block)
        if replaces is not None and not {replaces, new} & set(configured):
            raise Conflict(
                f"{site.id} is configured with {_short(configured)}, not with {replaces[:16]}…",
                connector=self.host.name,
            )
        kind = kind_of_key(leaf.public_key())
        plan, _ = self._plan(configuration, block, site, kind)
        self._must_not_strip_others(configuration, block, plan, set(subject_names(leaf)))
        versions = self._versions(plan.directory)
        version = versions.stage(bundle)
        return Staged(
            site=site.id,
            fingerprint=new,
            replaces=replaces or (configured[0] if configured else None),
            summary=f"nginx: {plan.summary} ({key_text(leaf)} for {block.place})",
            data={
                "site": self._site_name(site),
                "listen": self._site_listen(site),
                "directory": plan.directory,
                "version": version,
                "key_kind": kind,
                "configured": [str(one) for one in configured],
            },
        )

    @property
    def told(self) -> str:
        return f"configuration tested, reloaded in {self.control.reload_seconds:.1f} s"

    def _change(self, staged: Staged) -> tuple[Transaction, list[FileChange], str]:
        transaction, versions = self._transaction(staged)
        Transaction.begin_again(self.host, versions, server="nginx")
        version = version_of(staged.fingerprint)
        configuration = self._read()
        block = self._block_of(configuration, staged)
        site = Site(staged.site, settings=dict(staged.data))
        plan, edit = self._plan(configuration, block, site, str(staged.data["key_kind"]))
        if versions.live() == version and not plan.after:
            return transaction, [], ""
        configured = self._all_configured(configuration, block)
        expected = {*staged.data["configured"], staged.fingerprint}
        if configured and not set(configured) & expected:
            raise Conflict(
                f"{staged.site} is configured with {_short(configured)}: another certificate was "
                "installed since this one was staged",
                connector=self.host.name,
            )
        if plan.directory != versions.directory:
            raise ActivationRefused(
                f"the certificates of {staged.site} were rearranged since this one was staged, "
                f"so it belongs into {plan.directory} now",
                remedy="Retry: the certificate is staged again, no new order is made.",
            )
        changes = [
            FileChange(
                self.host.real_path(path),
                plan.before[path],
                after,
                replacements(plan.before[path], edit.splices[path]),
            )
            for path, after in plan.after.items()
        ]
        return transaction, changes, plan.summary

    def _read(self) -> Configuration:
        return read_configuration(self.host, self.settings.config)

    def _site_name(self, site: Site) -> str:
        name = str(site.settings.get("site", self.settings.site))
        if not name and "site" not in site.settings:
            raise InvalidRequest(
                "no site given", remedy="Set `site` of the endpoint's server to the server name."
            )
        return name

    def _site_listen(self, site: Site) -> str:
        return str(site.settings.get("listen", self.settings.listen))

    def _block(self, configuration: Configuration, site: Site) -> ServerBlock:
        name, listen = self._site_name(site), self._site_listen(site)
        matcher = Matcher(configuration)
        if listen and self.settings.enable_tls:
            # The listener asked for may be the one that is to be added.
            return matcher.named(name, listen) or matcher.match(name)
        return matcher.match(name, listen)

    def _block_of(self, configuration: Configuration, staged: Staged) -> ServerBlock:
        return self._block(configuration, Site(staged.site, settings=dict(staged.data)))

    def _versions(self, directory: str) -> Versions:
        return Versions(self.host, directory, key_file=self.settings.key_file)

    def _transaction(self, staged: Staged) -> tuple[Transaction, Versions]:
        directory = str(staged.data["directory"])
        inside = posixpath.dirname(directory) == self.settings.base
        if not inside or posixpath.normpath(directory) != directory:
            raise InvalidRequest(
                f"{staged.site} was staged in {directory}, outside {self.settings.base}",
                remedy="Stage it again: `directory` of the endpoint's server has changed.",
            )
        versions = self._versions(directory)
        version = version_of(staged.fingerprint)
        return Transaction(self.host, versions, version, server="nginx"), versions

    def _plan(
        self, configuration: Configuration, block: ServerBlock, site: Site, kind: str
    ) -> tuple[Plan, Edit]:
        versions = self._versions(self._directory(configuration, block, site, kind))
        wanted = Change(
            versions.live_chain,
            versions.live_key,
            kind,
            beside=self.settings.key_types == "add",
            enable_tls=self.settings.enable_tls,
            listen=self._site_listen(site),
        )
        edit = plan_edit(configuration, block, wanted)
        after = edit.changed(configuration)
        before = {path: configuration.reader.files[path].data for path in after}
        plan = Plan(block.place, versions.directory, before, after, edit.replaced, edit.added)
        return plan, edit

    def _directory(
        self, configuration: Configuration, block: ServerBlock, site: Site, kind: str
    ) -> str:
        """Return where this certificate is kept; of two kinds on one site, each has its own."""
        name, listen = self._site_name(site), self._site_listen(site)
        directory = posixpath.join(
            self.settings.base, slug(site_id(name, listen).removesuffix("@*"))
        )
        beside = f"{directory}.{kind.lower()}"
        full_name = configuration.reader.full_name
        present = {
            full_name(pair.certificate.arguments[0]): kind_of_key(leaf.public_key())
            for pair in block.own_pairs
            if (leaf := configuration.leaf(pair))
        }
        if self._versions(beside).live_chain in present:
            return beside
        others = [path for path, other in present.items() if other != kind]
        several = len(block.own_pairs) > 1 or (others and self.settings.key_types == "add")
        if several and self._versions(directory).live_chain in others:
            return beside
        return directory

    def _all_configured(
        self, configuration: Configuration, block: ServerBlock
    ) -> list[Fingerprint]:
        found = (configuration.fingerprint(pair) for pair in block.pairs)
        return [one for one in found if one is not None]

    def _configured(self, configuration: Configuration, block: ServerBlock) -> Fingerprint | None:
        """Return the certificate of ours if there is one, else the first."""
        full_name = configuration.reader.full_name
        ours = [
            pair
            for pair in block.pairs
            if full_name(pair.certificate.arguments[0]).startswith(f"{self.settings.base}/")
        ]
        for pair in (*ours, *block.pairs):
            found = configuration.fingerprint(pair)
            if found:
                return found
        return None

    def _must_not_strip_others(
        self, configuration: Configuration, block: ServerBlock, plan: Plan, names: set[str]
    ) -> None:
        """Refuse to switch a certificate that another server block uses for names of its own."""
        live = self._versions(plan.directory).live_chain
        for other in (*configuration.blocks, *configuration.others):
            if other is block:
                continue
            for pair in other.pairs:
                if configuration.reader.full_name(pair.certificate.arguments[0]) != live:
                    continue
                leaf = configuration.leaf(pair)
                had = [
                    name
                    for name in other.names
                    if leaf and any(matches(one, name) for one in subject_names(leaf))
                ]
                lost = [name for name in had if not any(matches(one, name) for one in names)]
                if lost:
                    raise InvalidRequest(
                        f"{pair.certificate.place} uses this site's certificate too, and the new "
                        f"one no longer covers {', '.join(lost)}",
                        remedy=f"Give the server block at {other.place} a certificate of its own, "
                        f"or add {', '.join(lost)} to the names of this one.",
                    )


def site_id(site: str, listen: str) -> str:
    """Return the stable id of a site: server name and address, ``*`` for any."""
    return f"{site}@{listen or '*'}"


def _address_of(matcher: Matcher, block: ServerBlock) -> tuple[str, str] | None:
    """Return the shortest name and address by which *block* is found again."""
    listens = dict.fromkeys(("", *(listen.key for listen in block.listens)))
    for listen in listens:
        for name in block.names or ("",):
            try:
                if matcher.match(name, listen) is block:
                    return name, listen
            except InvalidRequest:
                continue
    return None


def _short(fingerprints: list[Fingerprint]) -> str:
    return ", ".join(f"{one[:16]}…" for one in fingerprints) or "no certificate"
