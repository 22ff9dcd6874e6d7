"""The client-SSL profiles of one BIG-IP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from blocks._target import is_ours, must_replace, must_take, object_name, short
from blocks.targets.bigip.session import Session
from certrail.connectors import InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Busy,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    Rejected,
    UnexpectedReply,
)
from certrail.log import effect, logger, plain
from certrail.model import Bundle, Fingerprint, Site, Staged, key_text
from certrail.remote import http

_CHUNK = 1024 * 1024
_DOWNLOADS = "/var/config/rest/downloads"
_LONGEST_NAME = 128
_PROFILE = re.compile(r"/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){1,2}")
_PARTS = ("cert", "key", "chain")
LONGEST_STEM = _LONGEST_NAME - len("_chain.crt")
_KEPT = ("name", "cert", "key", "chain", "usage", "passphrase")


# By name, what is to be made of which content: ("ssl-key", b"...").
Files = dict[str, tuple[str, bytes]]


class _Named(BaseModel):
    fullPath: str  # noqa: N815


class _CertFile(_Named):
    fingerprint: str = ""
    subjectAlternativeName: str = ""  # noqa: N815

    @property
    def sha256(self) -> Fingerprint | None:
        kind, _, digits = self.fingerprint.partition("/")
        text = digits.replace(":", "").lower()
        return Fingerprint(text) if kind == "SHA256" and len(text) == 64 else None

    @property
    def names(self) -> tuple[str, ...]:
        parts = (part.strip() for part in self.subjectAlternativeName.split(","))
        return tuple(part[4:].lower() for part in parts if part.startswith("DNS:"))


class _Profile(_Named):
    certKeyChain: list[dict[str, Any]] = []  # noqa: N815


class _Reference(BaseModel):
    items: list[_Named] = []


class _Virtual(_Named):
    destination: str = ""
    profilesReference: _Reference = _Reference()  # noqa: N815

    @property
    def profiles(self) -> set[str]:
        return {one.fullPath for one in self.profilesReference.items}


class _Device(BaseModel):
    name: str = ""
    version: str = ""
    selfDevice: str = ""  # noqa: N815
    failoverState: str = ""  # noqa: N815


class _Group(_Named):
    type: str = ""
    autoSync: str = ""  # noqa: N815


class _Stats(BaseModel):
    """Nested statistics: by name, a text or more of the same."""

    entries: dict[str, Any] = {}

    def texts(self, name: str) -> Iterator[str]:
        """Yield every text called *name*, however deep."""
        for key, value in self.entries.items():
            if not isinstance(value, dict):
                continue
            if key == name and isinstance(value.get("description"), str):
                yield value["description"]
            if isinstance(nested := value.get("nestedStats"), dict):
                yield from http.shaped(nested, _Stats, "BIG-IP").texts(name)


# Of `cm/sync-status`. While a synchronisation is under way it says "Not All Devices Synced".
_PENDING = "Changes Pending"


class BigIpTarget(InstallTarget):
    """One BIG-IP."""

    traits = Traits(
        transactional=True,
        restores_by="the profile is pointed at the old objects again, which stay until the new "
        "certificate has passed its test",
        needs_save=True,
        longest_name=_LONGEST_NAME,
    )
    # What nobody needs of a certificate that did not become live.
    _left_behind: ClassVar[tuple[str, ...]] = _PARTS

    def __init__(
        self,
        session: Session,
        *,
        partition: str = "Common",
        sync_group: str = "",
        sync_pending: bool = False,
    ) -> None:
        self._session = session
        self._label = session.label
        self._partition = partition
        self._group = sync_group
        self._sync_pending = sync_pending

    def check(self) -> str:
        device = self._must_be_active()
        groups = self._session.items("/mgmt/tm/cm/device-group", _Group)
        manual = [
            g.fullPath for g in groups if g.type == "sync-failover" and g.autoSync != "enabled"
        ]
        told = ""
        if self._group:
            told = f", synchronised to {self._group} ({plain(self._sync_status()[0])})"
            if not any(g.fullPath in (self._group, f"/Common/{self._group}") for g in groups):
                raise NotFound(
                    f"{self._label}: there is no device group {self._group}",
                    remedy="Correct sync_group; there are: "
                    + plain(", ".join(g.fullPath for g in groups) or "none"),
                    connector=self._label,
                )
        elif manual:
            told = f"; set sync_group, or {plain(manual[0])} will not get changes"
        profiles = len(self._session.items("/mgmt/tm/ltm/profile/client-ssl", _Named))
        name, version = plain(device.name), plain(device.version)
        return f"BIG-IP {version} {name}, active, {profiles} client-SSL profiles{told}"

    def sites(self) -> Iterator[Site]:
        found = self._session.items("/mgmt/tm/sys/file/ssl-cert", _CertFile)
        files = {one.fullPath: one for one in found}
        query = {"expandSubcollections": "true"}
        virtuals = self._session.items("/mgmt/tm/ltm/virtual", _Virtual, params=query)
        for profile in self._session.items("/mgmt/tm/ltm/profile/client-ssl", _Profile):
            entry = next(iter(profile.certKeyChain), None)
            file = files.get(str(entry.get("cert"))) if entry else None
            listens = tuple(
                one.destination.rpartition("/")[2]
                for one in virtuals
                if profile.fullPath in one.profiles
            )
            yield Site(
                profile.fullPath,
                file.names if file else (),
                listens,
                tls=bool(listens),
                fingerprint=file.sha256 if file else None,
            )

    def serving(self, site: Site) -> Fingerprint | None:
        entry = self._entry(self._profile(site.id), site.settings)
        return self._fingerprint(str(entry["cert"]))

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        self._must_take(bundle)
        new = bundle.chain.fingerprint
        self._must_be_active()
        profile = self._profile(site.id)
        entry = self._entry(profile, site.settings)
        present = self._fingerprint(str(entry["cert"]))
        must_replace(present, replaces, new, profile.fullPath, self._label)
        stem = object_name(profile.fullPath, new, LONGEST_STEM)
        key, files = self._key(profile.fullPath, str(entry.get("key")), bundle, present, stem)
        files[f"{stem}.crt"] = ("ssl-cert", bundle.chain.pems[0].encode())
        if rest := "".join(bundle.chain.pems[1:]):
            files[f"{stem}_chain.crt"] = ("ssl-cert", rest.encode())
        if missing := self._missing(files):
            self._must_be_synchronised()
            self._create(missing)
            # Otherwise they would be what the next installation waits for.
            self._save()
        effect("target.stage", connector=self._label, profile=profile.fullPath, object=stem)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"BIG-IP: {profile.fullPath} gets {key_text(bundle.chain.leaf)} as {stem}",
            {
                "profile": profile.fullPath,
                "entry": str(entry["name"]),
                "stem": stem,
                "key": key,
                "chain": bool(rest),
                # Of a certificate that is live already, what came before is not known.
                "old": {part: str(entry.get(part, "none")) for part in _PARTS},
            },
        )

    def _must_take(self, bundle: Bundle) -> None:
        must_take(bundle, self.traits, "BIG-IP")

    def _key(
        self, profile: str, live: str, bundle: Bundle, present: Fingerprint | None, stem: str
    ) -> tuple[str, Files]:
        """Return the full name of the certificate's key, and what is to be made for it."""
        name = f"{stem}.key"
        content = must_take(bundle, self.traits, "BIG-IP")
        return f"/{self._partition}/{name}", {name: ("ssl-key", content)}

    def activate(self, staged: Staged) -> str:
        profile, entry = self._place(staged)
        wanted = self._wanted(staged)
        if entry["cert"] == wanted["cert"]:
            # Switched before, by whatever ended before it could be saved.
            self._save()
            return f"BIG-IP: {short(staged.fingerprint)} was live already, nothing changed"
        present = self._fingerprint(str(entry["cert"]))
        must_replace(present, staged.replaces, staged.fingerprint, profile.fullPath, self._label)
        self._point_at(profile, staged, wanted)
        self._save()
        effect("target.activate", connector=self._label, profile=profile.fullPath)
        more = f", synchronised to {self._group}" if self._group else ""
        return f"BIG-IP: {profile.fullPath} points to {staged.data['stem']}, saved{more}"

    def restore(self, staged: Staged) -> str:
        profile, entry = self._place(staged)
        old = staged.data["old"]
        if entry["cert"] == old["cert"]:
            return "BIG-IP: nothing to put back"
        if entry["cert"] != self._wanted(staged)["cert"]:
            raise Conflict(
                f"{self._label}: {profile.fullPath} was changed by somebody else since",
                connector=self._label,
            )
        self._point_at(profile, staged, old)
        self._save()
        effect("target.restore", connector=self._label, profile=profile.fullPath)
        return f"BIG-IP: {profile.fullPath} points to {plain(old['cert'])} again, saved"

    def discard(self, staged: Staged) -> None:
        _, entry = self._place(staged)
        wanted = self._wanted(staged)
        live = entry["cert"] == wanted["cert"]
        gone = staged.data["old"] if live else wanted
        # An old certificate that somebody else put there is theirs to remove.
        parts = [
            (part, str(gone[part]))
            for part in (_PARTS if live else self._left_behind)
            if is_ours(str(gone[part]).rpartition(".")[0].removesuffix("_chain"))
            and gone[part] != entry.get(part)
        ]
        deleted = [name for part, name in parts if self._delete(part, name)]
        if (live and self._tidy(staged)) or deleted:
            self._save()

    def _tidy(self, staged: Staged) -> bool:
        """Remove what else nobody needs once it is live; return whether there was anything."""
        return False

    def _must_be_active(self) -> _Device:
        devices = self._session.items("/mgmt/tm/cm/device", _Device)
        own = next((one for one in devices if one.selfDevice == "true"), None)
        if own is None:
            raise UnexpectedReply(f"{self._label}: not a BIG-IP", connector=self._label)
        if own.failoverState != "active":
            raise InvalidRequest(
                f"{self._label}: {plain(own.name)} is {plain(own.failoverState)}, and what is "
                "changed there is overwritten at the next synchronisation",
                remedy="Set the connector's url to the active device of the pair.",
            )
        return own

    def _sync_status(self) -> tuple[str, str]:
        """Return the status of the synchronisation, and what the device advises ("" if nothing)."""
        found = http.json_of(self._session.call("GET", "/mgmt/tm/cm/sync-status"), _Stats)
        advice = (one for one in found.texts("details") if "ecommended action" in one)
        return next(found.texts("status"), "unknown"), next(advice, "")

    def _must_be_synchronised(self) -> None:
        """Check, before the first change, that nobody's changes wait for the group.

        Ours could not be synchronised without theirs: a half-done change would go to
        the peer, or a change made there would be overwritten.

        Raises:
            Busy: somebody has to synchronise first.
        """
        if not self._group or self._sync_pending:
            return
        status, advice = self._sync_status()
        if status == _PENDING:
            raise Busy(
                f"{self._label}: somebody else's changes are not synchronised to {self._group} "
                f"yet ({plain(status)})" + (f": {plain(advice).strip(' -')}" if advice else ""),
                remedy="Let them finish and synchronise (Device Management > Overview, or `tmsh "
                f"run cm config-sync to-group {self._group}`), then retry. With sync_pending "
                "theirs are sent along with ours.",
                connector=self._label,
                code=plain(status),
            )

    def _profile(self, site: str) -> _Profile:
        full = site if site.startswith("/") else f"/{self._partition}/{site}"
        if not _PROFILE.fullmatch(full):
            raise InvalidRequest(
                f"not a client-SSL profile: {plain(site)}",
                remedy="Set the endpoint's site to the profile's name, such as /Common/www_ssl.",
            )
        try:
            reply = self._session.call("GET", f"/mgmt/tm/ltm/profile/client-ssl/{_tilde(full)}")
        except NotFound as exc:
            exc.remedy = "Set the endpoint's site to a client-SSL profile of the device."
            raise
        return http.json_of(reply, _Profile)

    def _entry(self, profile: _Profile, settings: Mapping[str, Any]) -> dict[str, Any]:
        wanted = str(settings.get("cert_key_chain", ""))
        entries = [e for e in profile.certKeyChain if not wanted or e.get("name") == wanted]
        if len(entries) == 1 and entries[0].get("cert") and entries[0].get("name"):
            return entries[0]
        names = ", ".join(str(e.get("name")) for e in profile.certKeyChain) or "none"
        raise InvalidRequest(
            f"{self._label}: {profile.fullPath} has no single certificate to replace",
            remedy="Set cert_key_chain of the endpoint's server to one of its entries: "
            + plain(names),
        )

    def _place(self, staged: Staged) -> tuple[_Profile, dict[str, Any]]:
        profile = self._profile(str(staged.data["profile"]))
        return profile, self._entry(profile, {"cert_key_chain": staged.data["entry"]})

    def _wanted(self, staged: Staged) -> dict[str, str]:
        stem = f"/{self._partition}/{staged.data['stem']}"
        chain = f"{stem}_chain.crt" if staged.data["chain"] else "none"
        # What was staged by a version before this one has the key beside the certificate.
        key = str(staged.data.get("key", f"{stem}.key"))
        return {"cert": f"{stem}.crt", "key": key, "chain": chain}

    def _fingerprint(self, path: str) -> Fingerprint | None:
        if path in ("", "none"):
            return None
        reply = self._session.call("GET", f"/mgmt/tm/sys/file/ssl-cert/{_tilde(path)}")
        found = http.json_of(reply, _CertFile).sha256
        if found is None:
            raise UnexpectedReply(
                f"{self._label}: the device does not tell the fingerprint of {plain(path)}",
                remedy="BIG-IP 14.1 or later is needed.",
                connector=self._label,
            )
        return found

    def _missing(self, files: Files) -> Files:
        """Return those of *files* that the device does not have."""
        return {
            name: (kind, content)
            for name, (kind, content) in files.items()
            if not self._exists(kind, name)
        }

    def _create(self, missing: Files) -> None:
        """Make the file objects, all or none."""
        try:
            for name, (_, content) in missing.items():
                self._upload(name, content)
            with self._session.transaction() as headers:
                for name, (kind, _) in missing.items():
                    self._session.call(
                        "POST",
                        f"/mgmt/tm/sys/file/{kind}",
                        headers=headers,
                        json={
                            "name": name,
                            "partition": self._partition,
                            "sourcePath": f"file:{_DOWNLOADS}/{name}",
                        },
                    )
        finally:
            self._remove_uploads(missing)

    def _upload(self, name: str, content: bytes) -> None:
        size = len(content)
        for start in range(0, size, _CHUNK):
            part = content[start : start + _CHUNK]
            self._session.call(
                "POST",
                f"/mgmt/shared/file-transfer/uploads/{name}",
                content=part,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{start}-{start + len(part) - 1}/{size}",
                },
            )

    def _remove_uploads(self, names: Mapping[str, object]) -> None:
        # The device keeps uploads, keys among them, until they are removed.
        for name in names:
            try:
                self._session.call(
                    "POST",
                    "/mgmt/tm/util/unix-rm",
                    json={"command": "run", "utilCmdArgs": f"{_DOWNLOADS}/{name}"},
                )
            except ConnectorError as exc:
                logger.warning("bigip.upload %s was left on the device: %s", name, exc)

    def _exists(self, kind: str, name: str) -> bool:
        path = _tilde(f"/{self._partition}/{name}")
        try:
            self._session.call("GET", f"/mgmt/tm/sys/file/{kind}/{path}")
        except NotFound:
            return False
        return True

    def _delete(self, part: str, name: str) -> bool:
        kind = "ssl-key" if part == "key" else "ssl-cert"
        try:
            self._session.call("DELETE", f"/mgmt/tm/sys/file/{kind}/{_tilde(name)}")
        except NotFound:
            return False
        except Rejected as exc:
            if "is in use" not in str(exc):
                raise
            logger.warning("bigip.discard: %s", exc)
            return False
        effect("target.discard", connector=self._label, object=name)
        return True

    def _point_at(self, profile: _Profile, staged: Staged, files: Mapping[str, str]) -> None:
        chain = []
        for entry in profile.certKeyChain:
            kept = {name: entry[name] for name in _KEPT if name in entry}
            if entry.get("name") == staged.data["entry"]:
                kept.pop("passphrase", None)
                kept |= {part: files[part] for part in _PARTS}
            chain.append(kept)
        try:
            with self._session.transaction() as headers:
                self._session.call(
                    "PATCH",
                    f"/mgmt/tm/ltm/profile/client-ssl/{_tilde(profile.fullPath)}",
                    headers=headers,
                    json={"certKeyChain": chain},
                )
        except Rejected as exc:
            raise ActivationRefused(
                f"BIG-IP refused the change: {exc}",
                remedy="Correct what the device complains about, then retry: no new order is made.",
            ) from exc

    def _save(self) -> None:
        self._session.call("POST", "/mgmt/tm/sys/config", json={"command": "save"})
        if self._group:
            self._session.call(
                "POST",
                "/mgmt/tm/cm",
                json={"command": "run", "utilCmdArgs": f"config-sync to-group {self._group}"},
            )


def _tilde(path: str) -> str:
    return path.replace("/", "~")
