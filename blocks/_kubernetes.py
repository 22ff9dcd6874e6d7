"""Kubernetes: what its connectors ask for, and the calls on TLS secrets that they share.

Kubernetes API reference, Secret v1 and "Kubernetes API Concepts" (resource versions,
patch); read November 2026. A change is a merge patch that carries the resource version
that was read, which the API server refuses with 409 if the secret has changed since.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
from pydantic import BaseModel, Field, SecretStr

from blocks._base import open_secret
from certrail.errors import AuthenticationFailed, Conflict, InvalidRequest, UnexpectedReply
from certrail.log import plain
from certrail.model import Bundle, Site
from certrail.remote import http
from certrail.x509.export import Format, Part, export, load

TLS = "kubernetes.io/tls"
CERTIFICATE, KEY = "tls.crt", "tls.key"
LONGEST_NAME = 253
_MANAGER = "certrail"
# DNS label and DNS subdomain (RFC 1123), as the API wants names.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")


class KubernetesAccess(BaseModel):
    """The fields of a block that calls a cluster's API server."""

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
    def opened(self, label: str) -> Iterator[Cluster]:
        """Open the cluster."""
        with http.client(
            self.url,
            headers={"Authorization": f"Bearer {open_secret(self.token)}"},
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield Cluster(client, label, self.namespace)


class _Metadata(BaseModel):
    name: str
    namespace: str = ""
    resourceVersion: str  # noqa: N815 - the API's own name
    labels: dict[str, str] = {}


class Secret(BaseModel):
    """A secret as the API shows it."""

    kind: str = "Secret"
    type: str
    metadata: _Metadata
    data: dict[str, str] | None = Field(default=None, repr=False)

    def bundle(self, certificate: str = CERTIFICATE, key: str = KEY) -> Bundle | None:
        """Return the pair in two of its fields; None where that is nothing usable."""
        data = self.data or {}
        try:
            chain = base64.b64decode(data[certificate], validate=True)
            private = base64.b64decode(data[key], validate=True)
            return load({Part.BUNDLE: chain + b"\n" + private}, Format.PEM_BUNDLE)
        except (KeyError, binascii.Error, UnexpectedReply):
            return None


class _Access(BaseModel):
    allowed: bool


class _AccessReview(BaseModel):
    status: _Access


class _ListMetadata(BaseModel):
    model_config = {"populate_by_name": True}

    continue_: str = Field(default="", alias="continue")


class _List(BaseModel):
    metadata: _ListMetadata = _ListMetadata()
    items: list[dict[str, Any]]


class Cluster:
    """The secrets of one cluster."""

    def __init__(self, client: httpx.Client, label: str, namespace: str) -> None:
        self._client = client
        self.label = label
        self.namespace = namespace

    def check(self) -> str:
        """Return a line about what the token may do."""
        # Every authenticated caller may ask what it may do.
        asked = {"namespace": self.namespace, "verb": "patch", "resource": "secrets"}
        reply = self.call(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asked},
            },
        )
        allowed = http.json_of(reply, _AccessReview).status.allowed
        return f"the token may {'' if allowed else 'not '}change secrets in {self.namespace}"

    def place(self, site: Site) -> tuple[str, str]:
        """Return namespace and name of the secret that *site* is.

        Raises:
            InvalidRequest: not names that Kubernetes takes.
        """
        namespace, _, name = site.id.rpartition("/")
        namespace = namespace or self.namespace
        if not _LABEL.match(namespace) or not _SUBDOMAIN.match(name):
            raise InvalidRequest(
                f"not the name of a secret: {plain(site.id)[:300]}",
                remedy="Set `site` to name or namespace/name: lower case, digits, - and dots.",
            )
        return namespace, name

    def read(self, namespace: str, name: str) -> Secret | None:
        """Return the TLS secret, None where there is none.

        Raises:
            Conflict: there is a secret of another type.
        """
        reply = self.call("GET", _path(namespace, name), accept=(404,))
        if not reply.is_success:
            http.json_of(reply, dict)
            return None
        secret = http.json_of(reply, Secret)
        if secret.type != TLS:
            raise Conflict(
                f"{self.label}: the secret {namespace}/{name} is of the type "
                f"{plain(secret.type)}, which cannot be changed",
                remedy=f"Remove it, or use another name: a {TLS} secret is made.",
                connector=self.label,
            )
        return secret

    def create(
        self,
        namespace: str,
        name: str,
        data: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Make a TLS secret; return its resource version.

        Raises:
            Conflict: somebody made one at the same moment.
        """
        metadata = {"name": name, "namespace": namespace}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": TLS,
            "metadata": {**metadata, **({"labels": dict(labels)} if labels else {})},
            "data": dict(data),
        }
        return self._write("POST", _path(namespace), json=body)

    def replace(
        self, namespace: str, name: str, version: str, data: Mapping[str, str | None]
    ) -> str:
        """Change fields of a secret that has *version* still; return the new version.

        Labels, annotations and other fields stay as they are; a field that is None goes.

        Raises:
            Conflict: it has another version by now.
        """
        return self._write(
            "PATCH",
            _path(namespace, name),
            json={"metadata": {"resourceVersion": version}, "data": dict(data)},
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def delete(self, namespace: str, name: str, version: str = "") -> None:
        """Delete a secret, if it has *version* still where one is given; absent is quiet."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if version:
            body["preconditions"] = {"resourceVersion": version}
        self.call("DELETE", _path(namespace, name), json=body, accept=(404,))

    def items(
        self, path: str, accept: tuple[int, ...] = (), **asked: str
    ) -> Iterator[dict[str, Any]]:
        """Yield the objects of a list; none where the answer is one of *accept*."""
        more = {"limit": "500", **asked}
        while True:
            reply = self.call("GET", path, params=more, accept=accept)
            if not reply.is_success:
                return
            page = http.json_of(reply, _List)
            yield from page.items
            if not page.metadata.continue_:
                return
            more = {**more, "continue": page.metadata.continue_}

    def call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send one call; see :func:`certrail.remote.http.send`."""
        try:
            return http.send(self._client, self.label, method, path, **kwargs)
        except AuthenticationFailed as exc:
            exc.remedy = "Give the connector a token of the cluster that has not expired."
            raise

    def _write(self, method: str, path: str, **kwargs: Any) -> str:
        reply = self.call(method, path, params={"fieldManager": _MANAGER}, **kwargs)
        return http.json_of(reply, Secret).metadata.resourceVersion


def data_of(bundle: Bundle) -> dict[str, str]:
    """Return the fields of a TLS secret.

    Raises:
        InvalidRequest: the certificate came without a key.
    """
    parts = export(bundle, Format.PEM)
    if Part.KEY not in parts:
        raise InvalidRequest(
            "a TLS secret holds the private key, and the certificate came without one",
            remedy="Let Certrail make the key: choose an algorithm in the profile.",
        )
    return {
        CERTIFICATE: base64.b64encode(parts[Part.FULLCHAIN]).decode(),
        KEY: base64.b64encode(parts[Part.KEY]).decode(),
    }


def _path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")
