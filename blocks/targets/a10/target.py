"""The client-SSL templates of one A10."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from cryptography import x509

from blocks._target import is_ours, must_replace, must_take, object_name, short
from blocks.targets.a10.session import AxapiSession
from certrail.connectors import InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Conflict,
    InvalidRequest,
    NotFound,
    Rejected,
    UnexpectedReply,
)
from certrail.log import effect, plain
from certrail.model import (
    UNREADABLE,
    Bundle,
    Fingerprint,
    Site,
    Staged,
    fingerprint,
    key_text,
    subject_names,
)

_LONGEST_NAME = 63
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,63}")
_PARTS = ("cert", "key", "chain-cert")
# What a list entry is made of besides; the device adds links and ids of its own.
_KEPT = (*_PARTS, "passphrase", "shared")
_OLDEST = (5, 2)


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
        servers = _objects(self._session.read("slb/virtual-server"), "virtual-server-list")
        for template in self._templates():
            name = str(template.get("name", ""))
            entry: dict[str, Any] = next(iter(_objects(template, "certificate-list")), {})
            leaf = self._leaf(str(entry.get("cert", "")))
            listens = tuple(
                f"{server.get('ip-address', '')}:{port.get('port-number', '')}"
                for server in servers
                for port in _objects(server, "port-list")
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
            for entry in _objects(template, "certificate-list")
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
        facts = oper.get("oper") if isinstance(oper, dict) else None
        text = str(facts.get("sw-version", "")) if isinstance(facts, dict) else ""
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
        return _objects(self._session.read("slb/template/client-ssl"), "client-ssl-list")

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
        return [dict(one) for one in _objects(template, "certificate-list")]

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
        except (NotFound, *UNREADABLE):
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


def _objects(reply: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects *key* of a reply; none there is an empty one."""
    found = reply.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UnexpectedReply(f"A10: {key} is no list of objects")
    return found


def _segment(name: str) -> str:
    return quote(name, safe="")
