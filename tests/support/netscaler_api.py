"""A NetScaler as seen through NITRO, with one SSL virtual server, ``vs_www``.

Shapes from the NITRO reference (doubret/citrix-netscaler-nitro-12-yaml-specs), and
words of errors from clients that quote them (read November 2026).
"""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.device import Device, Reply, Request, pairs

USER, PASSWORD = "certrail", "s3cret-Passphrase"
PAIR = "www_pair"
VSERVER = "vs_www"
_FOLDER = "/nsconfig/ssl"


class _No(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"errorcode": code, "message": message, "severity": "ERROR"})


class NetScaler(Device):
    """The appliance. ``saved`` is what a reboot would load."""

    def __init__(self) -> None:
        super().__init__()
        assert self.old.key is not None
        self.files = {
            "old.crt": self.old.chain.pems[0].encode(),
            "old.key": self.old.key.reveal(),
            "ica.crt": self.old.chain.pems[1].encode(),
        }
        # What was read from the files when they were given.
        self.loaded: dict[str, tuple[bytes, bytes]] = {}
        self.certkeys: dict[str, dict[str, str]] = {}
        self._add({"certkey": "ica", "cert": "ica.crt"})
        self._add({"certkey": PAIR, "cert": "old.crt", "key": "old.key"})
        self.certkeys[PAIR]["linkcertkeyname"] = "ica"
        self.bindings = {VSERVER: PAIR, "vs_new": ""}
        self.saved = self.configuration()
        self.nodes = [{"id": "0", "state": "Primary"}, {"id": "1", "state": "Secondary"}]
        self.read_only = False
        # How many keys it made, and which files were read.
        self.made = 0
        self.given_out: list[str] = []

    def live(self) -> tuple[str, bytes]:
        name = self.bindings[VSERVER]
        certificate, key = self.loaded[name]
        chain = certificate
        while name := self.certkeys[name].get("linkcertkeyname", ""):
            chain += self.loaded[name][0]
        return chain.decode(), key

    def configuration(self) -> str:
        """Return what saving would write."""
        return json.dumps([self.certkeys, getattr(self, "bindings", {})], sort_keys=True)

    def snapshot(self) -> dict[str, bytes]:
        """Return everything stored, running and saved."""
        return {
            **self.files,
            "running": self.configuration().encode(),
            "saved": self.saved.encode(),
        }

    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except _No as no:
            return no.reply

    def _answer(self, request: Request) -> Reply:
        user = request.headers.get("x-nitro-user"), request.headers.get("x-nitro-pass")
        if user != (USER, PASSWORD):
            raise _No(401, 354, "Invalid username or password")
        if self.read_only and request.method != "GET":
            raise _No(403, 2138, "Not authorized to execute this command")
        found = re.fullmatch(r"/nitro/v1/config/(\w+)(?:/([^/]+))?", request.path)
        assert found, "not a documented call"
        kind, name = found.groups()
        handler = {
            "nsversion": self._version,
            "hanode": self._hanode,
            "systemfile": self._systemfile,
            "sslcertkey": self._sslcertkey,
            "sslcertkey_sslvserver_binding": self._bound,
            "sslvserver_sslcertkey_binding": self._binding,
            "nsconfig": self._nsconfig,
            "sslrsakey": self._rsa_key,
            "sslcertreq": self._certreq,
        }[kind]
        return handler(request, name)

    def _version(self, request: Request, name: str | None) -> Reply:
        assert request.method == "GET"
        text = "NetScaler NS13.1: Build 49.13.nc, Date: Jul  5 2023, 06:01:40   (64-bit)"
        return _done({"nsversion": {"version": text, "mode": "1"}})

    def _hanode(self, request: Request, name: str | None) -> Reply:
        assert request.method == "GET"
        return _done({"hanode": self.nodes})

    def _nsconfig(self, request: Request, name: str | None) -> Reply:
        if request.method == "GET":
            assert not request.query
            changed = self.saved != self.configuration()
            shown = {"ipaddress": "192.0.2.10", "systemtype": "HA", "configchanged": changed}
            return _done({"nsconfig": [shown]})
        assert request.method == "POST"
        assert request.query == {"action": "save"}
        assert request.json() == {"nsconfig": {}}
        self.saved = self.configuration()
        return Reply(200, b"")

    def _rsa_key(self, request: Request, name: str | None) -> Reply:
        body = _created(request, "sslrsakey")
        assert set(body) == {"keyfile", "bits", "keyform"}
        assert len(body["keyfile"]) <= 63
        assert body["keyform"] == "PEM"
        assert 512 <= body["bits"] <= 4096
        self.made += 1
        key = _rsa(self.made, body["bits"])
        none = serialization.NoEncryption()
        old = serialization.PrivateFormat.TraditionalOpenSSL
        self.files[body["keyfile"]] = key.private_bytes(Encoding.PEM, old, none)
        return Reply(200, b"")

    def _certreq(self, request: Request, name: str | None) -> Reply:
        body = _created(request, "sslcertreq")
        subject = {"countryname", "statename", "organizationname"}
        assert set(body) - {"commonname"} == {
            *("reqfile", "keyfile", "keyform", "digestmethod", "subjectaltname"),
            *subject,
        }
        assert len(body["reqfile"]) <= 63
        assert (body["keyform"], body["digestmethod"]) == ("PEM", "SHA256")
        assert "*" not in body.get("commonname", "")
        # How several are written the reference does not say.
        named = re.fullmatch(r"DNS:([^ ,]+)", body["subjectaltname"])
        assert named
        if body["keyfile"] not in self.files:
            raise _No(_APPLIANCE, 1629, "File not found")
        key = serialization.load_pem_private_key(self.files[body["keyfile"]], None)
        assert isinstance(key, rsa.RSAPrivateKey)
        parts = [x509.NameAttribute(_SUBJECT[one], body[one]) for one in _SUBJECT if one in body]
        names = x509.SubjectAlternativeName([x509.DNSName(named[1])])
        builder = x509.CertificateSigningRequestBuilder(x509.Name(parts))
        signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
        self.files[body["reqfile"]] = signed.public_bytes(Encoding.PEM)
        return Reply(200, b"")

    def _systemfile(self, request: Request, name: str | None) -> Reply:
        if request.method == "POST":
            body = request.json()["systemfile"]
            assert set(body) == {"filename", "filelocation", "filecontent", "fileencoding"}
            assert len(body["filename"]) <= 63
            assert body["filelocation"] == _FOLDER
            assert body["fileencoding"] == "BASE64"
            if body["filename"] in self.files:
                raise _No(409, 1642, "File already exists")
            self.files[body["filename"]] = base64.b64decode(body["filecontent"], validate=True)
            return Reply(201, b"")
        given = dict(part.split(":", 1) for part in request.query["args"].split(","))
        assert given["filelocation"] == _FOLDER
        file = name or given["filename"]
        if file not in self.files:
            raise _No(404, _NONE, "No such resource")
        if request.method == "DELETE":
            del self.files[file]
            return _done({})
        assert request.method == "GET"
        self.given_out.append(file)
        content = base64.b64encode(self.files[file]).decode()
        shown = {"filename": file, "filelocation": _FOLDER, "filecontent": content}
        return _done({"systemfile": [{**shown, "fileencoding": "BASE64"}]})

    def _sslcertkey(self, request: Request, name: str | None) -> Reply:
        if request.method == "GET":
            names = list(self.certkeys) if name is None else [name]
            return _done({"sslcertkey": [self._existing(one) for one in names]})
        if request.method == "DELETE":
            assert name
            self._existing(name)
            if name in self.bindings.values() or any(
                one.get("linkcertkeyname") == name for one in self.certkeys.values()
            ):
                raise _No(_APPLIANCE, 1537, "Certificate is referenced by a vserver or link")
            del self.certkeys[name], self.loaded[name]
            return _done({})
        assert request.method == "POST"
        body = request.json()["sslcertkey"]
        match request.query.get("action"):
            case None:
                assert set(body) <= {"certkey", "cert", "key"}
                self._add(body)
                return Reply(201, b"")
            case "update":
                assert set(body) == {"certkey", "cert", "key", "nodomaincheck"}
                self._existing(body["certkey"])
                loaded = self._load(body)
                self.loaded[body["certkey"]] = loaded
                self.certkeys[body["certkey"]] |= {"cert": body["cert"], "key": body["key"]}
            case "link":
                assert set(body) == {"certkey", "linkcertkeyname"}
                self._link(body["certkey"], body["linkcertkeyname"])
            case "unlink":
                assert set(body) == {"certkey"}
                self._existing(body["certkey"]).pop("linkcertkeyname", None)
                self.certkeys[body["certkey"]].pop("linkcertkeyname", None)
            case other:
                raise AssertionError(other)
        return Reply(200, b"")

    def _existing(self, name: str) -> dict[str, str]:
        if name not in self.certkeys:
            raise _No(404, _NONE, "No such resource")
        return dict(self.certkeys[name])

    def _load(self, body: dict[str, str]) -> tuple[bytes, bytes]:
        files = []
        for part in ("cert", "key"):
            file = body.get(part, "").removeprefix(f"{_FOLDER}/")
            if file and file not in self.files:
                raise _No(_APPLIANCE, 1629, "File not found")
            files.append(self.files.get(file, b""))
        if files[1] and not pairs(files[0], files[1]):
            raise _No(_APPLIANCE, 1614, "Invalid private key, or PEM pass phrase required")
        return files[0], files[1]

    def _add(self, body: dict[str, str]) -> None:
        name = body["certkey"]
        if name in self.certkeys:
            raise _No(409, 273, f"Resource already exists [certkeyName, {name}]")
        loaded = self._load(body)
        for other, (certificate, _) in self.loaded.items():
            if _first(certificate) == _first(loaded[0]):
                raise _No(409, 273, f"Resource already exists [certkeyName Contents, {other}]")
        self.loaded[name] = loaded
        self.certkeys[name] = dict(body)

    def _link(self, name: str, issuer: str) -> None:
        self._existing(issuer)
        if self._existing(name).get("linkcertkeyname", issuer) != issuer:
            raise _No(409, 1540, "Certificate already linked")
        lower = x509.load_pem_x509_certificate(self.loaded[name][0])
        try:
            lower.verify_directly_issued_by(x509.load_pem_x509_certificate(self.loaded[issuer][0]))
        except (ValueError, InvalidSignature) as exc:
            raise _No(_APPLIANCE, 1551, "Certificate issuer mismatch") from exc
        self.certkeys[name]["linkcertkeyname"] = issuer

    def _bound(self, request: Request, name: str | None) -> Reply:
        assert request.method == "GET"
        assert name
        found = [v for v, pair in self.bindings.items() if pair == name]
        # Where nothing is bound, the answer has no list at all.
        if not found:
            return _done({})
        shown = [{"certkey": name, "servername": vserver} for vserver in found]
        return _done({"sslcertkey_sslvserver_binding": shown})

    def _binding(self, request: Request, name: str | None) -> Reply:
        if request.method == "PUT":
            body = request.json()["sslvserver_sslcertkey_binding"]
            assert set(body) == {"vservername", "certkeyname"}
            self._existing(body["certkeyname"])
            if body["vservername"] not in self.bindings:
                raise _No(404, _NONE, "No such resource")
            self.bindings[body["vservername"]] = body["certkeyname"]
            return Reply(201, b"")
        assert request.method == "DELETE"
        assert name
        certkey = request.query["args"].removeprefix("certkeyname:")
        if self.bindings.get(name) != certkey:
            raise _No(404, _NONE, "No such resource")
        self.bindings[name] = ""
        return _done({})


_NONE = 258
_APPLIANCE = 599


_SUBJECT = {
    "countryname": x509.NameOID.COUNTRY_NAME,
    "statename": x509.NameOID.STATE_OR_PROVINCE_NAME,
    "organizationname": x509.NameOID.ORGANIZATION_NAME,
    "commonname": x509.NameOID.COMMON_NAME,
}


@cache
def _rsa(number: int, bits: int) -> rsa.RSAPrivateKey:
    """Return the key that an appliance makes as its *number*th; making one takes its time."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _created(request: Request, kind: str) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.query == {"action": "create"}
    body: dict[str, Any] = request.json()[kind]
    return body


def _first(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def _done(more: dict[str, Any]) -> Reply:
    return Reply(200, {"errorcode": 0, "message": "Done", "severity": "NONE", **more})
