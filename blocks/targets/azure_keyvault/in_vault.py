"""Certificates whose keys an Azure Key Vault makes and keeps."""

from __future__ import annotations

import base64
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel

from blocks._keyvault import LONGEST_NAME, Certificate, name_of, policy
from blocks._target import must_replace, short
from blocks.targets.azure_keyvault.target import (
    BEFORE,
    KeyVaultTarget,
    naming,
    refused,
    version_before,
)
from certrail.connectors import HoldsKey, Traits
from certrail.errors import Conflict, InvalidRequest, NotFound, Rejected, UnexpectedReply
from certrail.log import effect
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
)
from certrail.names import parse_names
from certrail.remote import http
from certrail.x509.chain import must_be_installable

_LONGEST_COMMON_NAME = 64
_KINDS: dict[KeyAlgorithm, dict[str, Any]] = {
    KeyAlgorithm.ECDSA_P256: {"kty": "EC", "crv": "P-256"},
    KeyAlgorithm.ECDSA_P384: {"kty": "EC", "crv": "P-384"},
    KeyAlgorithm.RSA_2048: {"kty": "RSA", "key_size": 2048},
    KeyAlgorithm.RSA_3072: {"kty": "RSA", "key_size": 3072},
    KeyAlgorithm.RSA_4096: {"kty": "RSA", "key_size": 4096},
}


class _Operation(BaseModel):
    status: str
    csr: str = ""
    issuer: dict[str, Any] = {}


class KeyInVaultTarget(KeyVaultTarget, HoldsKey):
    """One vault, which makes the keys itself."""

    traits: ClassVar[Traits] = Traits(
        key_on_device=True,
        transactional=True,
        restores_by=BEFORE,
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
        with naming("create"):
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
            {"old": version_before(now, new), "x5c": chain},
        )

    def activate(self, staged: Staged) -> str:
        name = staged.site
        now = self._vault.certificate(name)
        if now and now.fingerprint == staged.fingerprint:
            return f"Key Vault: {short(staged.fingerprint)} was the newest already"
        self._must_beversion_before(staged, now)
        body = {"x5c": list(staged.data["x5c"])}
        try:
            with naming("create"):
                reply = self._vault.call("POST", f"/certificates/{name}/pending/merge", json=body)
        except (Rejected, NotFound) as exc:
            raise refused(exc) from exc
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
