"""Azure Key Vault: what its connectors ask for, and the calls that they share.

Azure Key Vault REST reference, API version 7.4: "Get Certificate", "Import Certificate",
"Get Certificates"; Microsoft identity platform, "OAuth 2.0 client credentials flow".
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import BaseModel, Field, SecretStr

from blocks._base import open_secret
from certrail.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    Rejected,
)
from certrail.log import plain
from certrail.model import UNREADABLE, Bundle, Fingerprint, Site, fingerprint
from certrail.remote import http
from certrail.x509.export import Format, Part, export

_API_VERSION = "7.4"
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}\Z")
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
CONTENT_TYPES = {"pkcs12": "application/x-pkcs12", "pem": "application/x-pem-file"}
LONGEST_NAME = 127


class KeyVaultAccess(BaseModel):
    """The fields of a block that calls a vault as an application."""

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
    def opened(self, label: str) -> Iterator[Vault]:
        """Open the vault; the token is got with the first call."""
        limits = {"ca_bundle": self.ca_bundle, "timeout": timedelta(seconds=self.timeout)}
        with (
            http.client(self.authority_url, **limits) as authority,  # type: ignore[arg-type]
            http.client(self.vault_url, **limits) as vault,  # type: ignore[arg-type]
        ):
            yield Vault(vault, authority, self, label, open_secret(self.client_secret))


class _Token(BaseModel):
    access_token: str = Field(repr=False, min_length=1)


class _Attributes(BaseModel):
    enabled: bool = True


class Certificate(BaseModel):
    """A version of a certificate as the vault shows it."""

    id: str
    cer: str
    attributes: _Attributes = _Attributes()

    @property
    def version(self) -> str:
        """The version's id."""
        return plain(self.id.rpartition("/")[2])

    @property
    def leaf(self) -> x509.Certificate | None:
        """The certificate; None where it is disabled or cannot be read."""
        try:
            found = x509.load_der_x509_certificate(base64.b64decode(self.cer, validate=True))
        except UNREADABLE:
            return None
        return found if self.attributes.enabled else None

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint of :attr:`leaf`."""
        return fingerprint(self.leaf) if self.leaf is not None else None


class _CertificateList(BaseModel):
    value: list[dict[str, Any]]
    nextLink: str | None = None  # noqa: N815 - the API's own name


class Vault:
    """One vault, with a token of the application."""

    def __init__(
        self,
        client: httpx.Client,
        authority: httpx.Client,
        access: KeyVaultAccess,
        label: str,
        secret: str,
    ) -> None:
        self._client = client
        self.label = label
        # A closure, so that printing the object shows no secret.
        self._log_in: Callable[[], None] = lambda: _log_in(client, authority, access, label, secret)

    def check(self) -> str:
        """Return a line about the vault after a call that changes nothing."""
        self._page({"maxresults": "1"})
        return f"{self._client.base_url.host} lets us list certificates"

    def names(self) -> Iterator[str]:
        """Yield the names of the vault's certificates."""
        asked: dict[str, str] = {}
        while True:
            page = self._page(asked)
            yield from (str(one.get("id", "")).rpartition("/")[2] for one in page.value)
            if not page.nextLink:
                return
            asked = dict(parse_qsl(urlsplit(page.nextLink).query))

    def certificate(self, name: str, version: str = "") -> Certificate | None:
        """Return a version of a certificate (the newest), None where there is none."""
        reply = self.call("GET", f"/certificates/{name}/{version}", accept=(404,))
        if not reply.is_success:
            http.json_of(reply, dict)
            return None
        return http.json_of(reply, Certificate)

    def import_certificate(self, name: str, body: dict[str, Any]) -> Certificate:
        """Import a certificate with its key as the newest version."""
        hide = tuple(body[field] for field in ("value", "pwd") if field in body)
        reply = self.call("POST", f"/certificates/{name}/import", json=body, hide=hide)
        return http.json_of(reply, Certificate)

    def call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send one call; see :func:`certrail.remote.http.send`."""
        if "Authorization" not in self._client.headers:
            self._log_in()
        params = {**kwargs.pop("params", {}), "api-version": _API_VERSION}
        try:
            return http.send(self._client, self.label, method, path, params=params, **kwargs)
        except Conflict as exc:
            exc.remedy = (
                "A deleted certificate of this name may still be recoverable: recover or purge "
                "it in the vault, then retry."
            )
            raise

    def _page(self, params: dict[str, str]) -> _CertificateList:
        return http.json_of(self.call("GET", "/certificates", params=params), _CertificateList)


def _log_in(
    vault: httpx.Client, authority: httpx.Client, access: KeyVaultAccess, label: str, key: str
) -> None:
    """Get a token by the client credentials grant (RFC 6749 section 4.4)."""
    form = {
        "grant_type": "client_credentials",
        "client_id": access.client_id,
        "client_secret": key,
        "scope": access.scope,
    }
    path = f"/{access.tenant_id}/oauth2/v2.0/token"
    try:
        reply = http.send(authority, label, "POST", path, data=form, hide=(key,))
    except (Rejected, AuthenticationFailed) as exc:
        # Both 400 and 401 are used for wrong secrets, unknown applications and tenants.
        raise AuthenticationFailed(
            str(exc),
            remedy="Correct tenant_id, client_id and client_secret; a secret may have expired.",
            connector=label,
            code=exc.code,
        ) from exc
    vault.headers["Authorization"] = f"Bearer {http.json_of(reply, _Token).access_token}"


def name_of(site: Site) -> str:
    """Return the site's name if it is one that a vault takes.

    Raises:
        InvalidRequest: it is not.
    """
    if not _NAME.match(site.id):
        raise InvalidRequest(
            f"not a name that Key Vault takes: {plain(site.id)[:200]}",
            remedy="Set `site` to letters, digits and dashes, 127 at the most.",
        )
    return site.id


def import_of(bundle: Bundle, form: str, exportable: bool) -> dict[str, Any]:
    """Return the body of an import of *bundle*, held as *form* (``pkcs12`` or ``pem``)."""
    body = {"policy": policy(key_kind(bundle.chain.leaf), form, exportable)}
    if form == "pem":
        return body | {"value": export(bundle, Format.PEM_BUNDLE)[Part.BUNDLE].decode()}
    # The container only travels: the vault opens it and keeps no password.
    password = secrets.token_urlsafe(24)
    store = export(bundle, Format.PKCS12_LEGACY, password=password)[Part.STORE]
    return body | {"value": base64.b64encode(store).decode(), "pwd": password}


def policy(kind: dict[str, Any], form: str, exportable: bool) -> dict[str, Any]:
    """Return the part of a policy that says what key it is and how it is given out."""
    return {
        "key_props": {"exportable": exportable, "reuse_key": False, **kind},
        "secret_props": {"contentType": CONTENT_TYPES[form]},
    }


def key_kind(leaf: x509.Certificate) -> dict[str, Any]:
    """Return how a vault names the kind of key in *leaf*.

    Raises:
        InvalidRequest: a kind that no vault takes.
    """
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return {"kty": "RSA", "key_size": key.key_size}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return {"kty": "EC", "crv": _CURVES[key.curve.name]}
    raise InvalidRequest(
        "Key Vault takes RSA keys and the curves P-256, P-384 and P-521 only",
        remedy="Choose another key algorithm in the profile.",
    )
