"""The https bindings of one IIS."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from blocks._target import is_ours, must_replace, must_take, object_name, short
from blocks.targets.iis.bindings import Binding, binding_of, find, must_be_ours_to_change
from blocks.targets.iis.failures import ADMINISTRATOR
from blocks.targets.iis.remoting import Command, Remoting, cmdlet
from blocks.targets.iis.store import Entry, Stores, thumbprint
from certrail.connectors import InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Conflict,
    ConnectorError,
    NotFound,
    PermissionRefused,
    Rejected,
)
from certrail.log import effect, logger, plain
from certrail.model import (
    Bundle,
    Fingerprint,
    Site,
    Staged,
    fingerprint,
    key_text,
    subject_names,
)
from certrail.words import counted
from certrail.x509.export import Format

LONGEST_NAME = 64
_BINDING = [
    "bindingInformation",
    "sslFlags",
    "certificateHash",
    "certificateStoreName",
    "ItemXPath",
]
_INETSTP = "HKLM:\\SOFTWARE\\Microsoft\\InetStp"
# Security identifiers are the same in every language ("Well-known SIDs").
_ADMINISTRATORS = "S-1-5-32-544"
_ELEVATED = {"S-1-16-12288", "S-1-16-16384"}


class IisTarget(InstallTarget):
    """One IIS."""

    traits: ClassVar[Traits] = Traits(
        restores_by="the binding is pointed at the old certificate again, which stays in its "
        "store until the new one has passed its test",
        longest_name=LONGEST_NAME,
    )

    def __init__(
        self,
        remote: Remoting,
        *,
        store: str = "WebHosting",
        form: Format = Format.PKCS12,
        exportable: bool = False,
    ) -> None:
        self._remote = remote
        self._label = remote.label
        self._stores = Stores(remote)
        self._store = store
        self._form = form
        self._exportable = exportable
        self._loaded = False

    def check(self) -> str:
        self._must_be_administrator()
        self._load()
        (row, *_) = self._remote.run(
            cmdlet("Get-ItemProperty", LiteralPath=_INETSTP),
            cmdlet("Select-Object", Property=["VersionString"]),
        ) or [{}]
        version = plain(row.get("VersionString") or "of unknown version")[:40]
        return f"IIS {version}, {counted(len(self._bindings()), 'https binding')}"

    def sites(self) -> Iterator[Site]:
        seen: dict[tuple[str, str], Entry | None] = {}
        for one in self._bindings():
            place = (one.store, one.thumbprint)
            if one.thumbprint and place not in seen:
                seen[place] = self._stores.read(*place)
            entry = seen.get(place)
            names = subject_names(entry.certificate) if entry else ()
            yield Site(
                one.id,
                (one.host,) if one.host else names,
                (f"{one.address}:{one.port}",),
                tls=bool(one.thumbprint),
                fingerprint=fingerprint(entry.certificate) if entry else None,
            )

    def serving(self, site: Site) -> Fingerprint | None:
        return self._fingerprint(find(self._bindings(), site.id, self._label))

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        self._must_take(bundle)
        bindings = self._bindings()
        binding = find(bindings, site.id, self._label)
        leaf, new = bundle.chain.leaf, bundle.chain.fingerprint
        must_be_ours_to_change(binding, bindings, leaf, self._label)
        present = self._fingerprint(binding)
        must_replace(present, replaces, new, binding.id, self._label)
        name = self._called(binding, new)
        self._stores.add_issuers(bundle.chain)
        self._put(bundle, name)
        effect("target.stage", connector=self._label, binding=binding.id, name=name)
        others = [
            one.site for one in bindings if one.shared == binding.shared and one.id != binding.id
        ]
        shared = f", and with it {', '.join(others)}" if others else ""
        return Staged(
            site.id,
            new,
            replaces or present,
            f"IIS: {binding.id}{shared} gets {key_text(leaf)} as {name}",
            {
                "name": name,
                "new": {"thumbprint": thumbprint(leaf), "store": self._store},
                "old": {"thumbprint": binding.thumbprint, "store": binding.store},
            },
        )

    def _must_take(self, bundle: Bundle) -> None:
        must_take(bundle, self.traits, "IIS")

    def _called(self, binding: Binding, new: Fingerprint) -> str:
        """Return the friendly name of a certificate for *binding*."""
        return object_name(binding.host or binding.site, new, LONGEST_NAME)

    def _put(self, bundle: Bundle, name: str) -> None:
        """Put the certificate into the store, with its key."""
        self._stores.add(self._store, bundle, name, self._form, exportable=self._exportable)

    def activate(self, staged: Staged) -> str:
        new, old = staged.data["new"], staged.data["old"]
        binding = self._binding(staged)
        if binding.thumbprint == new["thumbprint"]:
            return f"IIS: {short(staged.fingerprint)} was live already, nothing changed"
        if binding.thumbprint != old["thumbprint"]:
            raise Conflict(
                f"{self._label}: {binding.id} has another certificate than when this one was "
                "staged",
                connector=self._label,
            )
        try:
            self._point_at(binding, new)
        except (Rejected, NotFound) as exc:
            self._put_back(staged, old)
            raise ActivationRefused(
                f"IIS refused the certificate: {exc}",
                remedy="Look whether the certificate and its key are in the store "
                f"LocalMachine\\{self._store} and no policy removes them; then retry: no new "
                "order is made.",
            ) from exc
        present = self._binding(staged)
        if present.thumbprint != new["thumbprint"]:
            raise ActivationRefused(
                f"IIS took the change of {binding.id}, but it has "
                f"{present.thumbprint or 'no certificate'}",
                remedy="Look at the binding in IIS Manager and who else changes it.",
            )
        effect("target.activate", connector=self._label, binding=binding.id)
        return f"IIS: {binding.id} has {staged.data['name']}, read back"

    def restore(self, staged: Staged) -> str:
        new, old = staged.data["new"], staged.data["old"]
        binding = self._binding(staged)
        if binding.thumbprint == old["thumbprint"]:
            return "IIS: nothing to put back"
        if binding.thumbprint != new["thumbprint"]:
            raise Conflict(
                f"{self._label}: {binding.id} was changed by somebody else since",
                connector=self._label,
            )
        self._point_at(binding, old)
        effect("target.restore", connector=self._label, binding=binding.id)
        return f"IIS: {binding.id} has {old['thumbprint'] or 'no certificate'} again"

    def discard(self, staged: Staged) -> None:
        new, old = staged.data["new"], staged.data["old"]
        live = self._binding(staged).thumbprint == new["thumbprint"]
        gone = old if live else new
        self._stores.sweep(str(staged.data["name"]))
        if self.traits.key_on_device and not live:
            # A retry needs the key, which is nowhere else.
            return
        if not gone["thumbprint"] or gone["thumbprint"] in self._used():
            return
        entry = self._stores.read(gone["store"], gone["thumbprint"])
        # What somebody else put there is theirs to remove.
        if entry is not None and is_ours(entry.friendly_name):
            self._stores.remove(gone["store"], gone["thumbprint"])

    def _must_be_administrator(self) -> None:
        lines = self._remote.run(Command("whoami.exe", arguments=("/groups", "/fo", "csv", "/nh")))
        groups = {cell for line in csv.reader(map(str, lines)) for cell in line}
        if _ADMINISTRATORS not in groups or not groups & _ELEVATED:
            raise PermissionRefused(
                f"{self._label}: the account is no administrator of the machine",
                remedy=ADMINISTRATOR,
                connector=self._label,
            )

    def _load(self) -> None:
        if not self._loaded:
            # For the IIS: drive; the commands alone would load it by themselves.
            self._remote.run(cmdlet("Import-Module", Name="WebAdministration"))
            self._loaded = True

    def _bindings(self) -> Sequence[Binding]:
        self._load()
        rows = self._remote.run(
            cmdlet("Get-WebBinding", Protocol="https"),
            cmdlet("Select-Object", Property=_BINDING),
        )
        return [binding_of(row) for row in rows]

    def _binding(self, staged: Staged) -> Binding:
        return find(self._bindings(), staged.site, self._label)

    def _fingerprint(self, binding: Binding) -> Fingerprint | None:
        if not binding.thumbprint:
            return None
        entry = self._stores.read(binding.store, binding.thumbprint)
        return fingerprint(entry.certificate) if entry else None

    def _point_at(self, binding: Binding, wanted: dict[str, str]) -> None:
        """Give the binding another certificate, if it still has the one that was seen."""
        if wanted["thumbprint"]:
            member, arguments = "AddSslCertificate", [wanted["thumbprint"], wanted["store"]]
        else:
            member, arguments = "RemoveSslCertificate", []
        self._remote.run(
            cmdlet("Get-WebBinding", Protocol="https"),
            _where("ItemXPath", binding.xpath),
            _where("bindingInformation", binding.information),
            _where("certificateHash", binding.thumbprint),
            cmdlet("ForEach-Object", MemberName=member, ArgumentList=arguments),
        )

    def _put_back(self, staged: Staged, old: dict[str, str]) -> None:
        """Undo half a change: a method of IIS may have removed one before adding the other."""
        try:
            binding = self._binding(staged)
            if not binding.thumbprint and old["thumbprint"]:
                self._point_at(binding, old)
        except ConnectorError as exc:
            logger.warning("iis.put_back failed: %s", exc)

    def _used(self) -> set[str]:
        """Return the thumbprints of everything that HTTP.sys serves, of IIS or not."""
        rows: list[Any] = self._remote.run(
            cmdlet("Get-ChildItem", Path="IIS:\\SslBindings"),
            cmdlet("Select-Object", Property=["Thumbprint"]),
        )
        bound = {str(row["Thumbprint"]).upper() for row in rows if row.get("Thumbprint")}
        return bound | {one.thumbprint for one in self._bindings()}


def _where(name: str, value: str) -> Command:
    return cmdlet("Where-Object", Property=name, EQ=True, Value=value)
