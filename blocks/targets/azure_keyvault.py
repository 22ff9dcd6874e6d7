"""A certificate in Azure Key Vault that others serve: App Service, Application Gateway, AKS.

Consumers ask for no version and get the newest one, so a new version is the switch, and
there is no other: versions cannot change or be chosen as current, and a newest version
that is disabled is refused to consumers instead of skipped. Therefore

* a certificate with a key of ours is staged as another object of the vault
  (``certrail-staged-NAME``), and imported from there;
* a key that is made in the vault waits as a pending certificate, which nobody sees until
  the certificate is merged;
* the one before comes back by being imported again as the newest version, which needs a
  key that the vault gives out.

Azure Key Vault REST reference, API version 7.4: "Create Certificate", "Get Certificate
Operation", "Merge Certificate", "Import Certificate", "Update Certificate", "Get Secret";
"Monitor and manage certificate creation"; read November 2026. Tried against an imitation
made from these that Azure's own client works with; Azure itself was not at hand.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from pydantic import BaseModel, Field

from blocks._base import TargetBlock
from blocks._keyvault import (
    CONTENT_TYPES,
    LONGEST_NAME,
    Certificate,
    KeyVaultAccess,
    Vault,
    import_of,
    key_kind,
    name_of,
    policy,
)
from blocks._target import must_replace, must_take, short
from certrail.connectors import HoldsKey, InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.log import effect, plain
from certrail.model import (
    UNREADABLE,
    Bundle,
    Csr,
    Fingerprint,
    KeyAlgorithm,
    Site,
    Staged,
    SubjectSpec,
    key_text,
    subject_names,
)
from certrail.names import parse_names
from certrail.remote import http
from certrail.x509.chain import must_be_installable

_STAGED = "certrail-staged-"
_LONGEST_SITE = LONGEST_NAME - len(_STAGED)
_LONGEST_COMMON_NAME = 64
_KINDS: dict[KeyAlgorithm, dict[str, Any]] = {
    KeyAlgorithm.ECDSA_P256: {"kty": "EC", "crv": "P-256"},
    KeyAlgorithm.ECDSA_P384: {"kty": "EC", "crv": "P-384"},
    KeyAlgorithm.RSA_2048: {"kty": "RSA", "key_size": 2048},
    KeyAlgorithm.RSA_3072: {"kty": "RSA", "key_size": 3072},
    KeyAlgorithm.RSA_4096: {"kty": "RSA", "key_size": 4096},
}
_FORMS = {kind: form for form, kind in CONTENT_TYPES.items()}
_BEFORE = (
    "the version before is imported again as the newest one, if the vault gives out its key; a "
    "key that stays in the vault cannot come back that way"
)


class AzureKeyVaultTarget(KeyVaultAccess, TargetBlock):
    """Renew certificates of an Azure Key Vault that others serve from there.

    The site is the certificate's name. With `key_in_vault` the vault makes the key, and
    it never leaves it. Give the endpoint an `address` of what serves the certificate, and
    the installation is tested there; without one, it is read back from the vault.
    """

    _block_type_name = "Certrail target: Azure Key Vault"
    _block_type_slug = "target-azure-keyvault"

    key_in_vault: bool = Field(
        default=False, description="Let the vault make the key instead of importing one."
    )
    exportable: bool = Field(
        default=True,
        description="Whether the vault gives out the private key; App Service, Application "
        "Gateway and going back to the version before need that.",
    )
    format: Literal["pkcs12", "pem"] = Field(
        default="pkcs12", description="How consumers get it as a secret; App Service wants pkcs12."
    )

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the vault."""
        kind = KeyInVaultTarget if self.key_in_vault else KeyVaultTarget
        with self.opened(self.label) as vault:
            yield kind(vault, exportable=self.exportable, form=self.format)


class _Secret(BaseModel):
    value: str = Field(repr=False)
    contentType: str  # noqa: N815 - the API's own name


class _Operation(BaseModel):
    status: str
    csr: str = ""
    issuer: dict[str, Any] = {}


class KeyVaultTarget(InstallTarget):
    """One vault; keys are imported."""

    traits: ClassVar[Traits] = Traits(
        transactional=True, restores_by=_BEFORE, longest_name=_LONGEST_SITE, serves=False
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
            with _named("import"):
                staged = self._vault.import_certificate(beside, body)
        effect("target.stage", connector=self._label, name=beside, version=staged.version)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"Key Vault: {name} gets {key_text(bundle.chain.leaf)}",
            {"old": _old(now, new), "version": staged.version, "kind": key_kind(bundle.chain.leaf)},
        )

    def activate(self, staged: Staged) -> str:
        name = staged.site
        now = self._vault.certificate(name)
        if now and now.fingerprint == staged.fingerprint:
            return f"Key Vault: {short(staged.fingerprint)} was the newest already"
        self._must_be_old(staged, now)
        version = self._import(name, f"{_STAGED}{name}", staged, str(staged.data["version"]))
        effect("target.activate", connector=self._label, name=name, version=version)
        return f"Key Vault: {name} has the new version {version}"

    def restore(self, staged: Staged) -> str:
        name, old = staged.site, str(staged.data["old"])
        now = self._vault.certificate(name)
        if now is None or now.fingerprint != staged.fingerprint:
            self._must_be_old(staged, now)
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

    def _must_be_old(self, staged: Staged, now: Certificate | None) -> None:
        if now is not None and now.fingerprint not in (None, staged.replaces):
            raise Conflict(
                f"{self._label}: {staged.site} has the version {now.version}: somebody else "
                "changed it since this one was staged",
                connector=self._label,
            )

    def _import(self, name: str, source: str, staged: Staged, version: str) -> str:
        """Make *version* of *source* the newest one of *name*; return its id."""
        with _named("get for secrets"):
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
            with _named("import"):
                return self._vault.import_certificate(name, body).version
        except Rejected as exc:
            raise _refused(exc) from exc

    def _disable(self, name: str, version: str) -> None:
        with _named("update"):
            self._vault.call(
                "PATCH",
                f"/certificates/{name}/{version}",
                json={"attributes": {"enabled": False}},
            )


class KeyInVaultTarget(KeyVaultTarget, HoldsKey):
    """One vault, which makes the keys itself."""

    traits: ClassVar[Traits] = Traits(
        key_on_device=True,
        transactional=True,
        restores_by=_BEFORE,
        longest_name=LONGEST_NAME,
        serves=False,
    )

    def generate_csr(self, site: Site, subject: SubjectSpec) -> Csr:
        name = name_of(site)
        if addresses := [one.text for one in parse_names(subject.names) if one.is_ip]:
            raise InvalidRequest(
                f"Key Vault makes no requests for IP addresses: {', '.join(addresses)}",
                remedy="Leave them out, or set `key_in_vault: false`.",
            )
        pending = self._pending(name)
        if pending is not None and pending.status == "inProgress":
            return self._kept(name, pending, subject)
        short_enough = [one for one in subject.names if len(one) <= _LONGEST_COMMON_NAME]
        body = {
            "policy": {
                **policy(_KINDS[subject.algorithm], self._form, self._exportable),
                "x509_props": {
                    "subject": f"CN={short_enough[0]}" if short_enough else "CN=certrail",
                    "sans": {"dns_names": list(subject.names)},
                },
                # Nobody whom the vault knows: it waits for a certificate to be merged.
                "issuer": {"name": "Unknown"},
            }
        }
        with _named("create"):
            reply = self._vault.call("POST", f"/certificates/{name}/create", json=body)
        effect("keyvault.create", connector=self._label, name=name)
        return _csr_of(http.json_of(reply, _Operation), self._label)

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_be_installable(bundle)
        name, new = name_of(site), bundle.chain.fingerprint
        if bundle.key is not None:
            raise InvalidRequest(
                f"{self._label} keeps its keys in the vault, and this certificate has another one",
                remedy="Start a reissue, or set `key_in_vault: false`. Nothing was uploaded.",
            )
        now = self._vault.certificate(name)
        present = now.fingerprint if now else None
        must_replace(present, replaces, new, name, self._label)
        if present != new:
            self._must_fit(name, bundle)
        chain = [
            base64.b64encode(one.public_bytes(Encoding.DER)).decode()
            for one in bundle.chain.certificates
        ]
        return Staged(
            site.id,
            new,
            replaces or present,
            f"Key Vault: {name} gets {key_text(bundle.chain.leaf)} for the key that it made",
            {"old": _old(now, new), "x5c": chain},
        )

    def activate(self, staged: Staged) -> str:
        name = staged.site
        now = self._vault.certificate(name)
        if now and now.fingerprint == staged.fingerprint:
            return f"Key Vault: {short(staged.fingerprint)} was the newest already"
        self._must_be_old(staged, now)
        body = {"x5c": list(staged.data["x5c"])}
        try:
            with _named("create"):
                reply = self._vault.call("POST", f"/certificates/{name}/pending/merge", json=body)
        except (Rejected, NotFound) as exc:
            raise _refused(exc) from exc
        version = http.json_of(reply, Certificate).version
        effect("target.activate", connector=self._label, name=name, version=version)
        return f"Key Vault: merged with the key in the vault as {name}, version {version}"

    def discard(self, staged: Staged) -> None:
        """Leave what waits in the vault: without it there is no key for a retry."""

    def _pending(self, name: str) -> _Operation | None:
        reply = self._vault.call("GET", f"/certificates/{name}/pending", accept=(404,))
        return http.json_of(reply, _Operation) if reply.is_success else None

    def _kept(self, name: str, pending: _Operation, subject: SubjectSpec) -> Csr:
        """Return the request that waits already, if it is the one that is wanted."""
        csr = _csr_of(pending, self._label)
        found = csr.parsed
        names: set[str] = set()
        try:
            extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            names = set(extension.value.get_values_for_type(x509.DNSName))
        except x509.ExtensionNotFound:
            pass
        if names == set(subject.names) and _kind_of(found) == _KINDS[subject.algorithm]:
            return csr
        raise Conflict(
            f"{self._label}: {name} waits for a certificate for other names or another key",
            remedy="Somebody else, or an earlier request, began it. Delete the certificate "
            "operation in the vault if nobody needs it, then retry.",
            connector=self._label,
        )

    def _must_fit(self, name: str, bundle: Bundle) -> None:
        pending = self._pending(name)
        if pending is None or pending.status != "inProgress":
            raise InvalidRequest(
                f"{self._label}: the vault no longer has the key of this certificate",
                remedy="Start a reissue, which makes a new key.",
            )
        bundle.chain.must_answer(_csr_of(pending, self._label))


def _old(now: Certificate | None, new: Fingerprint) -> str:
    """Return the version to go back to, "" for none."""
    return now.version if now and now.fingerprint not in (None, new) else ""


def _csr_of(operation: _Operation, label: str) -> Csr:
    try:
        request = x509.load_der_x509_csr(base64.b64decode(operation.csr, validate=True))
    except UNREADABLE as exc:
        raise UnexpectedReply(f"{label}: a certificate operation without CSR") from exc
    return Csr(request.public_bytes(Encoding.PEM).decode())


def _kind_of(csr: x509.CertificateSigningRequest) -> dict[str, Any]:
    key = csr.public_key()
    curve = getattr(key, "curve", None)
    if curve is not None:
        names = {"secp256r1": "P-256", "secp384r1": "P-384"}
        return {"kty": "EC", "crv": names.get(curve.name, curve.name)}
    return {"kty": "RSA", "key_size": getattr(key, "key_size", 0)}


def _has_key(value: str, form: str) -> bool:
    """Return whether a secret holds a private key: one that stays in the vault is left out."""
    if form == "pem":
        return "PRIVATE KEY-----" in value
    try:
        store = pkcs12.load_pkcs12(base64.b64decode(value, validate=True), None)
    except (ValueError, binascii.Error):
        return False
    return store.key is not None


def _refused(exc: Rejected | NotFound) -> ActivationRefused:
    return ActivationRefused(
        f"Key Vault refused the certificate: {plain(exc)}",
        remedy="Look at the certificate's policy in the vault. Then retry, no new order is made.",
    )


@contextmanager
def _named(permission: str) -> Iterator[None]:
    """Name the permission that was missing."""
    try:
        yield
    except PermissionRefused as exc:
        what = permission if "for" in permission else f"{permission} for certificates"
        exc.remedy = f"Give the application the permission {what} in the vault."
        raise
