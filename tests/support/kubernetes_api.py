"""The API server of a Kubernetes cluster, strict, and an ingress controller that serves from it.

Kubernetes API reference: Secret v1, Ingress v1, "Kubernetes API Concepts" (resource
versions, merge patch, deletion with preconditions, lists in pieces); Gateway API, Gateway
v1; read November 2026. It refuses wrong media types, unknown kinds, missing fields of a
TLS secret, values that are not base64, and old resource versions.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from certrail.model import Bundle
from tests.support.cloud_api import Answer, Api
from tests.support.device import SITE, Device, Reply, Request

NAMESPACE, NAME = "web", "www-tls"


@dataclass
class Kubernetes(Api):
    """TLS secrets of one cluster, and the Ingresses and Gateways that name them.

    Attributes:
        gateways: None in a cluster where the Gateway API is not installed.
    """

    token: str = "lab-service-account-token"
    secrets: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    ingresses: list[dict[str, Any]] = field(default_factory=list)
    gateways: list[dict[str, Any]] | None = None
    version: int = 100

    def put(self, namespace: str, name: str, data: dict[str, str], **more: Any) -> None:
        """Store a secret as another client would."""
        with self.lock:
            self._store(namespace, name, {"type": "kubernetes.io/tls", **more, "data": data})

    def _store(self, namespace: str, name: str, secret: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        metadata = {**secret.get("metadata", {}), "name": name, "namespace": namespace}
        metadata["resourceVersion"] = str(self.version)
        stored = {"kind": "Secret", "apiVersion": "v1", **secret, "metadata": metadata}
        self.secrets[namespace, name] = stored
        return stored

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        if headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        url = urlsplit(path)
        if url.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            asked = json.loads(body)
            if method != "POST" or asked["kind"] != "SelfSubjectAccessReview":
                return _status(400, "BadRequest", "not a review")
            return 201, {**asked, "status": {"allowed": True}}
        listed = self._list(method, url.path, parse_qs(url.query))
        if listed is not None:
            return listed
        found = re.fullmatch(
            r"/api/v1/namespaces/([a-z0-9-]+)/secrets(?:/([a-z0-9.-]+))?", url.path
        )
        if not found:
            return _status(404, "NotFound", "the server could not find the requested resource")
        namespace, name = found.groups()
        if method == "POST" and name is None:
            return self._create(namespace, headers, body)
        secret = self.secrets.get((namespace, name))
        if secret is None:
            return _status(404, "NotFound", f'secrets "{name}" not found')
        if method == "GET":
            return 200, secret
        if method == "PATCH":
            return self._patch(secret, headers, body)
        if method == "DELETE":
            asked = json.loads(body or b"{}").get("preconditions", {}).get("resourceVersion")
            if asked is not None and asked != secret["metadata"]["resourceVersion"]:
                return _status(409, "Conflict", "the ResourceVersion in the precondition differs")
            del self.secrets[namespace, name]
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        return _status(405, "MethodNotAllowed", "not allowed")

    def _list(self, method: str, path: str, query: dict[str, list[str]]) -> Answer | None:
        found = re.fullmatch(r"(/api/v1|/apis/[a-z0-9./]+)/namespaces/([a-z0-9-]+)/([a-z]+)", path)
        if method != "GET" or not found:
            return None
        group, namespace, kind = found.groups()
        items: list[dict[str, Any]] | None = None
        match group, kind:
            case "/api/v1", "secrets":
                wanted = query.get("fieldSelector", [""])[0].removeprefix("type=")
                items = [
                    one
                    for (space, _), one in self.secrets.items()
                    if space == namespace and wanted in ("", one["type"])
                ]
            case "/apis/networking.k8s.io/v1", "ingresses":
                items = self.ingresses
            case "/apis/gateway.networking.k8s.io/v1", "gateways":
                items = self.gateways
        if items is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        first, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["500"])[0])
        more = {"continue": str(first + limit)} if len(items) > first + limit else {}
        metadata = {"resourceVersion": str(self.version), **more}
        return 200, {
            "kind": f"{kind.title()[:-1]}List",
            "apiVersion": "v1",
            "metadata": metadata,
            "items": items[first : first + limit],
        }

    def _create(self, namespace: str, headers: Any, body: bytes) -> Answer:
        # Without a type it is taken for JSON.
        if headers.get("Content-Type", "").partition(";")[0] not in ("", "application/json"):
            return _status(415, "UnsupportedMediaType", "not JSON")
        wanted = json.loads(body)
        name = wanted["metadata"]["name"]
        if wanted.get("apiVersion", "v1") != "v1" or wanted.get("kind", "Secret") != "Secret":
            return _status(400, "BadRequest", "not a secret")
        if (namespace, name) in self.secrets:
            return _status(409, "AlreadyExists", f'secrets "{name}" already exists')
        if wrong := _wrong(wanted["data"]):
            return _status(422, "Invalid", wrong)
        return 201, self._store(namespace, name, wanted)

    def _patch(self, secret: dict[str, Any], headers: Any, body: bytes) -> Answer:
        if headers.get("Content-Type") != "application/merge-patch+json":
            return _status(415, "UnsupportedMediaType", "the media type of the patch is not known")
        patch, metadata = json.loads(body), secret["metadata"]
        asked = patch.get("metadata", {}).get("resourceVersion")
        if asked is not None and asked != metadata["resourceVersion"]:
            return _status(409, "Conflict", "the object has been modified")
        if secret.get("immutable"):
            return _status(422, "Invalid", "field is immutable when `immutable` is set")
        data = {**secret["data"], **patch["data"]}
        data = {name: value for name, value in data.items() if value is not None}
        if wrong := _wrong(data):
            return _status(422, "Invalid", wrong)
        return 200, self._store(metadata["namespace"], metadata["name"], {**secret, "data": data})


def _wrong(data: dict[str, str]) -> str:
    if not {"tls.crt", "tls.key"} <= set(data):
        return "Secret is invalid: data[tls.crt]: Required value"
    for value in data.values():
        base64.b64decode(value, validate=True)
    return ""


def _status(code: int, reason: str, message: str) -> Answer:
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


class KubernetesIngress(Device):
    """A cluster, and an ingress controller that serves the secret :data:`NAME` from it."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Kubernetes()
        self.put(self.old)
        self.cluster.ingresses = [
            {
                "metadata": {"name": "www", "namespace": NAMESPACE},
                "spec": {"tls": [{"hosts": [SITE], "secretName": NAME}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}},
            }
        ]

    def put(self, bundle: Bundle, **more: Any) -> None:
        """Store a pair as somebody else."""
        self.cluster.put(NAMESPACE, NAME, data_of(bundle), **more)

    def answer(self, request: Request) -> Reply:
        headers = {name.title(): value for name, value in request.headers.items()}
        path = request.path + (f"?{urlencode(request.query)}" if request.query else "")
        status, body = self.cluster.answer(request.method, path, headers, request.body)
        return Reply(status, body)

    def live(self) -> tuple[str, bytes]:
        data = self.cluster.secrets[NAMESPACE, NAME]["data"]
        return base64.b64decode(data["tls.crt"]).decode(), base64.b64decode(data["tls.key"])

    def snapshot(self) -> dict[str, bytes]:
        """Return every secret; changes are counted apart."""
        stored = {
            f"{space}/{name}": json.dumps(secret["data"], sort_keys=True).encode()
            for (space, name), secret in self.cluster.secrets.items()
        }
        return {
            **stored,
            "reloads": self.cluster.secrets[NAMESPACE, NAME]["metadata"][
                "resourceVersion"
            ].encode(),
        }


def data_of(bundle: Bundle) -> dict[str, str]:
    """Return the fields of a TLS secret."""
    assert bundle.key
    pair = {"tls.crt": bundle.chain.text.encode(), "tls.key": bundle.key.reveal()}
    return {name: base64.b64encode(value).decode() for name, value in pair.items()}
