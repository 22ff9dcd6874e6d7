"""An A10 Thunder as seen through aXAPI v3, with one HTTPS virtual port.

Shapes from A10's reference ("slb template client-ssl", ACOS 5.2.1), from A10's
``acos-client`` 2.10, and from clients that use ``client-ssl/NAME/certificate`` and
``pki/delete`` (read November 2026).
"""

from __future__ import annotations

import json
import re
import secrets
from email import message_from_bytes
from typing import Any

from tests.support.device import Device, Reply, Request, pairs

USER, PASSWORD = "certrail", "s3cret-Passphrase"
TEMPLATE = "www_ssl"
_NOT_THERE = 1023460352


class _No(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(
            status, {"response": {"status": "fail", "err": {"code": code, "msg": message}}}
        )


class A10(Device):
    """The device. ``saved`` is what a reboot would load."""

    def __init__(self) -> None:
        super().__init__()
        assert self.old.key is not None
        self.certs = {"old": self.old.chain.text.encode()}
        self.keys = {"old": self.old.key.reveal()}
        self.templates: dict[str, list[dict[str, str]]] = {
            TEMPLATE: [{"cert": "old", "key": "old"}]
        }
        self.sessions: set[str] = set()
        self.version = "5.2.1-p6, build 74 (Dec-20-2022,06:10)"
        self.read_only = False
        self.saved = self.configuration()

    def live(self) -> tuple[str, bytes]:
        entry = self.templates[TEMPLATE][0]
        chain = self.certs.get(entry.get("chain-cert", ""), b"")
        return (self.certs[entry["cert"]] + chain).decode(), self.keys[entry["key"]]

    def configuration(self) -> str:
        """Return what saving would write."""
        return json.dumps(self.templates, sort_keys=True)

    def snapshot(self) -> dict[str, bytes]:
        """Return everything stored, running and saved."""
        return {
            **{f"cert {name}": content for name, content in self.certs.items()},
            **{f"key {name}": content for name, content in self.keys.items()},
            "running": self.configuration().encode(),
            "saved": self.saved.encode(),
        }

    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except _No as no:
            return no.reply

    def _answer(self, request: Request) -> Reply:
        assert request.path.startswith("/axapi/v3/")
        path = request.path.removeprefix("/axapi/v3/").rstrip("/")
        if path == "auth":
            return self._login(request)
        kind, _, signature = request.headers.get("authorization", "").partition(" ")
        if kind != "A10" or signature not in self.sessions:
            return _unauthorized(401, "Invalid admin session.")
        if path == "logoff":
            self.sessions.discard(signature)
            return Reply(200, {"response": {"status": "OK"}})
        if self.read_only and request.method != "GET":
            return _unauthorized(403, "Permission denied")
        match request.method, path.split("/"):
            case "GET", ["version", "oper"]:
                return Reply(200, {"version": {"oper": {"sw-version": self.version}}})
            case "POST", ["file", ("ssl-cert" | "ssl-key") as what]:
                return self._upload(request, what)
            case "GET", ["file", "ssl-cert", name]:
                if name not in self.certs:
                    raise _No(404, _NOT_THERE, "Object specified does not exist (object: ssl-cert)")
                return Reply(200, self.certs[name], {"Content-Type": "text/plain"})
            case "GET", ["slb", "template", "client-ssl"]:
                if not self.templates:
                    return Reply(204, b"")
                shown = [self._shown(name) for name in self.templates]
                return Reply(200, {"client-ssl-list": shown})
            case "GET", ["slb", "template", "client-ssl", name]:
                self._must_exist(name)
                return Reply(200, {"client-ssl": self._shown(name)})
            case "PUT", ["slb", "template", "client-ssl", name, "certificate"]:
                return self._put(name, request.json())
            case "GET", ["slb", "virtual-server"]:
                port = {"port-number": self.port, "protocol": "https"}
                server = {"name": "www", "ip-address": "127.0.0.1"}
                ports = [{**port, "template-client-ssl": TEMPLATE}]
                return Reply(200, {"virtual-server-list": [{**server, "port-list": ports}]})
            case "POST", ["pki", "delete"]:
                return self._delete(request.json()["delete"])
            case "POST", ["write", "memory"]:
                assert not request.body
                self.saved = self.configuration()
                return Reply(200, {"response": {"status": "OK"}})
        raise AssertionError("not a documented call")

    def _login(self, request: Request) -> Reply:
        body = request.json()["credentials"]
        if (body["username"], body["password"]) != (USER, PASSWORD):
            return _unauthorized(403, "Incorrect user name or password")
        signature = secrets.token_hex(15)
        self.sessions.add(signature)
        text = "the signature should be set in Authorization header for following request."
        return Reply(200, {"authresponse": {"signature": signature, "description": text}})

    def _upload(self, request: Request, what: str) -> Reply:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        form: dict[str, bytes] = {}
        for part in message_from_bytes(head + request.body).walk():
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                form[str(part.get_param("name", header="content-disposition"))] = content
        assert set(form) == {"json", "file"}
        body = json.loads(form["json"])[what]
        assert body["action"] == "import"
        assert body["file"] == body["file-handle"]
        assert re.fullmatch(r"[\w.-]{1,63}", body["file"])
        if what == "ssl-cert":
            assert body["certificate-type"] == "pem"
        (self.certs if what == "ssl-cert" else self.keys)[body["file"]] = form["file"]
        return Reply(204, b"")

    def _must_exist(self, name: str) -> None:
        if name not in self.templates:
            raise _No(404, _NOT_THERE, "Object specified does not exist (object: client-ssl)")

    def _shown(self, name: str) -> dict[str, Any]:
        link = f"/axapi/v3/slb/template/client-ssl/{name}"
        entries = [
            {
                **entry,
                "uuid": secrets.token_hex(8),
                "a10-url": f"{link}/certificate/{entry['cert']}",
            }
            for entry in self.templates[name]
        ]
        return {"name": name, "certificate-list": entries, "a10-url": link}

    def _put(self, name: str, body: Any) -> Reply:
        self._must_exist(name)
        assert set(body) == {"certificate-list"}
        for entry in body["certificate-list"]:
            assert {"cert", "key"} <= set(entry) <= {"cert", "key", "chain-cert"}, entry
            if entry["cert"] not in self.certs or entry["key"] not in self.keys:
                raise _No(404, _NOT_THERE, "Certificate or key file does not exist")
            if not pairs(self.certs[entry["cert"]], self.keys[entry["key"]]):
                raise _No(400, 1023459393, "Key and certificate do not match")
        self.templates[name] = body["certificate-list"]
        return Reply(200, body)

    def _delete(self, body: dict[str, str]) -> Reply:
        assert set(body) <= {"cert-name", "private-key"}
        used = {
            value for entries in self.templates.values() for e in entries for value in e.values()
        }
        for kind, store in (("cert-name", self.certs), ("private-key", self.keys)):
            name = body.get(kind)
            if name is None:
                continue
            if name in used:
                raise _No(400, 33619969, "The object is in use")
            if store.pop(name, None) is None:
                raise _No(404, _NOT_THERE, "Object specified does not exist")
        return Reply(204, b"")


def _unauthorized(code: int, error: str) -> Reply:
    uris = {"auth_uri": "/axapi/v3/auth", "logoff_uri": "/axapi/v3/logoff"}
    body = {"code": code, "error": error, **uris, "username": "required", "password": "required"}
    return Reply(code, {"authorizationschema": body})
