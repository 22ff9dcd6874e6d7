"""Install certificates on any server that reads them from files."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator
from datetime import timedelta

from cryptography import x509

from certrail.connectors import Host, InstallTarget, MakesKeyFiles
from certrail.errors import Conflict, InvalidRequest, NotFound
from certrail.log import effect, plain
from certrail.model import (
    UNREADABLE,
    Bundle,
    Csr,
    Fingerprint,
    Site,
    Staged,
    SubjectSpec,
    fingerprint,
)
from certrail.servers.command.settings import CommandSettings
from certrail.servers.plan import Plan
from certrail.servers.transaction import State, Transaction
from certrail.servers.versions import Versions, slug, version_of
from certrail.words import counted, served_again
from certrail.x509.chain import must_be_installable

_SERVER = "the server"
_LONGEST = 600


class _Control:
    """The two commands, as the transaction asks for them."""

    def __init__(self, host: Host, settings: CommandSettings) -> None:
        self._host = host
        self._settings = settings
        self.seconds = 0.0

    def test(self) -> str:
        """Return "" if the server accepts its configuration, else its own words."""
        return self._words(self._settings.test)

    def reload(self) -> str:
        """Make the server read its files; "" once the command has said so."""
        started = time.monotonic()
        words = self._words(self._settings.reload)
        self.seconds = time.monotonic() - started
        return words

    def _words(self, argv: tuple[str, ...]) -> str:
        if not argv:
            return ""
        result = self._host.run(argv, timeout=timedelta(seconds=self._settings.timeout))
        if result.exit_code == 0:
            return ""
        return f"{argv[0]}: {plain(result.text)[:_LONGEST] or f'exit code {result.exit_code}'}"


class CommandTarget(InstallTarget, MakesKeyFiles):
    """Files in versions, a link that says which one is live, and two commands."""

    def __init__(self, host: Host, settings: CommandSettings) -> None:
        self._host = host
        self._settings = settings
        self._control = _Control(host, settings)
        self.keeps_keys = not settings.combined

    def check(self) -> str:
        words = self._control.test()
        said = words or ("accepts its configuration" if self._settings.test else "has no test")
        return f"{self._settings.directory} on {self._host.name}: the server {said}"

    def sites(self) -> Iterator[Site]:
        """List the places that have a folder; nothing else is known of such a server."""
        try:
            names = self._host.list_directory(self._settings.directory)
        except NotFound:
            return
        for name in names:
            site = Site(id=f"{name}@*", names=(name,), settings={"site": name})
            yield Site(
                id=site.id,
                names=site.names,
                tls=True,
                fingerprint=self.serving(site),
                settings=site.settings,
            )

    def serving(self, site: Site) -> Fingerprint | None:
        return self._live(self._versions(site))

    def _live(self, versions: Versions) -> Fingerprint | None:
        path = versions.live_combined if self._settings.combined else versions.live_chain
        try:
            return fingerprint(x509.load_pem_x509_certificate(self._host.read_file(path)))
        except (NotFound, *UNREADABLE):
            return None

    def plan(self, site: Site, bundle: Bundle) -> Plan:
        """Return what installing *bundle* would change: no configuration, ever."""
        directory = self._versions(site).directory
        return Plan(directory, directory, {}, {}, 0, 0)

    def make_csr(self, site: Site, subject: SubjectSpec, reference: str) -> Csr:
        return self._versions(site).make_csr(subject, reference)

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_be_installable(bundle)
        if bundle.key is None and self._settings.combined:
            raise InvalidRequest(
                "this server needs the private key, and the certificate came without one",
                remedy="Let Certrail make the key: choose an algorithm in the profile.",
            )
        if words := self._control.test():
            raise InvalidRequest(
                f"the server on {self._host.name} refuses its configuration as it is, before "
                f"anything was changed: {words}",
                remedy="Correct it until the `test` command accepts it, then retry.",
            )
        now, new = self.serving(site), bundle.chain.fingerprint
        if replaces is not None and now not in (replaces, new):
            raise Conflict(
                f"{site.id} has {now[:16] if now else 'no certificate'}, not {replaces[:16]}",
                connector=self._host.name,
            )
        versions = self._versions(site)
        versions.stage(bundle)
        files = 1 if self._settings.combined else 2
        return Staged(
            site=site.id,
            fingerprint=new,
            replaces=replaces or now,
            summary=counted(files, "file"),
            data={"directory": versions.directory},
        )

    def activate(self, staged: Staged) -> str:
        transaction, versions = self._transaction(staged)
        Transaction.begin_again(self._host, versions, server=_SERVER)
        if versions.live() == version_of(staged.fingerprint):
            return f"{staged.fingerprint[:16]}… was live already, nothing changed"
        now = self._live(versions)
        if now != staged.replaces:
            raise Conflict(
                f"{staged.site} has {now[:16] if now else 'no certificate'}: another certificate "
                "was installed since this one was staged",
                connector=self._host.name,
            )
        transaction.switch([], self._control)
        effect("site.activate", host=self._host.name, site=staged.site)
        return f"{staged.summary}, {self._told()}"

    def restore(self, staged: Staged) -> str:
        transaction, _ = self._transaction(staged)
        if not transaction.restore(self._control):
            return "nothing to put back"
        effect("site.restore", host=self._host.name, site=staged.site)
        return f"{served_again(staged.replaces)}, {self._told()}"

    def discard(self, staged: Staged) -> None:
        transaction, versions = self._transaction(staged)
        if transaction.state() is State.PREPARED:
            transaction.restore(self._control)
        version = version_of(staged.fingerprint)
        if versions.live() == version:
            for old in versions.prune(self._settings.keep_versions):
                Transaction(self._host, versions, old, server=_SERVER).forget()
            return
        transaction.forget()
        versions.remove(version)

    def _told(self) -> str:
        told = ["configuration tested"] if self._settings.test else []
        if self._settings.reload:
            told.append(f"reloaded in {self._control.seconds:.1f} s")
        else:
            told.append("the server takes changed files by itself")
        return ", ".join(told)

    def _versions(self, site: Site) -> Versions:
        name = str(site.settings.get("site", "")) or self._settings.site
        listen = str(site.settings.get("listen", "") or "")
        if not name:
            raise InvalidRequest(
                "no site given", remedy="Set `site` of the endpoint's server to a name."
            )
        place = slug(f"{name}@{listen}" if listen else name)
        return self._versions_in(posixpath.join(self._settings.directory, place))

    def _versions_in(self, directory: str) -> Versions:
        return Versions(
            self._host,
            directory,
            key_file=self._settings.key_file,
            combined=self._settings.combined,
        )

    def _transaction(self, staged: Staged) -> tuple[Transaction, Versions]:
        directory = str(staged.data["directory"])
        if posixpath.dirname(directory) != self._settings.directory:
            raise InvalidRequest(
                f"{staged.site} was staged in {directory}, outside {self._settings.directory}",
                remedy="Stage it again: `directory` of the endpoint's server has changed.",
            )
        versions = self._versions_in(directory)
        version = version_of(staged.fingerprint)
        return Transaction(self._host, versions, version, server=_SERVER), versions
