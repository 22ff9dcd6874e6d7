"""Install certificates on HAProxy."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from certrail.connectors import Host, InstallTarget
from certrail.errors import ActivationRefused, Conflict, InvalidRequest
from certrail.log import effect
from certrail.model import Bundle, Fingerprint, Site, Staged, key_text, subject_names
from certrail.servers.haproxy.config import Configuration, read_configuration
from certrail.servers.haproxy.control import HaproxyControl
from certrail.servers.haproxy.select import Selection, plan_edit, select, serving
from certrail.servers.haproxy.settings import HaproxySettings
from certrail.servers.plan import Plan
from certrail.servers.splice import Splice, replacements, splice
from certrail.servers.transaction import FileChange, State, Transaction
from certrail.servers.versions import Versions, slug, version_of
from certrail.x509.chain import must_be_installable


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    listen: str
    versions: Versions
    configuration: Configuration
    selection: Selection

    @property
    def serving(self) -> Fingerprint | None:
        return serving(self.configuration, self.selection)


class HaproxyTarget(InstallTarget):
    """One HAProxy on one host, run in master-worker mode.

    Certificate and key are one file, in versions of our own; the ``bind`` line
    names the live one. Certificates in directories and lists are left alone.
    """

    def __init__(self, host: Host, settings: HaproxySettings) -> None:
        self._host = host
        self._settings = settings
        self._control = HaproxyControl(host, settings)

    def check(self) -> str:
        version = self._control.version()
        count = sum(bind.tls for bind in self._read().binds)
        return f"{version} on {self._host.name}, {self._settings.config}: {count} TLS bind lines"

    def sites(self) -> Iterator[Site]:
        configuration = self._read()
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

    def serving(self, site: Site) -> Fingerprint | None:
        return self._place(site).serving

    def plan(self, site: Site, bundle: Bundle) -> Plan:
        """Return what installing *bundle* would change; nothing is changed.

        Raises:
            InvalidRequest: the configuration cannot be changed safely.
        """
        leaf = bundle.chain.leaf
        place = self._place(site, key=key_text(leaf).split(" ")[0])
        edit = self._edit(place, set(subject_names(leaf)))
        path, data = place.configuration.path, place.configuration.data
        added = sum(one.start == one.end for one in edit)
        return Plan(
            place.selection.place,
            place.versions.directory,
            {path: data} if edit else {},
            {path: splice(data, edit)} if edit else {},
            len(edit) - added,
            added,
        )

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_be_installable(bundle)
        if bundle.key is None:
            raise InvalidRequest(
                "HAProxy needs the private key, and this certificate came without one",
                remedy="Let Certrail make the key: choose an algorithm in the profile.",
            )
        if words := self._control.test():
            raise ActivationRefused(
                f"HAProxy on {self._host.name} refuses its configuration as it is, "
                f"before anything was changed: {words}",
                remedy="Correct it until `haproxy -c` accepts it, then retry.",
            )
        leaf = bundle.chain.leaf
        new = bundle.chain.fingerprint
        key = key_text(leaf).split(" ")[0]
        place = self._place(site, key=key)
        now = place.serving
        if replaces is not None and now not in (replaces, new):
            raise Conflict(
                f"{site.id} is configured with {_short(now)}, not with {_short(replaces)}",
                connector=self._host.name,
            )
        names = set(subject_names(leaf))
        edit = self._edit(place, names)
        version = place.versions.stage(bundle)
        return Staged(
            site=site.id,
            fingerprint=new,
            replaces=replaces or now,
            summary=f"HAProxy: {_summary(edit)} ({key_text(leaf)} for {place.selection.place})",
            data={
                "site": place.name,
                "listen": place.listen,
                "directory": place.versions.directory,
                "version": version,
                "key": key,
                "names": sorted(names),
                "configured": now or "",
            },
        )

    def activate(self, staged: Staged) -> str:
        transaction, versions = self._transaction(staged)
        Transaction.begin_again(self._host, versions, server="HAProxy")
        place = self._place(
            Site(staged.site, settings=dict(staged.data)), key=str(staged.data["key"])
        )
        edit = self._edit(place, set(staged.data["names"]))
        if versions.live() == version_of(staged.fingerprint) and not edit:
            return f"HAProxy: {_short(staged.fingerprint)} was live already, nothing changed"
        now = place.serving
        if now and now not in (staged.data["configured"], staged.fingerprint):
            raise Conflict(
                f"{staged.site} is configured with {_short(now)}: another certificate was "
                "installed since this one was staged",
                connector=self._host.name,
            )
        data = place.configuration.data
        changes = (
            [
                FileChange(
                    self._host.real_path(place.configuration.path),
                    data,
                    splice(data, edit),
                    replacements(data, edit),
                )
            ]
            if edit
            else []
        )
        transaction.switch(changes, self._control)
        effect("site.activate", host=self._host.name, site=staged.site)
        return (
            f"HAProxy: {_summary(edit)}, configuration tested, "
            f"reloaded in {self._control.reload_seconds:.1f} s"
        )

    def restore(self, staged: Staged) -> str:
        transaction, _ = self._transaction(staged)
        if not transaction.restore(self._control):
            return "HAProxy: nothing to put back"
        effect("site.restore", host=self._host.name, site=staged.site)
        return (
            f"HAProxy: {_short(staged.replaces)} put back, configuration tested, "
            f"reloaded in {self._control.reload_seconds:.1f} s"
        )

    def discard(self, staged: Staged) -> None:
        transaction, versions = self._transaction(staged)
        if transaction.state() is State.PREPARED:
            transaction.restore(self._control)
        version = version_of(staged.fingerprint)
        if versions.live() == version:
            for old in versions.prune(self._settings.keep_versions):
                Transaction(self._host, versions, old, server="HAProxy").forget()
            return
        transaction.forget()
        versions.remove(version)

    def _read(self) -> Configuration:
        return read_configuration(self._host, self._settings.config)

    def _place(self, site: Site, *, key: str = "") -> _Place:
        name = str(site.settings.get("site", self._settings.site)).lower()
        if not name:
            raise InvalidRequest(
                "no site given", remedy="Set `site` of the endpoint's server to the server name."
            )
        listen = str(site.settings.get("listen", self._settings.listen))
        configuration = self._read()
        versions = self._versions(name, listen)
        selection = select(configuration, name, listen, live=versions.live_combined, key=key)
        return _Place(name, listen, versions, configuration, selection)

    def _edit(self, place: _Place, names: set[str]) -> tuple[Splice, ...]:
        return plan_edit(
            place.configuration, place.selection, place.name, place.versions.live_combined, names
        )

    def _versions(self, name: str, listen: str) -> Versions:
        directory = posixpath.join(self._settings.base, slug(f"{name}@{listen}".rstrip("@")))
        return self._versions_in(directory)

    def _versions_in(self, directory: str) -> Versions:
        return Versions(self._host, directory, key_file=self._settings.key_file, combined=True)

    def _transaction(self, staged: Staged) -> tuple[Transaction, Versions]:
        directory = str(staged.data["directory"])
        inside = posixpath.dirname(directory) == self._settings.base
        if not inside or posixpath.normpath(directory) != directory:
            raise InvalidRequest(
                f"{staged.site} was staged in {directory}, outside {self._settings.base}",
                remedy="Stage it again: `directory` of the endpoint's server has changed.",
            )
        versions = self._versions_in(directory)
        version = version_of(staged.fingerprint)
        return Transaction(self._host, versions, version, server="HAProxy"), versions

    def _needed_address(
        self, configuration: Configuration, name: str, addresses: tuple[str, ...]
    ) -> str:
        """Return the address without which *name* would not be found, "" if it is not needed."""
        for listen in ("", *addresses):
            live = self._versions(name, listen).live_combined
            try:
                select(configuration, name, listen, live=live)
            except InvalidRequest:
                continue
            return listen
        return addresses[0]


def _summary(edit: tuple[Splice, ...]) -> str:
    if not edit:
        return "certificate version switched, no configuration changed"
    added = sum(one.start == one.end for one in edit)
    what = "added" if added else "replaced"
    return f"{len(edit)} crt {what} in haproxy.cfg"


def _short(found: Fingerprint | str | None) -> str:
    return f"{found[:16]}…" if found else "no certificate"
