"""Strict fakes of two REST APIs that cannot be run here, over real sockets.

They refuse what the real services are documented to refuse: wrong media
types, unknown fields, missing versions, keys that do not match, old resource
versions. Kubernetes: API reference, Secret v1 and "Server-Side Apply", merge
patch. Azure: REST reference of Key Vault certificates, API version 7.4, and
of the OAuth 2.0 client credentials flow.
"""

from __future__ import annotations

import base64
import http.server
import json
import re
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

Answer = tuple[int, dict[str, Any]]


@dataclass
class Api:
    """A running fake."""

    port: int = 0
    scheme: str = "http"
    lock: threading.Lock = field(default_factory=threading.Lock)

    challenge: str = "Bearer"

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        """Return status and JSON for one request."""
        raise NotImplementedError


@contextmanager
def served(api: Api, tls: ssl.SSLContext | None = None) -> Iterator[Any]:
    """Serve *api* on a port of this machine, over TLS if a context is given."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            with api.lock:
                status, answer = api.answer(self.command, self.path, self.headers, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 401:
                self.send_header("WWW-Authenticate", api.challenge)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = _reply  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            api.scheme = "https"
        api.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Kubernetes(Api):
    """TLS secrets of one cluster."""

    token: str = "lab-service-account-token"
    secrets: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
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
        return _status(405, "MethodNotAllowed", "not allowed")

    def _create(self, namespace: str, headers: Any, body: bytes) -> Answer:
        if headers.get("Content-Type") != "application/json":
            return _status(415, "UnsupportedMediaType", "not JSON")
        wanted = json.loads(body)
        name = wanted["metadata"]["name"]
        if wanted["apiVersion"] != "v1" or wanted["kind"] != "Secret":
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


@dataclass
class KeyVault(Api):
    """A vault, and the authority that hands out tokens for it."""

    challenge: str = (
        'Bearer authorization="https://login.example/12345678", resource="https://vault.example"'
    )
    client_secret: str = "lab-client-secret"
    tokens: set[str] = field(default_factory=set)
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        url = urlsplit(path)
        query = parse_qs(url.query)
        if url.path.endswith("/oauth2/v2.0/token"):
            return self._token(method, headers, body)
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _error(401, "Unauthorized", "Request is missing a Bearer or PoP token.")
        if query.get("api-version") not in (["7.4"], ["7.5"], ["7.6"]):
            return _error(400, "BadParameter", "The specified version is not recognized.")
        if url.path == "/certificates" and method == "GET":
            return 200, {"value": [], "nextLink": None}
        found = re.fullmatch(r"/certificates/([0-9a-zA-Z-]{1,127})(/import|/[0-9a-f]*)?", url.path)
        if not found:
            return _error(400, "BadParameter", "The request URI contains an invalid name.")
        name, rest = found.groups()
        if method == "POST" and rest == "/import":
            if headers.get("Content-Type", "").partition(";")[0] != "application/json":
                return _error(415, "UnsupportedMediaType", "not JSON")
            return self._import(name, json.loads(body))
        if method == "GET" and not (rest or "").strip("/"):
            if name not in self.versions:
                return _error(404, "CertificateNotFound", f"{name} was not found in this vault.")
            return 200, self.versions[name][-1]["shown"]
        return _error(405, "MethodNotAllowed", "not allowed")

    def _token(self, method: str, headers: Any, body: bytes) -> Answer:
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        if (
            method != "POST"
            or headers.get("Content-Type") != "application/x-www-form-urlencoded"
            or form.get("grant_type") != "client_credentials"
            or not form.get("scope", "").endswith("/.default")
        ):
            return 400, {"error": "invalid_request", "error_description": "AADSTS900144"}
        if form.get("client_secret") != self.client_secret:
            text = "AADSTS7000215: Invalid client secret provided."
            return 401, {"error": "invalid_client", "error_description": text}
        token = secrets.token_urlsafe(24)
        self.tokens.add(token)
        return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": token}

    def _import(self, name: str, wanted: dict[str, Any]) -> Answer:
        if unknown := set(wanted) - {"value", "pwd", "policy", "attributes", "tags"}:
            return _error(400, "BadParameter", f"Unexpected property {unknown}.")
        if name in self.deleted:
            text = f"Certificate {name} is currently in a deleted but recoverable state"
            return _error(409, "Conflict", text)
        policy = wanted["policy"]
        kind = policy["secret_props"]["contentType"]
        try:
            if kind == "application/x-pkcs12":
                content = base64.b64decode(wanted["value"], validate=True)
                store = pkcs12.load_pkcs12(content, wanted.get("pwd", "").encode())
                assert store.cert is not None
                leaf, key = store.cert.certificate, store.key
                chain = [leaf, *(one.certificate for one in store.additional_certs)]
            else:
                text = wanted["value"].encode()
                chain = x509.load_pem_x509_certificates(text)
                leaf, key = chain[0], serialization.load_pem_private_key(text, None)
        except ValueError:
            return _error(400, "BadParameter", "The specified PKCS#12 X.509 certificate content")
        if key is None or key.public_key() != leaf.public_key():
            return _error(400, "BadParameter", "Private key is not specified or does not match.")
        kty = "RSA" if hasattr(key, "private_numbers") and hasattr(key, "decrypt") else "EC"
        if policy["key_props"]["kty"] != kty:
            return _error(400, "BadParameter", "Key type does not match the policy.")
        version = secrets.token_hex(16)
        shown = {
            "id": f"{self.url}/certificates/{name}/{version}",
            "kid": f"{self.url}/keys/{name}/{version}",
            "sid": f"{self.url}/secrets/{name}/{version}",
            "cer": base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode(),
            "attributes": {"enabled": True},
            "policy": policy,
        }
        stored = {"shown": shown, "chain": chain, "key": key}
        self.versions.setdefault(name, []).append(stored)
        return 200, shown


def _error(status: int, code: str, message: str) -> Answer:
    return status, {"error": {"code": code, "message": message}}
