"""A TLS secret (``kubernetes.io/tls``) in a Kubernetes namespace, through its REST API.

The change is a merge patch that carries the resource version we read, which
the API server refuses with 409 if the secret has changed since. Labels,
annotations and other fields stay as they are.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import httpx
from pydantic import BaseModel, Field, SecretStr

from blocks._base import DeliveryBlock, open_secret
from certrail.connectors import DeliveryTarget, Traits
from certrail.delivery.fields import same
from certrail.delivery.settings import ServerSettings
from certrail.errors import AuthenticationFailed, Conflict, InvalidRequest, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site
from certrail.remote import http
from certrail.x509.export import Format, Part, export, load

_TYPE = "kubernetes.io/tls"
_MANAGER = "certrail"
_CERTIFICATE, _KEY = "tls.crt", "tls.key"
# DNS label and DNS subdomain (RFC 1123), as the API wants names.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")


class KubernetesSecret(DeliveryBlock):
    """Store certificates as TLS secrets in a Kubernetes cluster."""

    _block_type_name = "Certrail delivery: Kubernetes"
    _block_type_slug = "delivery-kubernetes"

    url: str = Field(description="Address of the API server, such as https://10.0.0.1:6443.")
    namespace: str = Field(
        default="default", description="Namespace of secrets that are named without one."
    )
    token: SecretStr = Field(
        description="Token of a service account, or a reference to it; in a pod: "
        "file:/var/run/secrets/kubernetes.io/serviceaccount/token."
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) of the cluster; empty: system."
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds the API may take.")

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the cluster."""
        with http.client(
            self.url,
            headers={"Authorization": f"Bearer {open_secret(self.token)}"},
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield _KubernetesDelivery(client, self.label, self.namespace)


class _Metadata(BaseModel):
    name: str
    resourceVersion: str  # noqa: N815 - the API's own name


class _Secret(BaseModel):
    kind: str
    type: str
    metadata: _Metadata
    data: dict[str, str] | None = Field(default=None, repr=False)


class _Access(BaseModel):
    allowed: bool


class _AccessReview(BaseModel):
    status: _Access


class _KubernetesDelivery(DeliveryTarget):
    traits: ClassVar[Traits] = Traits(
        transactional=True, restores_by="deliver the certificate before again", longest_name=253
    )

    def __init__(self, client: httpx.Client, label: str, namespace: str) -> None:
        self._client = client
        self._label = label
        self._namespace = namespace

    def check(self) -> str:
        # Every authenticated caller may ask what it may do.
        asked = {"namespace": self._namespace, "verb": "patch", "resource": "secrets"}
        reply = self._call(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asked},
            },
        )
        allowed = http.json_of(reply, _AccessReview).status.allowed
        return f"the token may {'' if allowed else 'not '}change secrets in {self._namespace}"

    def delivered(self, site: Site) -> Fingerprint | None:
        ServerSettings.parse(site.settings)
        found = self._bundle_in(self._read(*self._place(site)))
        return found.chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        ServerSettings.parse(site.settings)
        parts = export(bundle, Format.PEM)
        if Part.KEY not in parts:
            raise InvalidRequest(
                "a TLS secret holds the private key, and the certificate came without one",
                remedy="Let Certrail make the key: choose an algorithm in the profile.",
            )
        data = {
            _CERTIFICATE: base64.b64encode(parts[Part.FULLCHAIN]).decode(),
            _KEY: base64.b64encode(parts[Part.KEY]).decode(),
        }
        namespace, name = self._place(site)
        secret = self._read(namespace, name)
        if secret is None:
            version = self._create(namespace, name, data)
        elif same(self._bundle_in(secret), bundle):
            return f"the secret {namespace}/{name} had it already"
        else:
            version = self._replace(namespace, name, secret.metadata.resourceVersion, data)
        effect("kubernetes.deliver", connector=self._label, secret=f"{namespace}/{name}")
        return f"the secret {namespace}/{name}, resource version {plain(version)}"

    def _create(self, namespace: str, name: str, data: dict[str, str]) -> str:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": _TYPE,
            "metadata": {"name": name, "namespace": namespace},
            "data": data,
        }
        return self._write("POST", f"/api/v1/namespaces/{namespace}/secrets", json=body)

    def _replace(self, namespace: str, name: str, version: str, data: dict[str, str]) -> str:
        return self._write(
            "PATCH",
            f"/api/v1/namespaces/{namespace}/secrets/{name}",
            json={"metadata": {"resourceVersion": version}, "data": data},
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def _write(self, method: str, path: str, **kwargs: Any) -> str:
        reply = self._call(method, path, params={"fieldManager": _MANAGER}, **kwargs)
        return http.json_of(reply, _Secret).metadata.resourceVersion

    def _read(self, namespace: str, name: str) -> _Secret | None:
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        reply = self._call("GET", path, accept=(404,))
        if not reply.is_success:
            http.json_of(reply, dict)
            return None
        secret = http.json_of(reply, _Secret)
        if secret.type != _TYPE:
            raise Conflict(
                f"{self._label}: the secret {namespace}/{name} is of the type "
                f"{plain(secret.type)}, which cannot be changed",
                remedy=f"Remove it, or deliver under another name: a {_TYPE} secret is made.",
                connector=self._label,
            )
        return secret

    def _bundle_in(self, secret: _Secret | None) -> Bundle | None:
        data = (secret.data if secret else None) or {}
        try:
            chain = base64.b64decode(data[_CERTIFICATE], validate=True)
            key = base64.b64decode(data[_KEY], validate=True)
            return load({Part.BUNDLE: chain + b"\n" + key}, Format.PEM_BUNDLE)
        except (KeyError, binascii.Error, UnexpectedReply):
            return None

    def _place(self, site: Site) -> tuple[str, str]:
        namespace, _, name = site.id.rpartition("/")
        namespace = namespace or self._namespace
        if not _LABEL.match(namespace) or not _SUBDOMAIN.match(name):
            raise InvalidRequest(
                f"not the name of a secret: {plain(site.id)[:300]}",
                remedy="Set `site` to name or namespace/name: lower case, digits, - and dots.",
            )
        return namespace, name

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return http.send(self._client, self._label, method, path, **kwargs)
        except AuthenticationFailed as exc:
            exc.remedy = "Give the connector a token of the cluster that has not expired."
            raise
