"""NetScaler ADC (Citrix ADC) through NITRO.

Calls (NITRO reference of ``systemfile``, ``sslcertkey``, ``nsconfig`` and ``hanode``,
as kept in doubret/citrix-netscaler-nitro-12-yaml-specs and the ADC documentation
"Install, link, and update certificates"; looked up November 2026):

* account and password go into ``X-NITRO-USER`` and ``X-NITRO-PASS`` of each call;
* ``POST systemfile`` writes a file, ``GET systemfile?args=filename:…,filelocation:…``
  reads it: a certificate's fingerprint is in no other answer;
* ``POST sslcertkey?action=update`` gives an object other files and keeps its bindings;
  ``nodomaincheck`` allows other names; ``link`` and ``unlink`` set its issuer, which
  has to be unlinked before another can be linked;
* the same certificate cannot be added under two names: error 273, "Resource already
  exists [certkeyName Contents, NAME]";
* ``POST nsconfig?action=save``; ``GET hanode`` tells the state of the pair, whose
  secondary gets configuration and files from the primary.

No device was at hand: this was tried against a fake made from these sources only.
Not verified: whether ``update`` keeps the link (so it is read again and set when it
does not), how long object names may be, and codes of errors other than 258, 273, 354.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization
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

_FOLDER = "/nsconfig/ssl"
_LONGEST_FILE = 63
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_#. :@=-]*")
# NITRO's own status for errors of the appliance.
_APPLIANCE_ERROR = 599
_NO_SUCH_RESOURCE = 258


class NetScaler(TargetBlock):
    """Replace the files of certificate-key pairs on a NetScaler ADC.

    The site is the certificate-key pair (`sslcertkey`). One that is not there yet
    is made and bound to the virtual server that `vserver` of the endpoint's server
    names. In a pair of appliances, address the primary.
    """

    _block_type_slug = "target-netscaler"
    _block_type_name = "Install target: NetScaler ADC"

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
        must_be_https(self.url, "the appliance")
        with nitro_client(
            self.url,
            self.username,
            open_secret(self.password),
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield NetScalerTarget(client, self.label)


def nitro_client(
    url: str,
    username: str,
    password: str,
    *,
    ca_bundle: str = "",
    timeout: timedelta = timedelta(seconds=30),
) -> httpx.Client:
    """Return a client that logs in with each call, so that no session is left behind."""
    return http.client(
        url,
        headers={"X-NITRO-USER": username, "X-NITRO-PASS": password},
        ca_bundle=ca_bundle,
        timeout=timeout,
    )


class NetScalerTarget(InstallTarget):
    """One NetScaler."""

    traits = Traits(
        restores_by="the pair gets its old files again, which stay until the new ones have "
        "passed their test",
        needs_save=True,
        longest_name=_LONGEST_FILE,
    )

    def __init__(self, client: httpx.Client, label: str) -> None:
        self._client = client
        self._label = label

    def check(self) -> str:
        version = self._read("nsversion")
        if not version or "version" not in version[0]:
            raise UnexpectedReply(f"{self._label}: not a NetScaler", connector=self._label)
        state = self._must_be_primary()
        text = plain(version[0]["version"]).split(", Date")[0]
        return f"{text}, {state}, {len(self._read('sslcertkey'))} certificate-key pairs"

    def sites(self) -> Iterator[Site]:
        for pair in self._read("sslcertkey"):
            if not pair.get("key"):
                continue
            leaf = self._leaf(pair)
            bound = self._read(f"sslcertkey_sslvserver_binding/{_segment(str(pair['certkey']))}")
            yield Site(
                str(pair["certkey"]),
                subject_names(leaf) if leaf else (),
                tls=bool(bound),
                fingerprint=fingerprint(leaf) if leaf else None,
            )

    def serving(self, site: Site) -> Fingerprint | None:
        pair = self._pair(_checked(site.id))
        leaf = self._leaf(pair) if pair else None
        return fingerprint(leaf) if leaf else None

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        key = must_take(bundle, self.traits, "NetScaler")
        new = bundle.chain.fingerprint
        name = _checked(site.id)
        self._must_be_primary()
        pair = self._pair(name)
        vserver = str(site.settings.get("vserver", ""))
        if pair is None and not vserver:
            raise NotFound(
                f"{self._label}: there is no certificate-key pair {plain(name)}",
                remedy="Correct the endpoint's site; or set vserver of its server to the virtual "
                "server that a new pair shall be bound to.",
                connector=self._label,
            )
        present = self.serving(site)
        must_replace(present, replaces, new, name, self._label)
        stem = object_name(name, new, _LONGEST_FILE - len(".crt"))
        self._write_file(f"{stem}.key", key)
        self._write_file(f"{stem}.crt", bundle.chain.pems[0].encode())
        issuer = self._add_issuers(bundle)
        effect("target.stage", connector=self._label, pair=name, files=stem)
        verb = "gets" if pair else f"is made and bound to {vserver} with"
        return Staged(
            site.id,
            new,
            replaces or present,
            f"NetScaler: {name} {verb} {key_text(bundle.chain.leaf)} as {stem}",
            {
                "stem": stem,
                "issuer": issuer,
                "vserver": "" if pair else vserver,
                "old": {
                    part: str((pair or {}).get(part, ""))
                    for part in ("cert", "key", "linkcertkeyname")
                },
            },
        )

    def activate(self, staged: Staged) -> str:
        name, wanted = _checked(staged.site), self._wanted(staged)
        pair = self._pair(name)
        if pair is not None and pair.get("cert") == wanted["cert"]:
            # Done before, by whatever ended before all of it was.
            self._link(name, str(staged.data["issuer"]))
            self._bind(staged)
            self._save()
            return f"NetScaler: {short(staged.fingerprint)} was live already, nothing changed"
        present = self.serving(Site(staged.site))
        must_replace(present, staged.replaces, staged.fingerprint, name, self._label)
        self._point_at(name, wanted, new=pair is None)
        self._bind(staged)
        self._save()
        effect("target.activate", connector=self._label, pair=name, files=staged.data["stem"])
        return f"NetScaler: {name} has the files {staged.data['stem']}, saved"

    def restore(self, staged: Staged) -> str:
        name, old = _checked(staged.site), staged.data["old"]
        pair = self._pair(name)
        if pair is None or pair.get("cert") == old["cert"]:
            return "NetScaler: nothing to put back"
        if pair.get("cert") != self._wanted(staged)["cert"]:
            raise Conflict(
                f"{self._label}: {name} was changed by somebody else since", connector=self._label
            )
        if old["cert"]:
            self._point_at(name, old, new=False)
        else:
            self._unbind(staged)
            self._link(name, "")
            self._call("DELETE", f"sslcertkey/{_segment(name)}")
        self._save()
        effect("target.restore", connector=self._label, pair=name)
        return f"NetScaler: {name} has its old files again, saved"

    def discard(self, staged: Staged) -> None:
        wanted, old = self._wanted(staged), staged.data["old"]
        pair = self._pair(_checked(staged.site))
        live = pair is not None and pair.get("cert") == wanted["cert"]
        gone = old if live else wanted
        used = {str(one.get(part, "")) for one in self._read("sslcertkey") for part in _FILES}
        for part in _FILES:
            path = str(gone[part])
            # What somebody else put there is theirs to remove.
            if is_ours(path.rpartition(".")[0]) and path not in used:
                self._remove_file(posixpath.basename(path))
        if self._remove_unused_issuers():
            # A saved configuration that names objects without files would not load.
            self._save()

    def _must_be_primary(self) -> str:
        nodes = self._read("hanode")
        own = next((node for node in nodes if str(node.get("id")) == "0"), {})
        state = plain(own.get("state", "alone"))
        if len(nodes) > 1 and state.lower() != "primary":
            raise InvalidRequest(
                f"{self._label}: this appliance is {state}, and gets its configuration from the "
                "primary",
                remedy="Set the connector's url to the primary, or to an address of the pair.",
            )
        return state.lower()

    def _wanted(self, staged: Staged) -> dict[str, str]:
        stem = posixpath.join(_FOLDER, str(staged.data["stem"]))
        return {
            "cert": f"{stem}.crt",
            "key": f"{stem}.key",
            "linkcertkeyname": str(staged.data["issuer"]),
        }

    def _point_at(self, name: str, files: Mapping[str, str], *, new: bool) -> None:
        pair = {"certkey": name, "cert": files["cert"], "key": files["key"]}
        issuer = files["linkcertkeyname"]
        linked = "" if new else str((self._pair(name) or {}).get("linkcertkeyname", ""))
        try:
            if linked and linked != issuer:
                self._link(name, "")
            if new:
                self._call("POST", "sslcertkey", json={"sslcertkey": pair})
            else:
                change = {"sslcertkey": {**pair, "nodomaincheck": True}}
                self._call("POST", "sslcertkey", params={"action": "update"}, json=change)
        except (Rejected, Conflict) as exc:
            if linked and linked != issuer:
                self._link(name, linked)
            raise ActivationRefused(
                f"NetScaler refused the certificate: {exc}",
                remedy="Correct what the appliance complains about, then retry: "
                "no new order is made.",
            ) from exc
        self._link(name, issuer)

    def _link(self, name: str, issuer: str) -> None:
        """Make *issuer* the one that is sent with *name*, "" for none."""
        linked = str((self._pair(name) or {}).get("linkcertkeyname", ""))
        if linked == issuer:
            return
        if linked:
            self._call(
                "POST", "sslcertkey", params={"action": "unlink"}, json=_as_pair({"certkey": name})
            )
        if issuer:
            body = {"certkey": name, "linkcertkeyname": issuer}
            self._call("POST", "sslcertkey", params={"action": "link"}, json=_as_pair(body))

    def _bind(self, staged: Staged) -> None:
        vserver = str(staged.data["vserver"])
        if vserver:
            bound = {"vservername": _checked(vserver), "certkeyname": staged.site}
            self._call(
                "PUT",
                "sslvserver_sslcertkey_binding",
                json={"sslvserver_sslcertkey_binding": bound},
            )

    def _unbind(self, staged: Staged) -> None:
        vserver = _segment(_checked(str(staged.data["vserver"])))
        try:
            self._call(
                "DELETE",
                f"sslvserver_sslcertkey_binding/{vserver}",
                params={"args": f"certkeyname:{staged.site}"},
            )
        except NotFound:
            return

    def _add_issuers(self, bundle: Bundle) -> str:
        """Make objects for the intermediate certificates; return the name of the first."""
        certificates = bundle.chain.certificates[1:]
        names = [self._issuer(certificate) for certificate in certificates]
        for lower, upper in itertools.pairwise(names):
            self._link(lower, upper)
        return names[0] if names else ""

    def _issuer(self, certificate: x509.Certificate) -> str:
        name = _issuer_name(certificate)
        if self._pair(name) is not None:
            return name
        self._write_file(f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        body = {"certkey": name, "cert": posixpath.join(_FOLDER, f"{name}.crt")}
        try:
            self._call("POST", "sslcertkey", json=_as_pair(body))
        except Conflict as exc:
            found = re.search(r"certkeyName Contents, ([^\]]+)\]", str(exc))
            if found is None:
                raise
            self._remove_file(f"{name}.crt")
            return _checked(found[1])
        return name

    def _remove_unused_issuers(self) -> bool:
        pairs = self._read("sslcertkey")
        removed = False
        while True:
            linked = {str(pair.get("linkcertkeyname", "")) for pair in pairs}
            unused = [
                str(pair["certkey"])
                for pair in pairs
                if str(pair["certkey"]).startswith("certrail_ca_") and pair["certkey"] not in linked
            ]
            if not unused:
                return removed
            for name in unused:
                try:
                    self._link(name, "")
                    self._call("DELETE", f"sslcertkey/{_segment(name)}")
                    self._remove_file(f"{name}.crt")
                    removed = True
                except ConnectorError as exc:
                    logger.warning("netscaler.discard %s failed: %s", name, exc)
                    return removed
            pairs = self._read("sslcertkey")

    def _pair(self, name: str) -> dict[str, Any] | None:
        try:
            found = self._read(f"sslcertkey/{_segment(name)}")
        except NotFound:
            return None
        return found[0] if found else None

    def _leaf(self, pair: Mapping[str, Any]) -> x509.Certificate | None:
        content = self._file(str(pair.get("cert", "")))
        try:
            return x509.load_pem_x509_certificate(content) if content else None
        except ValueError:
            return None

    def _file(self, path: str) -> bytes | None:
        folder, name = posixpath.split(posixpath.join(_FOLDER, path))
        where = f"filename:{name},filelocation:{quote(folder, safe='')}"
        try:
            found = self._read("systemfile", params=f"args={where}")
        except NotFound:
            return None
        try:
            return base64.b64decode(str(found[0]["filecontent"]), validate=True) if found else None
        except (KeyError, binascii.Error) as exc:
            raise UnexpectedReply(
                f"{self._label}: the content of {plain(path)} cannot be read",
                connector=self._label,
            ) from exc

    def _write_file(self, name: str, content: bytes) -> None:
        present = self._file(name)
        if present == content:
            return
        if present is not None:
            self._remove_file(name)
        body = {
            "filename": name,
            "filelocation": _FOLDER,
            "filecontent": base64.b64encode(content).decode(),
            "fileencoding": "BASE64",
        }
        self._call("POST", "systemfile", json={"systemfile": body})

    def _remove_file(self, name: str) -> None:
        where = f"filelocation:{quote(_FOLDER, safe='')}"
        try:
            self._call("DELETE", f"systemfile/{_segment(name)}", params=f"args={where}")
        except NotFound:
            return

    def _save(self) -> None:
        self._call("POST", "nsconfig", params={"action": "save"}, json={"nsconfig": {}})

    def _read(self, path: str, params: str = "") -> list[dict[str, Any]]:
        found = self._call("GET", path, params=params or None).get(path.partition("/")[0], [])
        if not isinstance(found, list):
            # Objects of which there is one, such as nsversion, come without a list.
            found = [found]
        return [one for one in found if isinstance(one, dict)]

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Send one call; NITRO's own code decides, since its HTTP status varies.

        Raises:
            NotFound: code 258.
            Rejected: any other; ``code`` is NITRO's.
        """
        if isinstance(more.get("params"), str):
            path, more["params"] = f"{path}?{more['params']}", None
        try:
            reply = http.send(
                self._client,
                self._label,
                method,
                f"/nitro/v1/config/{path}",
                accept={_APPLIANCE_ERROR},
                **more,
            )
        except PermissionRefused as exc:
            exc.remedy = "Give the account a command policy that allows sslcertkey, systemfile "
            exc.remedy += "and saving the configuration."
            raise
        if not reply.content.strip() and reply.is_success:
            return {}
        body = http.json_of(reply, dict)
        code = body.get("errorcode", 0)
        if reply.is_success and code == 0:
            return body
        message = (
            f"{self._label}: {method} {path.partition('?')[0]}: {plain(body.get('message'))[:300]}"
        )
        if code == _NO_SUCH_RESOURCE:
            raise NotFound(message, connector=self._label, code=str(code))
        raise Rejected(f"{message} ({code})", connector=self._label, code=str(code))


_FILES = ("cert", "key")


def _as_pair(body: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    return {"sslcertkey": body}


def _issuer_name(certificate: x509.Certificate) -> str:
    return f"certrail_ca_{fingerprint(certificate)[:16]}"


def _checked(name: str) -> str:
    """Return *name* if it can be one of NetScaler's (NITRO reference, sslcertkey)."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"not a name on a NetScaler: {plain(name)!r}",
            remedy="Set the endpoint's site to the name of a certificate-key pair.",
        )
    return name


def _segment(name: str) -> str:
    return quote(name, safe="")
