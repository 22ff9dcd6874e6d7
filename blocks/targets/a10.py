"""A10 Thunder (ACOS) through aXAPI v3.

Calls (A10 "aXAPI v3" reference, pages "slb template client-ssl" of ACOS 5.2.1 and
6.0.1; A10's own ``acos-client`` 2.10, modules ``session``, ``file.ssl_cert``,
``file.ssl_key``, ``responses``; the certificate orchestrator of Keyfactor for A10
vThunder; looked up November 2026):

* ``POST auth`` gives a signature for ``Authorization: A10 …``; ``POST logoff`` ends it;
* ``POST file/ssl-cert`` and ``file/ssl-key`` take a form with a part ``json`` and a part
  ``file``; ``GET file/ssl-cert/NAME`` answers with the PEM text;
* ``PUT slb/template/client-ssl/NAME/certificate`` replaces the template's list of
  certificates (``cert``, ``key``, ``chain-cert``) in one call, since ACOS 5.2;
* ``POST pki/delete`` removes files; ``POST write/memory`` saves.

No device was at hand: this was tried against a fake made from these sources only.
Not verified: that ``PUT`` of the list is refused as a whole for a key that does not fit
(whatever it does, the list is read back), whether file names may be longer than 63,
L3V partitions other than the shared one, and the roles of VRRP-A (address the active
device).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
from cryptography import x509
from pydantic import Field, SecretStr

from blocks._base import TargetBlock, open_secret
from blocks._target import (
    is_ours,
    must_be_https,
    must_replace,
    must_take,
    object_name,
    short,
)
from certrail.connectors import InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    AuthenticationFailed,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.log import effect, logger, plain
from certrail.model import (
    Bundle,
    Fingerprint,
    Site,
    Staged,
    fingerprint,
    key_text,
    subject_names,
)
from certrail.remote import http

_LONGEST_NAME = 63
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,63}")
_PARTS = ("cert", "key", "chain-cert")
# What a list entry is made of besides; the device adds links and ids of its own.
_KEPT = (*_PARTS, "passphrase", "shared")
_OLDEST = (5, 2)


class A10(TargetBlock):
    """Replace the certificate of client-SSL templates on an A10 Thunder.

    The site is the template in the shared partition. Of several certificates in it
    (one for each kind of key), `cert` of the endpoint's server names the one to
    replace at first. In a VRRP-A set, address the active device.
    """

    _block_type_slug = "target-a10"
    _block_type_name = "Install target: A10 Thunder"

    url: str = Field(description="Management address, such as https://adc1.example.com.")
    username: str = Field(min_length=1, description="Account that may change certificates.")
    password: SecretStr = Field(description="Its password, or a reference to it.")
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the address; empty: system."
    )
    timeout: int = Field(default=30, ge=1, le=300, description="Seconds a call may take.")

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        must_be_https(self.url, "the device")
        with http.client(
            self.url, ca_bundle=self.ca_bundle, timeout=timedelta(seconds=self.timeout)
        ) as client:
            session = AxapiSession(client, self.label, self.username, open_secret(self.password))
            try:
                yield A10Target(session)
            finally:
                session.close()


class AxapiSession:
    """Calls with a session, which is asked for at the first call and given back at the end."""

    def __init__(self, client: httpx.Client, label: str, username: str, password: str) -> None:
        self._client = client
        self.label = label
        self._credentials = {"username": username, "password": password}
        self._signature = ""

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one call.

        Raises:
            Rejected: the device failed it, whatever the HTTP status; ``code`` is its own.
        """
        if not self._signature:
            self._signature = self._log_in()
        headers = {"Authorization": f"A10 {self._signature}"}
        try:
            reply = http.send(
                self._client, self.label, method, f"/axapi/v3/{path}", headers=headers, **more
            )
        except AuthenticationFailed:
            self._signature = ""
            raise
        except PermissionRefused as exc:
            exc.remedy = "Give the account write access to slb, file and pki in the partition."
            raise
        if reply.content.lstrip()[:1] == b"{":
            answer = http.json_of(reply, dict).get("response")
            if isinstance(answer, dict) and answer.get("status") == "fail":
                error = answer.get("err") or {}
                raise Rejected(
                    f"{self.label}: {method} {path}: {plain(error.get('msg', 'failed'))[:300]}",
                    connector=self.label,
                    code=str(error.get("code", "")),
                )
        return reply

    def read(self, path: str) -> dict[str, Any]:
        """Return the object at *path*; nothing there (204) is an empty one."""
        reply = self.call("GET", path)
        return http.json_of(reply, dict) if reply.content.strip() else {}

    def close(self) -> None:
        """End the session; a device has room for few of them."""
        if self._signature:
            try:
                self.call("POST", "logoff")
            except ConnectorError as exc:
                logger.warning("a10.logoff failed: %s", exc)
            self._signature = ""

    def _log_in(self) -> str:
        try:
            reply = http.send(
                self._client,
                self.label,
                "POST",
                "/axapi/v3/auth",
                json={"credentials": self._credentials},
                hide=[self._credentials["password"]],
            )
        except PermissionRefused as exc:
            # A wrong password is a 403 here.
            raise AuthenticationFailed(
                f"{self.label}: the device refused user name or password",
                connector=self.label,
                code=exc.code,
            ) from exc
        answer = http.json_of(reply, dict).get("authresponse")
        signature = answer.get("signature") if isinstance(answer, dict) else None
        if not isinstance(signature, str) or not signature.isalnum():
            raise UnexpectedReply(f"{self.label}: a login without signature", connector=self.label)
        return signature


class A10Target(InstallTarget):
    """The shared partition of one A10."""

    traits = Traits(
        restores_by="the template is pointed at the old files again, which stay until the new "
        "certificate has passed its test",
        needs_save=True,
        longest_name=_LONGEST_NAME,
    )

    def __init__(self, session: AxapiSession) -> None:
        self._session = session
        self._label = session.label

    def check(self) -> str:
        version = self._must_be_usable()
        return f"ACOS {version}, {len(self._templates())} client-SSL templates"

    def sites(self) -> Iterator[Site]:
        servers = self._session.read("slb/virtual-server").get("virtual-server-list", [])
        for template in self._templates():
            name = str(template.get("name", ""))
            entry: dict[str, Any] = next(iter(template.get("certificate-list", [])), {})
            leaf = self._leaf(str(entry.get("cert", "")))
            listens = tuple(
                f"{server.get('ip-address', '')}:{port.get('port-number', '')}"
                for server in servers
                for port in server.get("port-list", [])
                if port.get("template-client-ssl") == name
            )
            yield Site(
                name,
                subject_names(leaf) if leaf else (),
                listens,
                tls=bool(listens),
                fingerprint=fingerprint(leaf) if leaf else None,
            )

    def serving(self, site: Site) -> Fingerprint | None:
        entry = self._entry(self._list(site.id), site.settings, site.id)
        return self._fingerprint(entry)

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        key = must_take(bundle, self.traits, "A10")
        new = bundle.chain.fingerprint
        self._must_be_usable()
        entry = self._entry(self._list(site.id), site.settings, site.id)
        present = self._fingerprint(entry)
        must_replace(present, replaces, new, site.id, self._label)
        stem = object_name(site.id, new, _LONGEST_NAME - len("_chain"))
        rest = "".join(bundle.chain.pems[1:])
        files = {"cert": stem, "key": stem, "chain-cert": f"{stem}_chain" if rest else ""}
        # The key is sent each time: it cannot be read back to be compared.
        self._upload("ssl-key", files["key"], key)
        self._upload("ssl-cert", files["cert"], bundle.chain.pems[0].encode())
        if rest:
            self._upload("ssl-cert", files["chain-cert"], rest.encode())
        effect("target.stage", connector=self._label, template=site.id, files=stem)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"A10: {site.id} gets {key_text(bundle.chain.leaf)} as {stem}",
            {"new": files, "old": {part: str(entry.get(part, "")) for part in _PARTS}},
        )

    def activate(self, staged: Staged) -> str:
        entries = self._list(staged.site)
        new, old = staged.data["new"], staged.data["old"]
        if any(one.get("cert") == new["cert"] for one in entries):
            # Switched before, by whatever ended before it could be saved.
            self._save()
            return f"A10: {short(staged.fingerprint)} was live already, nothing changed"
        if not any(one.get("cert", "") == old["cert"] for one in entries) and old["cert"]:
            raise Conflict(
                f"{self._label}: {staged.site} no longer has {plain(old['cert'])}: another "
                "certificate was installed since this one was staged",
                connector=self._label,
            )
        self._point_at(staged.site, entries, old["cert"], new)
        self._save()
        effect("target.activate", connector=self._label, template=staged.site)
        return f"A10: {staged.site} points to {new['cert']}, saved"

    def restore(self, staged: Staged) -> str:
        entries = self._list(staged.site)
        new, old = staged.data["new"], staged.data["old"]
        if not any(one.get("cert") == new["cert"] for one in entries):
            if old["cert"] and not any(one.get("cert") == old["cert"] for one in entries):
                raise Conflict(
                    f"{self._label}: {staged.site} was changed by somebody else since",
                    connector=self._label,
                )
            return "A10: nothing to put back"
        if new["cert"] == old["cert"]:
            return "A10: nothing to put back"
        self._point_at(staged.site, entries, new["cert"], old)
        self._save()
        effect("target.restore", connector=self._label, template=staged.site)
        return f"A10: {staged.site} points to {plain(old['cert'] or 'nothing')} again, saved"

    def discard(self, staged: Staged) -> None:
        new, old = staged.data["new"], staged.data["old"]
        live = any(one.get("cert") == new["cert"] for one in self._list(staged.site))
        gone = old if live else new
        used = {
            str(entry.get(part, ""))
            for template in self._templates()
            for entry in template.get("certificate-list", [])
            for part in _PARTS
        }
        names = {"cert-name": str(gone["cert"]), "private-key": str(gone["key"])}
        chain = {"cert-name": str(gone["chain-cert"])}
        for request in (names, chain):
            # What somebody else put there is theirs to remove.
            ours = {
                kind: name
                for kind, name in request.items()
                if is_ours(name.removesuffix("_chain")) and name not in used
            }
            if ours:
                self._delete(ours)

    def _must_be_usable(self) -> str:
        oper = self._session.read("version/oper").get("version", {})
        text = str(oper.get("oper", {}).get("sw-version", "")) if isinstance(oper, dict) else ""
        found = re.match(r"(\d+)\.(\d+)", text)
        if found is None:
            raise UnexpectedReply(f"{self._label}: not an A10", connector=self._label)
        if (int(found[1]), int(found[2])) < _OLDEST:
            raise InvalidRequest(
                f"{self._label}: ACOS {plain(text)[:40]} is too old",
                remedy="ACOS 5.2 or later is needed: before, certificate and key of a template "
                "are changed one after the other.",
            )
        return plain(text).partition(",")[0]

    def _templates(self) -> list[dict[str, Any]]:
        found = self._session.read("slb/template/client-ssl").get("client-ssl-list", [])
        return [one for one in found if isinstance(one, dict)]

    def _list(self, name: str) -> list[dict[str, Any]]:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"not a client-SSL template: {plain(name)!r}",
                remedy="Set the endpoint's site to the template's name.",
            )
        try:
            found = self._session.read(f"slb/template/client-ssl/{_segment(name)}")
        except NotFound as exc:
            exc.remedy = "Set the endpoint's site to a client-SSL template of the device."
            raise
        template = found.get("client-ssl")
        if not isinstance(template, dict):
            raise UnexpectedReply(f"{self._label}: a template without content")
        return [dict(one) for one in template.get("certificate-list", [])]

    def _entry(
        self, entries: list[dict[str, Any]], settings: Mapping[str, Any], site: str
    ) -> dict[str, Any]:
        """Return the entry to replace, an empty one where the template has none."""
        wanted = str(settings.get("cert", ""))
        # After the first time it has a name of ours.
        ours = [one for one in entries if is_ours(str(one.get("cert", "")))]
        named = [one for one in entries if one.get("cert") == wanted]
        for found in (entries, named, ours):
            if len(found) == 1:
                return found[0]
        if not entries:
            return {}
        names = ", ".join(str(one.get("cert")) for one in entries)
        raise InvalidRequest(
            f"{self._label}: {site} has {len(entries)} certificates",
            remedy=f"Set cert of the endpoint's server to one of them: {plain(names)}",
        )

    def _fingerprint(self, entry: Mapping[str, Any]) -> Fingerprint | None:
        leaf = self._leaf(str(entry.get("cert", "")))
        return fingerprint(leaf) if leaf else None

    def _leaf(self, name: str) -> x509.Certificate | None:
        if not name:
            return None
        try:
            reply = self._session.call("GET", f"file/ssl-cert/{_segment(name)}")
            return x509.load_pem_x509_certificate(reply.content)
        except (NotFound, ValueError):
            return None

    def _upload(self, kind: str, name: str, content: bytes) -> None:
        body: dict[str, Any] = {"file": name, "file-handle": name, "action": "import"}
        if kind == "ssl-cert":
            body["certificate-type"] = "pem"
        form = {
            "json": ("blob", json.dumps({kind: body}).encode(), "application/json"),
            "file": (name, content, "application/octet-stream"),
        }
        self._session.call("POST", f"file/{kind}", files=form)

    def _point_at(
        self, site: str, entries: list[dict[str, Any]], old: str, files: Mapping[str, str]
    ) -> None:
        given = {part: files[part] for part in _PARTS if files[part]}
        changed = [given] if not old else []
        for entry in entries:
            if old and entry.get("cert") == old:
                changed += [given] if given else []
            else:
                changed.append({part: entry[part] for part in _KEPT if part in entry})
        try:
            self._session.call(
                "PUT",
                f"slb/template/client-ssl/{_segment(site)}/certificate",
                json={"certificate-list": changed},
            )
        except (Rejected, Conflict, NotFound) as exc:
            raise ActivationRefused(
                f"A10 refused the certificate: {exc}",
                remedy="Correct what the device complains about, then retry: no new order is made.",
            ) from exc
        present = [one.get("cert") for one in self._list(site)]
        if present != [one.get("cert") for one in changed]:
            raise ActivationRefused(
                f"A10 took the change of {site}, but the template has "
                f"{plain(', '.join(map(str, present)) or 'no certificate')}",
                remedy="Look at the template and at the device's log.",
            )

    def _delete(self, names: Mapping[str, str]) -> None:
        try:
            self._session.call("POST", "pki/delete", json={"delete": dict(names)})
        except NotFound:
            return
        effect("target.discard", connector=self._label, files=", ".join(names.values()))

    def _save(self) -> None:
        self._session.call("POST", "write/memory")


def _segment(name: str) -> str:
    return quote(name, safe="")
