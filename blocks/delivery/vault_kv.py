"""A secret in the key/value engine, version 2, of HashiCorp Vault or OpenBao.

Written with check-and-set: a writer that came between our look and our write
is noticed. Fields of the secret that are not ours stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import httpx
from pydantic import BaseModel, Field, SecretStr

from blocks._base import DeliveryBlock, open_reference, open_secret
from certrail.connectors import DeliveryTarget, Traits
from certrail.delivery.fields import FieldSettings, same
from certrail.delivery.objects import quoted_path
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
)
from certrail.log import effect, logger, plain
from certrail.model import Bundle, Fingerprint, Site
from certrail.remote import http

_ENGINE = "2"


class VaultKv(DeliveryBlock):
    """Store certificates as secrets in Vault or OpenBao (key/value engine, version 2)."""

    _block_type_name = "Certrail delivery: Vault KV"
    _block_type_slug = "delivery-vault-kv"

    url: str = Field(description="Address of the server, such as https://vault:8200.")
    mount: str = Field(default="secret", description="Path that the engine is mounted at.")
    prefix: str = Field(
        default="", description="Path below the mount that every secret lies under."
    )
    namespace: str = Field(default="", description="Namespace, on servers that have them.")
    token: SecretStr | None = Field(default=None, description="Token, or a reference to it.")
    role_id: str = Field(default="", description="AppRole to log in with, instead of a token.")
    secret_id: SecretStr | None = Field(
        default=None, description="Secret id of the AppRole, or a reference to it."
    )
    approle_mount: str = Field(default="approle", description="Path that AppRole is mounted at.")
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) of the server; empty: system."
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds the API may take.")

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the engine; the token made for an AppRole is revoked afterwards."""
        headers = {"X-Vault-Request": "true"}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        token = open_secret(self.token)
        if not token and not self.role_id:
            raise InvalidRequest(
                f"{self.label} has neither a token nor an AppRole",
                remedy="Set token, or role_id and secret_id.",
            )
        if token:
            headers["X-Vault-Token"] = token
        with http.client(
            self.url,
            headers=headers,
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            target = _VaultKvDelivery(client, self.label, mount=self.mount, prefix=self.prefix)
            if not token:
                target.use_role(self.approle_mount, self.role_id, open_secret(self.secret_id))
            try:
                yield target
            finally:
                target.log_out()


class _Version(BaseModel):
    version: int


class _Secret(BaseModel):
    data: dict[str, Any] | None = None
    metadata: _Version


class _SecretReply(BaseModel):
    data: _Secret


class _Written(BaseModel):
    data: _Version


class _Token(BaseModel):
    display_name: str = ""


class _TokenReply(BaseModel):
    data: _Token


class _Mount(BaseModel):
    type: str
    options: dict[str, str] | None = None


class _MountReply(BaseModel):
    data: _Mount


class _Auth(BaseModel):
    client_token: str = Field(repr=False)


class _AuthReply(BaseModel):
    auth: _Auth


class _VaultKvDelivery(DeliveryTarget):
    traits: ClassVar[Traits] = Traits(
        transactional=True, restores_by="the engine keeps older versions of a secret"
    )

    def __init__(self, client: httpx.Client, label: str, *, mount: str, prefix: str = "") -> None:
        self._client = client
        self._label = label
        self._mount = quoted_path(mount.strip("/"))
        self._prefix = prefix.strip("/")
        self._log_in: Callable[[], None] | None = None
        self._has_own_token = False

    def use_role(self, mount: str, role_id: str, secret_id: str) -> None:
        """Log in with an AppRole before the first call."""
        # A closure, so that printing the object shows no secret.
        self._log_in = lambda: self._log_in_with(mount, role_id, secret_id)

    def log_out(self) -> None:
        """Revoke the token if we got it for a role; it would expire anyway."""
        if not self._has_own_token:
            return
        try:
            http.send(self._client, self._label, "POST", "/v1/auth/token/revoke-self")
        except CertrailError as exc:
            logger.warning("vault token not revoked: %s", exc)

    def _log_in_with(self, mount: str, role_id: str, secret_id: str) -> None:
        try:
            reply = http.send(
                self._client,
                self._label,
                "POST",
                f"/v1/auth/{quoted_path(mount)}/login",
                json={"role_id": role_id, "secret_id": secret_id},
                hide=(secret_id,),
            )
        except (Rejected, PermissionRefused) as exc:
            raise AuthenticationFailed(
                str(exc),
                remedy="Correct role_id and secret_id of the connector; a secret id may have "
                "been used up or expired.",
                connector=self._label,
                code=exc.code,
            ) from exc
        self._client.headers["X-Vault-Token"] = http.json_of(reply, _AuthReply).auth.client_token
        self._log_in, self._has_own_token = None, True

    def check(self) -> str:
        token = http.json_of(self._call("GET", "auth/token/lookup-self"), _TokenReply).data
        reply = self._call("GET", f"sys/internal/ui/mounts/{self._mount}")
        mount = http.json_of(reply, _MountReply).data
        if mount.type != "kv" or (mount.options or {}).get("version") != _ENGINE:
            raise InvalidRequest(
                f"{self._label}: {self._mount} is not a key/value engine of version 2",
                remedy="Name the mount of one as `mount`, or enable versions on this one.",
            )
        return f"the token {plain(token.display_name)!r} may use {self._mount}"

    def delivered(self, site: Site) -> Fingerprint | None:
        settings = _settings(site)
        fields, _ = self._read(self._path(site))
        found = settings.bundle_in(site, fields, open_reference)
        return found.chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        settings, path = _settings(site), self._path(site)
        ours = settings.fields_of(site, bundle, open_reference)
        fields, version = self._read(path)
        if self._holds(settings, site, fields, bundle):
            return f"the secret {plain(path)} had it already, version {version}"
        body = {"options": {"cas": version}, "data": {**fields, **ours}}
        try:
            reply = self._call("POST", f"{self._mount}/data/{path}", json=body)
        except Rejected as exc:
            if "check-and-set" not in str(exc):
                raise
            raise Conflict(
                f"{self._label}: somebody else wrote the secret {plain(path)} in the meantime",
                connector=self._label,
                code=exc.code,
            ) from exc
        made = http.json_of(reply, _Written).data.version
        effect("vault.deliver", connector=self._label, path=path, version=made)
        return f"the secret {plain(path)}, version {plain(made)}"

    def _holds(
        self, settings: FieldSettings, site: Site, fields: dict[str, Any], bundle: Bundle
    ) -> bool:
        try:
            found = settings.bundle_in(site, fields, open_reference)
        except AuthenticationFailed:
            return False  # the container's password has changed
        return same(found, bundle, settings)

    def _path(self, site: Site) -> str:
        return quoted_path(f"{self._prefix}/{site.id}" if self._prefix else site.id)

    def _read(self, path: str) -> tuple[dict[str, Any], int]:
        """Return the fields and the version to check against; 0 for a secret never written."""
        reply = self._call("GET", f"{self._mount}/data/{path}", accept=(404,))
        # A version that was deleted is "not found" too, but says which it was.
        if not reply.is_success and b'"metadata"' not in reply.content:
            http.json_of(reply, dict)
            return {}, 0
        found = http.json_of(reply, _SecretReply).data
        return found.data or {}, found.metadata.version

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        if self._log_in:
            self._log_in()
        try:
            return http.send(self._client, self._label, method, f"/v1/{path}", **kwargs)
        except PermissionRefused as exc:
            raise self._told_apart(exc) from exc
        except NotFound as exc:
            exc.remedy = f"Check url, namespace and mount: is there an engine at {self._mount}?"
            raise

    def _told_apart(self, refused: PermissionRefused) -> CertrailError:
        """Return the error for a 403, which the server gives for a bad token as well."""
        try:
            http.send(self._client, self._label, "GET", "/v1/auth/token/lookup-self")
        except PermissionRefused:
            return AuthenticationFailed(
                f"{refused}; the token is not valid",
                remedy="Give the connector a token that is valid, in this namespace.",
                connector=self._label,
                code=refused.code,
            )
        refused.remedy = (
            f"Give the token's policy create, read and update on {self._mount}/data/… there."
        )
        return refused


def _settings(site: Site) -> FieldSettings:
    return FieldSettings.parse(site.settings)
