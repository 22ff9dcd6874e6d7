"""An Azure Key Vault over a real socket, strict, and what serves a certificate from it.

Certificates, secrets and pending operations as in the REST reference of Key Vault
(API version 7.4: "Import Certificate", "Create Certificate", "Get Certificate Operation",
"Merge Certificate", "Update Certificate", "Get Secret"), "Monitor and manage certificate
creation", and the OAuth 2.0 client credentials flow; read November 2026. It refuses wrong
media types, unknown properties, missing versions, keys that do not match, a new
certificate while one is pending, and secrets of disabled versions. A key that is not
exportable is left out of the secret.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12
from cryptography.x509.oid import NameOID

from certrail.model import Bundle
from tests.support.cloud_api import Answer, Api
from tests.support.device import Device, Reply, Request

_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
NAME = "www"


class _No(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer: Answer = status, {"error": {"code": code, "message": message}}


@dataclass
class KeyVault(Api):
    """A vault, and the authority that hands out tokens for it.

    Attributes:
        versions: every version of every certificate, the newest last.
        pending: certificate operations.
        deleted: names that are deleted and can be recovered.
        refused: names whose imports and merges are refused.
    """

    challenge: str = (
        'Bearer authorization="https://login.example/12345678", resource="https://vault.example"'
    )
    client_secret: str = "lab-client-secret"
    tokens: set[str] = field(default_factory=set)
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        url = urlsplit(path)
        query = parse_qs(url.query)
        try:
            if url.path.endswith("/oauth2/v2.0/token"):
                return self._token(method, headers, body)
            if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
                raise _No(401, "Unauthorized", "Request is missing a Bearer or PoP token.")
            if query.get("api-version") not in (["7.4"], ["7.5"], ["7.6"], ["2025-07-01"]):
                raise _No(400, "BadParameter", "The specified version is not recognized.")
            if method in ("POST", "PATCH") and (
                headers.get("Content-Type", "").partition(";")[0] != "application/json"
            ):
                raise _No(415, "UnsupportedMediaType", "not JSON")
            return self._route(method, url.path, json.loads(body) if body else {})
        except _No as no:
            return no.answer

    def _route(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if path == "/certificates" and method == "GET":
            return 200, {"value": [self._item(name) for name in self.versions], "nextLink": None}
        found = re.fullmatch(
            r"/(certificates|secrets)/([0-9a-zA-Z-]{1,127})(?:/([0-9a-z/]*))?", path
        )
        if not found:
            raise _No(400, "BadParameter", "The request URI contains an invalid name.")
        kind, name, rest = found[1], found[2], (found[3] or "").strip("/")
        match method, kind, rest:
            case "GET", "secrets", _:
                return 200, self._secret(name, rest)
            case "POST", "certificates", "import":
                return self._import(name, body)
            case "POST", "certificates", "create":
                return self._create(name, body)
            case "GET", "certificates", "pending":
                return 200, self._operation(name)
            case "DELETE", "certificates", "pending":
                shown = self._operation(name)
                del self.pending[name]
                return 200, shown
            case "POST", "certificates", "pending/merge":
                return self._merge(name, body)
            case "GET", "certificates", _:
                return 200, self._version(name, rest)["shown"]
            case "PATCH", "certificates", version if version:
                found_version = self._version(name, version)
                found_version["shown"]["attributes"].update(body["attributes"])
                return 200, found_version["shown"]
        raise _No(405, "MethodNotAllowed", "not allowed")

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

    def _item(self, name: str) -> dict[str, Any]:
        newest = self.versions[name][-1]
        shown = newest["shown"]
        thumbprint = newest["chain"][0].fingerprint(hashes.SHA1())  # what x5t is
        return {
            "id": shown["id"].rpartition("/")[0],
            "x5t": base64.urlsafe_b64encode(thumbprint).decode().rstrip("="),
            "attributes": shown["attributes"],
        }

    def _version(self, name: str, version: str) -> dict[str, Any]:
        found = self.versions.get(name, [])
        if version:
            found = [one for one in found if one["shown"]["id"].endswith(f"/{version}")]
        if not found:
            raise _No(404, "CertificateNotFound", f"{name} was not found in this vault.")
        return found[-1]

    def _secret(self, name: str, version: str) -> dict[str, Any]:
        found = self._version(name, version)
        shown, chain = found["shown"], found["chain"]
        if not shown["attributes"]["enabled"]:
            raise _No(403, "Forbidden", "Operation get is not allowed on a disabled secret.")
        kind = shown["policy"]["secret_props"]["contentType"]
        key = found["key"] if shown["policy"]["key_props"]["exportable"] else None
        if kind == "application/x-pkcs12":
            store = pkcs12.serialize_key_and_certificates(
                None, key, chain[0], chain[1:] or None, NoEncryption()
            )
            value = base64.b64encode(store).decode()
        else:
            pems = [_key_pem(key)] if key else []
            pems += [one.public_bytes(serialization.Encoding.PEM).decode() for one in chain]
            value = "".join(pems)
        return {"value": value, "contentType": kind, "id": shown["sid"], "managed": True}

    def _must_be_free(self, name: str) -> None:
        if name in self.deleted:
            text = f"Certificate {name} is currently in a deleted but recoverable state"
            raise _No(409, "Conflict", text)
        if self.pending.get(name, {}).get("status") == "inProgress":
            text = "A new key vault certificate can not be created or imported while a pending "
            raise _No(409, "Forbidden", text + "key vault certificate's status is inProgress.")

    def _import(self, name: str, wanted: dict[str, Any]) -> Answer:
        if unknown := set(wanted) - {"value", "pwd", "policy", "attributes", "tags"}:
            raise _No(400, "BadParameter", f"Unexpected property {unknown}.")
        self._must_be_free(name)
        policy = wanted["policy"]
        kind = policy["secret_props"]["contentType"]
        try:
            if kind == "application/x-pkcs12":
                content = base64.b64decode(wanted["value"], validate=True)
                store = pkcs12.load_pkcs12(content, wanted.get("pwd", "").encode() or None)
                assert store.cert is not None
                leaf, key = store.cert.certificate, store.key
                chain = [leaf, *(one.certificate for one in store.additional_certs)]
            else:
                text = wanted["value"].encode()
                chain = x509.load_pem_x509_certificates(text)
                leaf, key = chain[0], serialization.load_pem_private_key(text, None)
        except ValueError:
            text_ = "The specified PKCS#12 X.509 certificate content can not be read."
            raise _No(400, "BadParameter", text_) from None
        if key is None or key.public_key() != leaf.public_key():
            raise _No(400, "BadParameter", "Private key is not specified or does not match.")
        if policy["key_props"]["kty"] != ("RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"):
            raise _No(400, "BadParameter", "Key type does not match the policy.")
        return 200, self._store(name, chain, key, policy)

    def _store(
        self, name: str, chain: list[x509.Certificate], key: Any, policy: dict[str, Any]
    ) -> dict[str, Any]:
        if name in self.refused:
            raise _No(400, "BadParameter", "Property policy has invalid value.")
        version = secrets.token_hex(16)
        shown = {
            "id": f"{self.url}/certificates/{name}/{version}",
            "kid": f"{self.url}/keys/{name}/{version}",
            "sid": f"{self.url}/secrets/{name}/{version}",
            "cer": base64.b64encode(chain[0].public_bytes(serialization.Encoding.DER)).decode(),
            "attributes": {"enabled": True},
            "policy": policy,
        }
        self.versions.setdefault(name, []).append({"shown": shown, "chain": chain, "key": key})
        return shown

    def _create(self, name: str, wanted: dict[str, Any]) -> Answer:
        if unknown := set(wanted) - {"policy", "attributes", "tags"}:
            raise _No(400, "BadParameter", f"Unexpected property {unknown}.")
        self._must_be_free(name)
        policy = wanted["policy"]
        assert policy["issuer"] == {"name": "Unknown"} or policy["issuer"]["name"] == "Unknown"
        props, names = policy["key_props"], policy["x509_props"]["sans"]["dns_names"]
        key: Any
        if props["kty"] == "EC":
            key = ec.generate_private_key(_CURVES[props["crv"]]())
        else:
            key = rsa.generate_private_key(65537, props["key_size"])
        common = policy["x509_props"]["subject"].removeprefix("CN=")
        assert len(common) <= 64
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        self.pending[name] = {
            "status": "inProgress",
            "csr": base64.b64encode(csr.public_bytes(serialization.Encoding.DER)).decode(),
            "key": key,
            "policy": policy,
            "request_id": secrets.token_hex(16),
        }
        return 202, self._operation(name)

    def _operation(self, name: str) -> dict[str, Any]:
        if name not in self.pending:
            raise _No(404, "PendingCertificateNotFound", f"Pending certificate not found: {name}")
        found = self.pending[name]
        return {
            "id": f"{self.url}/certificates/{name}/pending",
            "issuer": {"name": "Unknown"},
            "csr": found["csr"],
            "cancellation_requested": False,
            "status": found["status"],
            "status_details": "Pending certificate created. Please Perform Merge to complete the "
            "request.",
            "request_id": found["request_id"],
        }

    def _merge(self, name: str, wanted: dict[str, Any]) -> Answer:
        if set(wanted) - {"x5c", "attributes", "tags"}:
            raise _No(400, "BadParameter", "Unexpected property.")
        found = self.pending.get(name)
        if found is None or found["status"] != "inProgress":
            raise _No(404, "PendingCertificateNotFound", f"Pending certificate not found: {name}")
        chain = [
            x509.load_der_x509_certificate(base64.b64decode(one, validate=True))
            for one in wanted["x5c"]
        ]
        if chain[0].public_key() != found["key"].public_key():
            text = "The public key of the end-entity certificate in the specified X.509 "
            raise _No(400, "BadParameter", text + "certificate content does not match.")
        shown = self._store(name, chain, found["key"], found["policy"])
        found["status"] = "completed"
        return 201, shown


class VaultGateway(Device):
    """A vault, and a gateway that serves the newest version of :data:`NAME` from it."""

    def __init__(self) -> None:
        super().__init__()
        self.vault = KeyVault(scheme="https")
        self.put(self.old)

    def put(self, bundle: Bundle, *, exportable: bool = True) -> None:
        """Store a new version as somebody else."""
        assert bundle.key
        key = serialization.load_pem_private_key(bundle.key.reveal(), None)
        policy = {
            "key_props": {"kty": "EC", "crv": "P-256", "exportable": exportable},
            "secret_props": {"contentType": "application/x-pkcs12"},
        }
        self.vault._store(NAME, bundle.chain.certificates, key, policy)

    def answer(self, request: Request) -> Reply:
        self.vault.port = int(self.url.rpartition(":")[2])
        headers = {name.title(): value for name, value in request.headers.items()}
        path = request.path + (f"?{urlencode(request.query)}" if request.query else "")
        status, body = self.vault.answer(request.method, path, headers, request.body)
        more = {"WWW-Authenticate": self.vault.challenge} if status == 401 else {}
        return Reply(status, body, more)

    def live(self) -> tuple[str, bytes]:
        # A gateway keeps what it had while the newest version cannot be read.
        enabled = [
            one for one in self.vault.versions[NAME] if one["shown"]["attributes"]["enabled"]
        ]
        pems = [one.public_bytes(serialization.Encoding.PEM) for one in enabled[-1]["chain"]]
        return b"".join(pems).decode(), _key_pem(enabled[-1]["key"]).encode()

    def snapshot(self) -> dict[str, bytes]:
        """Return what consumers get; versions are kept for ever and counted apart."""
        current = {
            name: all_[-1]["shown"]["cer"].encode()
            for name, all_ in self.vault.versions.items()
            if all_[-1]["shown"]["attributes"]["enabled"]
        }
        count = len(self.vault.versions[NAME])
        return {**current, "reloads": str(count).encode()}


def _key_pem(key: Any) -> str:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, NoEncryption()
    )
    return text.decode()
