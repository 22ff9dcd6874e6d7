"""The certificate-key pairs of one NetScaler."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from blocks._target import is_ours, must_replace, must_take, object_name, short
from blocks.targets.netscaler.nitro import FOLDER, Nitro, segment
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
    UNREADABLE,
    Bundle,
    Fingerprint,
    Site,
    Staged,
    fingerprint,
    key_text,
    subject_names,
)

LONGEST_FILE = 63
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_#. :@=-]*")


class NetScalerTarget(InstallTarget):
    """One NetScaler."""

    traits = Traits(
        restores_by="the pair gets its old files again, which stay until the new ones have "
        "passed their test",
        needs_save=True,
        longest_name=LONGEST_FILE,
    )
    # What nobody needs of a certificate that did not become live.
    _left_behind: ClassVar[tuple[str, ...]] = ("cert", "key")

    def __init__(self, client: httpx.Client, label: str) -> None:
        self._nitro = Nitro(client, label)
        self._label = label

    def check(self) -> str:
        version = self._nitro.read("nsversion")
        if not version or "version" not in version[0]:
            raise UnexpectedReply(f"{self._label}: not a NetScaler", connector=self._label)
        state = self._must_be_primary()
        text = plain(version[0]["version"]).split(", Date")[0]
        pairs = len(self._nitro.read("sslcertkey"))
        return f"{text}, {state}, {pairs} certificate-key pairs{self._unsaved()}"

    def sites(self) -> Iterator[Site]:
        for pair in self._nitro.read("sslcertkey"):
            if not pair.get("key"):
                continue
            leaf = self._leaf(pair)
            bound = self._nitro.read(
                f"sslcertkey_sslvserver_binding/{segment(str(pair['certkey']))}"
            )
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
        self._must_take(bundle)
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
        stem = object_name(name, new, LONGEST_FILE - len(".crt"))
        key = self._put_key(name, bundle, present, stem)
        self._nitro.write_file(f"{stem}.crt", bundle.chain.pems[0].encode())
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
                "key": key,
                "issuer": issuer,
                "vserver": "" if pair else vserver,
                "old": {
                    part: str((pair or {}).get(part, ""))
                    for part in ("cert", "key", "linkcertkeyname")
                },
            },
        )

    def _must_take(self, bundle: Bundle) -> None:
        must_take(bundle, self.traits, "NetScaler")

    def _put_key(self, name: str, bundle: Bundle, present: Fingerprint | None, stem: str) -> str:
        """Put the key into a file of the folder; return the file's name."""
        self._nitro.write_file(f"{stem}.key", must_take(bundle, self.traits, "NetScaler"))
        return f"{stem}.key"

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
            self._nitro.call("DELETE", f"sslcertkey/{segment(name)}")
        self._save()
        effect("target.restore", connector=self._label, pair=name)
        return f"NetScaler: {name} has its old files again, saved"

    def discard(self, staged: Staged) -> None:
        wanted, old = self._wanted(staged), staged.data["old"]
        pair = self._pair(_checked(staged.site))
        live = pair is not None and pair.get("cert") == wanted["cert"]
        gone = old if live else wanted
        used = {str(one.get(part, "")) for one in self._nitro.read("sslcertkey") for part in _FILES}
        for part in _FILES if live else self._left_behind:
            path = str(gone[part])
            # What somebody else put there is theirs to remove.
            if is_ours(path.rpartition(".")[0]) and path not in used:
                self._nitro.remove_file(posixpath.basename(path))
        if self._remove_unused_issuers():
            # A saved configuration that names objects without files would not load.
            self._save()

    def _unsaved(self) -> str:
        """Say if others have changes to save: saving ours will save them, a restart drops them."""
        try:
            found = self._nitro.read("nsconfig")
        except PermissionRefused:
            return ""
        # A Boolean by the reference; NITRO sends others of its Booleans as text.
        if not found or str(found[0].get("configchanged", "")).lower() != "true":
            return ""
        return "; its configuration has unsaved changes, which the next save takes in"

    def _must_be_primary(self) -> str:
        nodes = self._nitro.read("hanode")
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
        stem = posixpath.join(FOLDER, str(staged.data["stem"]))
        # What was staged by a version before this one has the key beside the certificate.
        key = staged.data.get("key")
        return {
            "cert": f"{stem}.crt",
            "key": posixpath.join(FOLDER, str(key)) if key else f"{stem}.key",
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
                self._nitro.call("POST", "sslcertkey", json={"sslcertkey": pair})
            else:
                change = {"sslcertkey": {**pair, "nodomaincheck": True}}
                self._nitro.call("POST", "sslcertkey", params={"action": "update"}, json=change)
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
            self._nitro.call(
                "POST", "sslcertkey", params={"action": "unlink"}, json=_as_pair({"certkey": name})
            )
        if issuer:
            body = {"certkey": name, "linkcertkeyname": issuer}
            self._nitro.call("POST", "sslcertkey", params={"action": "link"}, json=_as_pair(body))

    def _bind(self, staged: Staged) -> None:
        vserver = str(staged.data["vserver"])
        if vserver:
            bound = {"vservername": _checked(vserver), "certkeyname": staged.site}
            self._nitro.call(
                "PUT",
                "sslvserver_sslcertkey_binding",
                json={"sslvserver_sslcertkey_binding": bound},
            )

    def _unbind(self, staged: Staged) -> None:
        vserver = segment(_checked(str(staged.data["vserver"])))
        try:
            self._nitro.call(
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
        self._nitro.write_file(f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        body = {"certkey": name, "cert": posixpath.join(FOLDER, f"{name}.crt")}
        try:
            self._nitro.call("POST", "sslcertkey", json=_as_pair(body))
        except Conflict as exc:
            found = re.search(r"certkeyName Contents, ([^\]]+)\]", str(exc))
            if found is None:
                raise
            self._nitro.remove_file(f"{name}.crt")
            return _checked(found[1])
        return name

    def _remove_unused_issuers(self) -> bool:
        pairs = self._nitro.read("sslcertkey")
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
                    self._nitro.call("DELETE", f"sslcertkey/{segment(name)}")
                    self._nitro.remove_file(f"{name}.crt")
                    removed = True
                except ConnectorError as exc:
                    logger.warning("netscaler.discard %s failed: %s", name, exc)
                    return removed
            pairs = self._nitro.read("sslcertkey")

    def _pair(self, name: str) -> dict[str, Any] | None:
        try:
            found = self._nitro.read(f"sslcertkey/{segment(name)}")
        except NotFound:
            return None
        return found[0] if found else None

    def _leaf(self, pair: Mapping[str, Any]) -> x509.Certificate | None:
        content = self._nitro.file(str(pair.get("cert", "")))
        try:
            return x509.load_pem_x509_certificate(content) if content else None
        except UNREADABLE:
            return None

    def _save(self) -> None:
        self._nitro.call("POST", "nsconfig", params={"action": "save"}, json={"nsconfig": {}})


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
