"""The client-SSL profiles of one BIG-IP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from blocks._target import is_ours, must_replace, must_take, object_name, short
from blocks.targets.bigip.objects import FileObjects, Files, tilde
from blocks.targets.bigip.pair import Pair
from blocks.targets.bigip.replies import CertFile, Named, Profile, Virtual
from blocks.targets.bigip.session import Session
from certrail.connectors import InstallTarget, Traits
from certrail.errors import ActivationRefused, Conflict, InvalidRequest, NotFound, Rejected
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site, Staged, key_text
from certrail.remote import http

_LONGEST_NAME = 128
_PROFILE = re.compile(r"/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){1,2}")
_PARTS = ("cert", "key", "chain")
LONGEST_STEM = _LONGEST_NAME - len("_chain.crt")
_KEPT = ("name", "cert", "key", "chain", "usage", "passphrase")


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
        self._files = FileObjects(session, partition)
        self._pair = Pair(session, group=sync_group, sync_pending=sync_pending)

    def check(self) -> str:
        device = self._pair.must_be_active()
        told = self._pair.check()
        profiles = len(self._session.items("/mgmt/tm/ltm/profile/client-ssl", Named))
        name, version = plain(device.name), plain(device.version)
        return f"BIG-IP {version} {name}, active, {profiles} client-SSL profiles{told}"

    def sites(self) -> Iterator[Site]:
        found = self._session.items("/mgmt/tm/sys/file/ssl-cert", CertFile)
        files = {one.fullPath: one for one in found}
        query = {"expandSubcollections": "true"}
        virtuals = self._session.items("/mgmt/tm/ltm/virtual", Virtual, params=query)
        for profile in self._session.items("/mgmt/tm/ltm/profile/client-ssl", Profile):
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
        return self._files.fingerprint(str(entry["cert"]))

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        self._must_take(bundle)
        new = bundle.chain.fingerprint
        self._pair.must_be_active()
        profile = self._profile(site.id)
        entry = self._entry(profile, site.settings)
        present = self._files.fingerprint(str(entry["cert"]))
        must_replace(present, replaces, new, profile.fullPath, self._label)
        stem = object_name(profile.fullPath, new, LONGEST_STEM)
        key, files = self._key(profile.fullPath, str(entry.get("key")), bundle, present, stem)
        files[f"{stem}.crt"] = ("ssl-cert", bundle.chain.pems[0].encode())
        if rest := "".join(bundle.chain.pems[1:]):
            files[f"{stem}_chain.crt"] = ("ssl-cert", rest.encode())
        if missing := self._files.missing(files):
            self._pair.must_be_synchronised()
            self._files.create(missing)
            # Otherwise they would be what the next installation waits for.
            self._pair.save()
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
            self._pair.save()
            return f"BIG-IP: {short(staged.fingerprint)} was live already, nothing changed"
        present = self._files.fingerprint(str(entry["cert"]))
        must_replace(present, staged.replaces, staged.fingerprint, profile.fullPath, self._label)
        self._point_at(profile, staged, wanted)
        self._pair.save()
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
        self._pair.save()
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
        deleted = [name for part, name in parts if self._files.delete(part, name)]
        if (live and self._tidy(staged)) or deleted:
            self._pair.save()

    def _tidy(self, staged: Staged) -> bool:
        """Remove what else nobody needs once it is live; return whether there was anything."""
        return False

    def _profile(self, site: str) -> Profile:
        full = site if site.startswith("/") else f"/{self._partition}/{site}"
        if not _PROFILE.fullmatch(full):
            raise InvalidRequest(
                f"not a client-SSL profile: {plain(site)}",
                remedy="Set the endpoint's site to the profile's name, such as /Common/www_ssl.",
            )
        try:
            reply = self._session.call("GET", f"/mgmt/tm/ltm/profile/client-ssl/{tilde(full)}")
        except NotFound as exc:
            exc.remedy = "Set the endpoint's site to a client-SSL profile of the device."
            raise
        return http.json_of(reply, Profile)

    def _entry(self, profile: Profile, settings: Mapping[str, Any]) -> dict[str, Any]:
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

    def _place(self, staged: Staged) -> tuple[Profile, dict[str, Any]]:
        profile = self._profile(str(staged.data["profile"]))
        return profile, self._entry(profile, {"cert_key_chain": staged.data["entry"]})

    def _wanted(self, staged: Staged) -> dict[str, str]:
        stem = f"/{self._partition}/{staged.data['stem']}"
        chain = f"{stem}_chain.crt" if staged.data["chain"] else "none"
        # What was staged by a version before this one has the key beside the certificate.
        key = str(staged.data.get("key", f"{stem}.key"))
        return {"cert": f"{stem}.crt", "key": key, "chain": chain}

    def _point_at(self, profile: Profile, staged: Staged, files: Mapping[str, str]) -> None:
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
                    f"/mgmt/tm/ltm/profile/client-ssl/{tilde(profile.fullPath)}",
                    headers=headers,
                    json={"certKeyChain": chain},
                )
        except Rejected as exc:
            raise ActivationRefused(
                f"BIG-IP refused the change: {exc}",
                remedy="Correct what the device complains about, then retry: no new order is made.",
            ) from exc
