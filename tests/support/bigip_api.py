"""A BIG-IP as seen through iControl REST, with one HTTPS virtual server.

Shapes and words from: F5 "iControl REST User Guide" 14.1 (transactions, file
transfer), the fixtures of F5Networks/f5-ansible and terraform-provider-bigip
(ssl-cert, client-ssl; read November 2026), and error texts quoted in public
issues (01020036, 01071349, 01070317); sync-status: module ``bigip_configsync_action`` and
F5 "Managing Configuration Synchronization" 14.1.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certrail.model import subject_names
from tests.support.bigip_crypto import listed, made_key, made_request
from tests.support.device import SITE, Device, Reply, Request, pairs

USER, PASSWORD = "certrail", "s3cret-Passphrase"
PROFILE = "/Common/www_ssl"
_DOWNLOADS = "/var/config/rest/downloads/"
_CHUNK = 1024 * 1024


@dataclass
class State:
    """What the device stores."""

    certs: dict[str, bytes]
    keys: dict[str, bytes]
    profiles: dict[str, list[dict[str, str]]]
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> State:
        """Return a copy that changes on its own."""
        profiles = {name: [dict(e) for e in chain] for name, chain in self.profiles.items()}
        return State(
            dict(self.certs), dict(self.keys), profiles, dict(self.uploads), dict(self.requests)
        )


class _No(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(
            status, {"code": status, "message": message, "errorStack": [], "apiError": 3}
        )


class BigIp(Device):
    """The device. ``saved`` is what a reboot would load, ``synced`` what the peer has."""

    def __init__(self, site: str = SITE) -> None:
        super().__init__(site)
        assert self.old.key is not None
        self.state = State(
            {"/Common/old.crt": self.old.chain.text.encode()},
            {"/Common/old.key": self.old.key.reveal()},
            {
                PROFILE: [
                    {
                        "name": "default",
                        "appService": "none",
                        "cert": "/Common/old.crt",
                        "chain": "none",
                        "key": "/Common/old.key",
                        "usage": "SERVER",
                    }
                ]
            },
        )
        self.saved = self.state.copy()
        self.synced = self.state.copy()
        self.failover = "active"
        self.guest = False
        self.no_shell = False
        self.tokens: set[str] = set()
        self.transactions: dict[int, list[Request]] = {}

    def live(self) -> tuple[str, bytes]:
        entry = self.state.profiles[PROFILE][0]
        chain = self.state.certs.get(entry["chain"], b"")
        return (
            (self.state.certs[entry["cert"]] + chain).decode(),
            self.state.keys[entry["key"]],
        )

    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except _No as no:
            return no.reply

    def _answer(self, request: Request) -> Reply:
        if request.path == "/mgmt/shared/authn/login":
            return self._login(request)
        token = request.headers.get("x-f5-auth-token", "")
        if token not in self.tokens:
            return Reply(
                401,
                {"code": 401, "message": "X-F5-Auth-Token does not exist.", "errorStack": []},
            )
        if request.method != "GET" and self.guest and "/authz/tokens/" not in request.path:
            return Reply(
                401,
                {
                    "code": 401,
                    "message": "Authorization failed: user=https://localhost/mgmt/shared/authz/"
                    f"users/{USER} resource={request.path} verb={request.method}",
                },
            )
        transaction = request.headers.get("x-f5-rest-coordination-id")
        if transaction is not None:
            assert request.method != "GET", "a read in a transaction shows nothing of it"
            queue = self.transactions.get(int(transaction))
            if queue is None:
                raise _No(404, f"there is no transaction {transaction}")
            queue.append(request)
            return Reply(
                200,
                {
                    "method": request.method,
                    "uri": f"https://localhost{request.path}",
                    "body": request.json() if request.body else {},
                    "evalOrder": len(queue),
                    "commandId": len(queue),
                    "kind": "tm:transaction:commandsstate",
                },
            )
        return self._apply(self.state, request)

    def _login(self, request: Request) -> Reply:
        body = request.json()
        assert set(body) == {"username", "password", "loginProviderName"}
        if (body["username"], body["password"]) != (USER, PASSWORD):
            return Reply(401, {"code": 401, "message": "Authentication failed.", "errorStack": []})
        token = secrets.token_hex(13).upper()
        self.tokens.add(token)
        link = f"https://localhost/mgmt/shared/authz/tokens/{token}"
        return Reply(
            200,
            {
                "username": USER,
                "loginProviderName": "tmos",
                "token": {"token": token, "name": token, "timeout": 1200, "selfLink": link},
            },
        )

    def _apply(self, state: State, request: Request) -> Reply:
        method, path = request.method, request.path.rstrip("/")
        if found := re.fullmatch(r"/mgmt/shared/authz/tokens/(\w+)", path):
            assert method == "DELETE"
            self.tokens.discard(found[1])
            return Reply(200, {"token": found[1]})
        if found := re.fullmatch(r"/mgmt/shared/file-transfer/uploads/([\w.-]+)", path):
            return self._upload(state, request, found[1])
        if path.startswith("/mgmt/tm/transaction"):
            return self._transaction(request, path)
        if found := re.fullmatch(r"/mgmt/tm/sys/file/(ssl-cert|ssl-key)(?:/([^/]+))?", path):
            return self._file(state, request, found[1], found[2])
        if found := re.fullmatch(r"/mgmt/tm/ltm/profile/client-ssl(?:/([^/]+))?", path):
            return self._profile(state, request, found[1])
        if found := re.fullmatch(r"/mgmt/tm/sys/crypto/csr/([\w.-]+)", path):
            return self._csr(state, method, found[1])
        match method, path:
            case "POST", "/mgmt/tm/sys/crypto/key":
                name, content = made_key(request.json())
                assert name not in state.keys
                state.keys[name] = content
                return Reply(200, {"kind": "tm:sys:crypto:key:keystate", **request.json()})
            case "POST", "/mgmt/tm/sys/crypto/csr":
                made = made_request(request.json(), state.keys)
                if made is None:
                    raise _No(400, "01020036:3: The requested Certificate Key File was not found.")
                assert made[0] not in state.requests
                state.requests[made[0]] = made[1]
                return Reply(200, {"kind": "tm:sys:crypto:csr:csrstate", **request.json()})
            case "POST", "/mgmt/tm/util/bash":
                body = request.json()
                assert body["command"] == "run"
                shown = (
                    {}
                    if self.no_shell
                    else {"commandResult": listed(body["utilCmdArgs"], state.requests)}
                )
                return Reply(200, {"kind": "tm:util:bash:runstate", **body, **shown})
            case "GET", "/mgmt/tm/ltm/virtual":
                return Reply(200, {"items": [self._virtual(request)]})
            case "GET", "/mgmt/tm/cm/device":
                return Reply(200, {"items": [self._self()]})
            case "GET", "/mgmt/tm/cm/device-group":
                group = {"name": "pair", "fullPath": "/Common/pair", "type": "sync-failover"}
                return Reply(200, {"items": [{**group, "autoSync": "disabled"}]})
            case "GET", "/mgmt/tm/cm/sync-status":
                return Reply(200, self._sync_status())
            case "POST", "/mgmt/tm/sys/config":
                assert request.json() == {"command": "save"}
                self.saved = state.copy()
                return Reply(200, {"kind": "tm:sys:config:savestate", "command": "save"})
            case "POST", "/mgmt/tm/cm":
                assert request.json() == {
                    "command": "run",
                    "utilCmdArgs": "config-sync to-group pair",
                }
                self.synced = state.copy()
                return Reply(200, {"kind": "tm:cm:runstate", **request.json()})
            case "POST", "/mgmt/tm/util/unix-rm":
                body = request.json()
                assert body["command"] == "run"
                assert body["utilCmdArgs"].startswith(_DOWNLOADS)
                state.uploads.pop(body["utilCmdArgs"].removeprefix(_DOWNLOADS), None)
                return Reply(200, {"kind": "tm:util:unix-rm:runstate", **body})
        raise AssertionError("not a documented call")

    def _csr(self, state: State, method: str, name: str) -> Reply:
        if name not in state.requests:
            raise _No(404, f"01020036:3: The requested certificate request ({name}) was not found.")
        if method == "DELETE":
            del state.requests[name]
            return Reply(200, b"")
        assert method == "GET"
        return Reply(200, {"kind": "tm:sys:crypto:csr:csrstate", "name": name})

    def _upload(self, state: State, request: Request, name: str) -> Reply:
        assert request.method == "POST"
        assert request.headers["content-type"].startswith("application/octet-stream")
        found = re.fullmatch(r"(\d+)-(\d+)/(\d+)", request.headers["content-range"])
        assert found, request.headers["content-range"]
        start, end, size = (int(number) for number in found.groups())
        assert end - start + 1 == len(request.body) <= _CHUNK
        so_far = state.uploads.get(name, b"")[:start] if start else b""
        if len(so_far) != start:
            raise _No(400, "Chunk out of order")
        state.uploads[name] = so_far + request.body
        return Reply(
            200,
            {
                "remainingByteCount": size - end - 1,
                "usedChunks": {str(start): len(request.body)},
                "totalByteCount": size,
                "localFilePath": _DOWNLOADS + name,
                "temporaryFilePath": f"{_DOWNLOADS}tmp/{name}",
            },
        )

    def _transaction(self, request: Request, path: str) -> Reply:
        if request.method == "POST":
            assert path == "/mgmt/tm/transaction"
            assert request.json() == {}
            number = 1_389_812_351 + len(self.transactions)
            self.transactions[number] = []
            return Reply(200, {"transId": number, "state": "STARTED", "timeoutSeconds": 120})
        number = int(path.rpartition("/")[2])
        assert request.method == "PATCH"
        assert request.json() == {"state": "VALIDATING"}
        if number not in self.transactions:
            raise _No(404, f"there is no transaction {number}")
        after = self.state.copy()
        try:
            for command in self.transactions.pop(number):
                self._apply(after, command)
            self._must_be_valid(after)
        except _No as no:
            body = no.reply.body
            assert isinstance(body, dict)
            body["message"] = f"transaction failed:{body['message']}"
            raise
        self.state = after
        return Reply(200, {"transId": number, "state": "COMPLETED", "kind": "tm:transactionstate"})

    def _must_be_valid(self, state: State) -> None:
        for name, entries in state.profiles.items():
            for entry in entries:
                if not pairs(state.certs[entry["cert"]], state.keys[entry["key"]]):
                    raise _No(
                        400,
                        f"01070317:3: profile {name}'s key({entry['key']}) and "
                        f"certificate({entry['cert']}) do not match.",
                    )

    def _file(self, state: State, request: Request, kind: str, name: str | None) -> Reply:
        store = state.certs if kind == "ssl-cert" else state.keys
        word = "Certificate File" if kind == "ssl-cert" else "Certificate Key File"
        if name is None and request.method == "GET":
            return Reply(200, {"items": [self._shown(kind, n, c) for n, c in store.items()]})
        if name is None:
            assert request.method == "POST"
            body = request.json()
            assert set(body) == {"name", "partition", "sourcePath"}
            assert re.fullmatch(r"[A-Za-z0-9_.-]+", body["name"])
            full = f"/{body['partition']}/{body['name']}"
            if full in store:
                raise _No(
                    409,
                    f"01020066:3: The requested {word} ({full}) already exists in partition "
                    f"{body['partition']}.",
                )
            source = body["sourcePath"].removeprefix("file:").replace("///", "/")
            content = state.uploads.get(source.removeprefix(_DOWNLOADS))
            assert source.startswith(_DOWNLOADS)
            if content is None:
                raise _No(400, f"Failed! exit_code (37). curl: Couldn't open file {source}")
            store[full] = content
            return Reply(200, self._shown(kind, full, content))
        full = name.replace("~", "/")
        if full not in store:
            raise _No(404, f"01020036:3: The requested {word} ({full}) was not found.")
        if request.method == "DELETE":
            used = {entry[part] for e in state.profiles.values() for entry in e for part in _PARTS}
            if full in used:
                raise _No(400, f"01071349:3: File object by name ({full}) is in use.")
            del store[full]
            return Reply(200, b"")
        assert request.method == "GET"
        return Reply(200, self._shown(kind, full, store[full]))

    def _shown(self, kind: str, full: str, content: bytes) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "kind": f"tm:sys:file:{kind}:{kind}state",
            "name": full.rpartition("/")[2],
            "partition": full.split("/")[1],
            "fullPath": full,
            "size": len(content),
        }
        if kind == "ssl-key":
            return {**shown, "keySize": 256, "keyType": "ec-private", "securityType": "normal"}
        leaf = x509.load_pem_x509_certificate(content)
        digest = leaf.fingerprint(hashes.SHA256()).hex().upper()
        colons = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
        is_ec = isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
        return {
            **shown,
            "fingerprint": f"SHA256/{colons}",
            "isBundle": "true" if content.count(b"BEGIN") > 1 else "false",
            "keyType": "ec-public" if is_ec else "rsa-public",
            "subject": leaf.subject.rfc4514_string(),
            "subjectAlternativeName": ", ".join(f"DNS:{n}" for n in subject_names(leaf)),
        }

    def _profile(self, state: State, request: Request, name: str | None) -> Reply:
        if name is None:
            assert request.method == "GET"
            return Reply(200, {"items": [self._shown_profile(state, n) for n in state.profiles]})
        full = name.replace("~", "/")
        if full not in state.profiles:
            raise _No(404, f"01020036:3: The requested Client SSL Profile ({full}) was not found.")
        if request.method == "GET":
            return Reply(200, self._shown_profile(state, full))
        assert request.method == "PATCH"
        body = request.json()
        assert set(body) == {"certKeyChain"}
        entries = []
        for entry in body["certKeyChain"]:
            assert {"name", "cert", "key"} <= set(entry)
            entry = {"appService": "none", "chain": "none", "usage": "SERVER", **entry}
            for part, store in (("cert", state.certs), ("key", state.keys), ("chain", state.certs)):
                if entry[part] not in store and (part, entry[part]) != ("chain", "none"):
                    raise _No(400, f"01070734:3: Configuration error: {entry[part]} does not exist")
            entries.append(entry)
        assert entries
        state.profiles[full] = entries
        return Reply(200, self._shown_profile(state, full))

    def _shown_profile(self, state: State, full: str) -> dict[str, Any]:
        first = state.profiles[full][0]
        references = [
            {
                **entry,
                "certReference": {
                    "link": "https://localhost/mgmt/tm/sys/file/ssl-cert/"
                    + entry["cert"].replace("/", "~")
                },
            }
            for entry in state.profiles[full]
        ]
        return {
            "kind": "tm:ltm:profile:client-ssl:client-sslstate",
            "name": full.rpartition("/")[2],
            "partition": full.split("/")[1],
            "fullPath": full,
            "cert": first["cert"],
            "key": first["key"],
            "chain": first["chain"],
            "certKeyChain": references,
        }

    def _virtual(self, request: Request) -> dict[str, Any]:
        assert request.query.get("expandSubcollections") == "true"
        return {
            "name": "www",
            "fullPath": "/Common/www",
            "destination": f"/Common/127.0.0.1:{self.port}",
            "profilesReference": {
                "items": [
                    {"fullPath": "/Common/tcp", "context": "all"},
                    {"fullPath": PROFILE, "context": "clientside"},
                ]
            },
        }

    def _sync_status(self) -> dict[str, Any]:
        at = "https://localhost/mgmt/tm/cm"
        own, theirs = (
            (one.certs, one.keys, one.profiles, one.requests) for one in (self.state, self.synced)
        )
        same = own == theirs
        status = "In Sync" if same else "Changes Pending"
        details = [f"pair ({status}): " + ("all devices are in sync" if same else "changes wait")]
        if not same:
            details.append(" - Recommended action: Synchronize bigip1.example.test to group pair")
        shown = {
            f"{at}/syncStatus/0/details/{number}": {
                "nestedStats": {"entries": {"details": {"description": text}}}
            }
            for number, text in enumerate(details)
        }
        return {
            "kind": "tm:cm:sync-status:sync-statusstats",
            "selfLink": f"{at}/sync-status?ver=15.1.10",
            "entries": {
                f"{at}/sync-status/0": {
                    "nestedStats": {
                        "entries": {
                            "color": {"description": "green" if same else "yellow"},
                            f"{at}/syncStatus/0/details": {"nestedStats": {"entries": shown}},
                            "mode": {"description": "high-availability"},
                            "status": {"description": status},
                            "summary": {"description": details[0]},
                        }
                    }
                }
            },
        }

    def _self(self) -> dict[str, Any]:
        return {
            "name": "bigip1.example.test",
            "hostname": "bigip1.example.test",
            "selfDevice": "true",
            "failoverState": self.failover,
            "version": "15.1.10",
        }

    def snapshot(self) -> dict[str, bytes]:
        """Return everything stored, running and saved."""
        return {
            name: json.dumps(
                {
                    "certs": {k: v.decode() for k, v in state.certs.items()},
                    "keys": {k: v.decode() for k, v in state.keys.items()},
                    "profiles": state.profiles,
                    "requests": sorted(state.requests),
                    "uploads": sorted(n for n in state.uploads if n.endswith(".key")),
                },
                sort_keys=True,
            ).encode()
            for name, state in (("running", self.state), ("saved", self.saved))
        }


_PARTS = ("cert", "key", "chain")
