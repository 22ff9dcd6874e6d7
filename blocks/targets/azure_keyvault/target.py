"""Certificates with keys of ours, which are imported into an Azure Key Vault."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from cryptography.hazmat.primitives.serialization import pkcs12
from pydantic import BaseModel, Field

from blocks._keyvault import (
    CONTENT_TYPES,
    LONGEST_NAME,
    Certificate,
    Vault,
    import_of,
    key_kind,
    name_of,
    policy,
)
from blocks._target import must_replace, must_take, short
from certrail.connectors import InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
)
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site, Staged, key_text, subject_names
from certrail.remote import http

_STAGED = "certrail-staged-"
_LONGEST_SITE = LONGEST_NAME - len(_STAGED)
_FORMS = {kind: form for form, kind in CONTENT_TYPES.items()}
BEFORE = (
    "the version before is imported again as the newest one, if the vault gives out its key; a "
    "key that stays in the vault cannot come back that way"
)


class _Secret(BaseModel):
    value: str = Field(repr=False)
    contentType: str  # noqa: N815 - the API's own name


class KeyVaultTarget(InstallTarget):
    """One vault; keys are imported."""

    traits: ClassVar[Traits] = Traits(
        transactional=True, restores_by=BEFORE, longest_name=_LONGEST_SITE, serves=False
    )

    def __init__(self, vault: Vault, *, exportable: bool = True, form: str = "pkcs12") -> None:
        self._vault = vault
        self._label = vault.label
        self._exportable = exportable
        self._form = form

    def check(self) -> str:
        return self._vault.check()

    def sites(self) -> Iterator[Site]:
        for name in self._vault.names():
            found = None if name.startswith(_STAGED) else self._vault.certificate(name)
            if found is not None:
                names = subject_names(found.leaf) if found.leaf is not None else ()
                yield Site(name, names, tls=True, fingerprint=found.fingerprint)

    def serving(self, site: Site) -> Fingerprint | None:
        found = self._vault.certificate(self._name(site))
        return found.fingerprint if found else None

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_take(bundle, self.traits, "Key Vault")
        name, new = self._name(site), bundle.chain.fingerprint
        now = self._vault.certificate(name)
        present = now.fingerprint if now else None
        must_replace(present, replaces, new, name, self._label)
        beside = f"{_STAGED}{name}"
        staged = self._vault.certificate(beside)
        if staged is None or staged.fingerprint != new:
            # Whatever consumers may have later, it is read once more from here.
            body = import_of(bundle, self._form, exportable=True)
            with naming("import"):
                staged = self._vault.import_certificate(beside, body)
        effect("target.stage", connector=self._label, name=beside, version=staged.version)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"Key Vault: {name} gets {key_text(bundle.chain.leaf)}",
            {
                "old": version_before(now, new),
                "version": staged.version,
                "kind": key_kind(bundle.chain.leaf),
            },
        )

    def activate(self, staged: Staged) -> str:
        name = staged.site
        now = self._vault.certificate(name)
        if now and now.fingerprint == staged.fingerprint:
            return f"Key Vault: {short(staged.fingerprint)} was the newest already"
        self._must_beversion_before(staged, now)
        version = self._import(name, f"{_STAGED}{name}", staged, str(staged.data["version"]))
        effect("target.activate", connector=self._label, name=name, version=version)
        return f"Key Vault: {name} has the new version {version}"

    def restore(self, staged: Staged) -> str:
        name, old = staged.site, str(staged.data["old"])
        now = self._vault.certificate(name)
        if now is None or now.fingerprint != staged.fingerprint:
            self._must_beversion_before(staged, now)
            return "Key Vault: nothing to put back"
        if not old:
            self._disable(name, now.version)
            return f"Key Vault: {name} is disabled, it was not there before"
        version = self._import(name, name, staged, old)
        effect("target.restore", connector=self._label, name=name, version=version)
        return f"Key Vault: {name} has the certificate before as the newest version {version}"

    def discard(self, staged: Staged) -> None:
        beside, version = f"{_STAGED}{staged.site}", str(staged.data["version"])
        found = self._vault.certificate(beside, version)
        if found is not None and found.attributes.enabled:
            # A version cannot be deleted by itself; disabled, nobody gets its key.
            self._disable(beside, version)

    def _name(self, site: Site) -> str:
        name, longest = name_of(site), self.traits.longest_name
        if len(name) > longest:
            raise InvalidRequest(
                f"the name {name[:40]}… is too long: {len(name)} of {longest} characters",
                remedy=f"Name the certificate with {longest} characters at the most: it is "
                "staged under a longer name.",
            )
        return name

    def _must_beversion_before(self, staged: Staged, now: Certificate | None) -> None:
        if now is not None and now.fingerprint not in (None, staged.replaces):
            raise Conflict(
                f"{self._label}: {staged.site} has the version {now.version}: somebody else "
                "changed it since this one was staged",
                connector=self._label,
            )

    def _import(self, name: str, source: str, staged: Staged, version: str) -> str:
        """Make *version* of *source* the newest one of *name*; return its id."""
        with naming("get for secrets"):
            reply = self._vault.call("GET", f"/secrets/{source}/{version}")
        secret = http.json_of(reply, _Secret)
        form = _FORMS.get(secret.contentType, "")
        if not form or not _has_key(secret.value, form):
            raise InvalidRequest(
                f"{self._label}: the vault does not give out the key of {source}, version "
                f"{version}, so it cannot become the newest one again",
                remedy="Renew the certificate, or set `exportable: true` for the next ones.",
            )
        found = self._vault.certificate(source, version)
        if found is None or found.leaf is None:
            raise NotFound(f"{self._label}: {source} has no version {version}")
        body = {
            "value": secret.value,
            "policy": policy(key_kind(found.leaf), form, self._exportable),
        }
        try:
            with naming("import"):
                return self._vault.import_certificate(name, body).version
        except Rejected as exc:
            raise refused(exc) from exc

    def _disable(self, name: str, version: str) -> None:
        with naming("update"):
            self._vault.call(
                "PATCH",
                f"/certificates/{name}/{version}",
                json={"attributes": {"enabled": False}},
            )


def version_before(now: Certificate | None, new: Fingerprint) -> str:
    """Return the version to go back to, "" for none."""
    return now.version if now and now.fingerprint not in (None, new) else ""


def _has_key(value: str, form: str) -> bool:
    """Return whether a secret holds a private key: one that stays in the vault is left out."""
    if form == "pem":
        return "PRIVATE KEY-----" in value
    try:
        store = pkcs12.load_pkcs12(base64.b64decode(value, validate=True), None)
    except (ValueError, binascii.Error):
        return False
    return store.key is not None


def refused(exc: Rejected | NotFound) -> ActivationRefused:
    """Return the error for a certificate that the vault does not take."""
    return ActivationRefused(
        f"Key Vault refused the certificate: {plain(exc)}",
        remedy="Look at the certificate's policy in the vault. Then retry, no new order is made.",
    )


@contextmanager
def naming(permission: str) -> Iterator[None]:
    """Name the permission that was missing."""
    try:
        yield
    except PermissionRefused as exc:
        what = permission if "for" in permission else f"{permission} for certificates"
        exc.remedy = f"Give the application the permission {what} in the vault."
        raise
