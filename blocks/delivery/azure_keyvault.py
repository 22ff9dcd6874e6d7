"""A certificate in Azure Key Vault, imported through its REST API.

Every import is a new version of the certificate object; consumers that ask
for no version get the newest. The vault takes no condition, so a writer that
comes between our look and our import is only seen when it is read back.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar, Literal

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import BaseModel, Field, SecretStr

from blocks._base import DeliveryBlock, open_secret
from certrail.connectors import DeliveryTarget, Traits
from certrail.delivery.settings import ServerSettings
from certrail.errors import AuthenticationFailed, Conflict, InvalidRequest, Rejected
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site, fingerprint
from certrail.remote import http
from certrail.x509.export import Format, Part, export

_API_VERSION = "7.4"
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}\Z")
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_CONTENT_TYPES = {"pkcs12": "application/x-pkcs12", "pem": "application/x-pem-file"}


class AzureKeyVault(DeliveryBlock):
    """Store certificates in Azure Key Vault."""

    _block_type_name = "Certrail delivery: Azure Key Vault"
    _block_type_slug = "delivery-azure-keyvault"

    vault_url: str = Field(description="The vault, such as https://myvault.vault.azure.net.")
    tenant_id: str = Field(min_length=1, description="Directory (tenant) id of the application.")
    client_id: str = Field(min_length=1, description="Application (client) id.")
    client_secret: SecretStr = Field(
        description="A client secret of the application, or a reference to it."
    )
    authority_url: str = Field(
        default="https://login.microsoftonline.com",
        description="Where tokens come from; another one in national clouds.",
    )
    scope: str = Field(
        default="https://vault.azure.net/.default",
        description="Scope of the token; another one in national clouds.",
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) of both services; empty: system."
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds a call may take.")

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the vault; the token is got with the first call."""
        limits = {"ca_bundle": self.ca_bundle, "timeout": timedelta(seconds=self.timeout)}
        with (
            http.client(self.authority_url, **limits) as authority,  # type: ignore[arg-type]
            http.client(self.vault_url, **limits) as vault,  # type: ignore[arg-type]
        ):
            yield _KeyVaultDelivery(vault, authority, self, open_secret(self.client_secret))


class KeyVaultSettings(ServerSettings):
    """How the certificate is imported."""

    what: ClassVar[str] = "Azure Key Vault"

    format: Literal["pkcs12", "pem"] = Field(
        "pkcs12", description="How consumers get it as a secret; App Service wants pkcs12."
    )
    exportable: bool = Field(True, description="Whether the private key can be read back.")


class _Token(BaseModel):
    access_token: str = Field(repr=False, min_length=1)


class _Attributes(BaseModel):
    enabled: bool = True


class _Certificate(BaseModel):
    id: str
    cer: str
    attributes: _Attributes = _Attributes()


class _CertificateList(BaseModel):
    value: list[dict[str, Any]]


class _KeyVaultDelivery(DeliveryTarget):
    traits: ClassVar[Traits] = Traits(
        transactional=True, restores_by="the vault keeps every version", longest_name=127
    )

    def __init__(
        self, vault: httpx.Client, authority: httpx.Client, block: AzureKeyVault, secret: str
    ) -> None:
        self._vault = vault
        self._label = block.label
        # A closure, so that printing the object shows no secret.
        self._log_in: Callable[[], None] = lambda: _log_in(vault, authority, block, secret)

    def check(self) -> str:
        reply = self._call("GET", "/certificates", params={"maxresults": "1"})
        http.json_of(reply, _CertificateList)
        return f"{self._vault.base_url.host} lets us list certificates"

    def delivered(self, site: Site) -> Fingerprint | None:
        KeyVaultSettings.parse(site.settings)
        return self._present(_name(site))

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        settings, name = KeyVaultSettings.parse(site.settings), _name(site)
        body = _import_of(bundle, settings)
        if self._present(name) == bundle.chain.fingerprint:
            return f"the certificate {name} had it already"
        hide = tuple(body[field] for field in ("value", "pwd") if field in body)
        reply = self._call("POST", f"/certificates/{name}/import", json=body, hide=hide)
        version = plain(http.json_of(reply, _Certificate).id.rpartition("/")[2])
        effect("keyvault.deliver", connector=self._label, name=name, version=version)
        return f"the certificate {name}, version {version}"

    def _present(self, name: str) -> Fingerprint | None:
        reply = self._call("GET", f"/certificates/{name}/", accept=(404,))
        if not reply.is_success:
            http.json_of(reply, dict)
            return None
        found = http.json_of(reply, _Certificate)
        try:
            leaf = x509.load_der_x509_certificate(base64.b64decode(found.cer, validate=True))
        except (ValueError, binascii.Error):
            return None
        return fingerprint(leaf) if found.attributes.enabled else None

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        if "Authorization" not in self._vault.headers:
            self._log_in()
        params = {"api-version": _API_VERSION, **kwargs.pop("params", {})}
        try:
            return http.send(self._vault, self._label, method, path, params=params, **kwargs)
        except Conflict as exc:
            exc.remedy = (
                "A deleted certificate of this name may still be recoverable: recover or purge "
                "it in the vault, then retry."
            )
            raise


def _log_in(vault: httpx.Client, authority: httpx.Client, block: AzureKeyVault, key: str) -> None:
    """Get a token by the client credentials grant (RFC 6749 section 4.4)."""
    form = {
        "grant_type": "client_credentials",
        "client_id": block.client_id,
        "client_secret": key,
        "scope": block.scope,
    }
    path = f"/{block.tenant_id}/oauth2/v2.0/token"
    try:
        reply = http.send(authority, block.label, "POST", path, data=form, hide=(key,))
    except (Rejected, AuthenticationFailed) as exc:
        # Both 400 and 401 are used for wrong secrets, unknown applications and tenants.
        raise AuthenticationFailed(
            str(exc),
            remedy="Correct tenant_id, client_id and client_secret; a secret may have expired.",
            connector=block.label,
            code=exc.code,
        ) from exc
    vault.headers["Authorization"] = f"Bearer {http.json_of(reply, _Token).access_token}"


def _name(site: Site) -> str:
    if not _NAME.match(site.id):
        raise InvalidRequest(
            f"not a name that Key Vault takes: {plain(site.id)[:200]}",
            remedy="Set `site` to letters, digits and dashes, 127 at the most.",
        )
    return site.id


def _import_of(bundle: Bundle, settings: KeyVaultSettings) -> dict[str, Any]:
    body: dict[str, Any] = {
        "policy": {
            "key_props": {
                "exportable": settings.exportable,
                "reuse_key": False,
                **_key_kind(bundle.chain.leaf),
            },
            "secret_props": {"contentType": _CONTENT_TYPES[settings.format]},
        }
    }
    if settings.format == "pem":
        return body | {"value": export(bundle, Format.PEM_BUNDLE)[Part.BUNDLE].decode()}
    # The container only travels: the vault opens it and keeps no password.
    password = secrets.token_urlsafe(24)
    store = export(bundle, Format.PKCS12_LEGACY, password=password)[Part.STORE]
    return body | {"value": base64.b64encode(store).decode(), "pwd": password}


def _key_kind(leaf: x509.Certificate) -> dict[str, Any]:
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return {"kty": "RSA", "key_size": key.key_size}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return {"kty": "EC", "crv": _CURVES[key.curve.name]}
    raise InvalidRequest(
        "Key Vault takes RSA keys and the curves P-256, P-384 and P-521 only",
        remedy="Choose another key algorithm in the profile.",
    )
