"""Delivery into a directory of a host, whole or not at all.

::

    <path>/fullchain.pem          -> .certrail/<site>/live/fullchain.pem
    <path>/privkey.pem            -> .certrail/<site>/live/privkey.pem
    <path>/.certrail/<site>/live  -> versions/<version>
    <path>/.certrail/<site>/versions/<version>/…    the files
    <path>/.certrail/<site>/told                    the version the command was told of

One rename, that of the link ``live``, replaces all files together: a reader
never finds a new certificate beside an old key. Files that were there before
the first delivery are first copied into a version of their own and replaced
by links to the same content, so that even then everything changes at once.
The version before the present one is kept. Several endpoints can share a
directory as long as their file names differ.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import secrets
from dataclasses import dataclass
from datetime import timedelta

from certrail.connectors import DeliveryTarget, Host
from certrail.delivery.command import description, run_after
from certrail.delivery.fields import completed, same
from certrail.delivery.names import filled
from certrail.delivery.settings import DirectorySettings, OpenReference
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    Conflict,
    InvalidRequest,
    NotFound,
    UnexpectedReply,
)
from certrail.log import effect, logger, plain
from certrail.model import Bundle, Fingerprint, Site
from certrail.remote.leftovers import remove_unfinished
from certrail.servers.versions import slug
from certrail.words import counted
from certrail.x509.export import Part

_NOTE = ".delivered.json"
_OURS = ".certrail"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where everything of one site is."""

    settings: DirectorySettings
    site: Site

    @property
    def path(self) -> str:
        return self.settings.path

    @property
    def relative(self) -> str:
        return posixpath.join(_OURS, slug(self.site.id))

    @property
    def own(self) -> str:
        return posixpath.join(self.path, self.relative)

    @property
    def live(self) -> str:
        return posixpath.join(self.own, "live")

    @property
    def versions(self) -> str:
        return posixpath.join(self.own, "versions")

    @property
    def told(self) -> str:
        return posixpath.join(self.own, "told")

    def files(self) -> dict[Part, str]:
        """Return the path of each part, as readers know it."""
        return {part: posixpath.join(self.path, name) for part, name in self.names().items()}

    def names(self) -> dict[Part, str]:
        return {part: filled(text, self.site) for part, text in self.settings.templates().items()}

    def link_to(self, name: str) -> str:
        return posixpath.join(self.relative, "live", name)

    def mode(self, part: Part) -> int:
        return self.settings.key_mode if part.is_secret else self.settings.mode

    def shape(self) -> str:
        """Return a digest of the settings that decide what the files look like."""
        wanted = self.settings.model_dump(
            mode="json", exclude={"after", "after_timeout", "password", "site"}
        )
        text = json.dumps([wanted, {str(k): v for k, v in self.names().items()}], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class DirectoryDelivery(DeliveryTarget):
    """A directory on *host*; where and how is said by each site's settings."""

    def __init__(self, host: Host, open_reference: OpenReference) -> None:
        self._host = host
        self._open = open_reference

    def check(self) -> str:
        return self._host.check()

    def delivered(self, site: Site) -> Fingerprint | None:
        found = self._present(self._place(site))
        return found.chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        place = self._place(site)
        exported = place.settings.export(bundle, self._open)
        if missing := set(place.names()) - set(exported):
            raise InvalidRequest(
                f"the certificate came without one: no {', '.join(missing)} to deliver",
                remedy="Let Certrail make the key, or set `files: {key: ''}`.",
            )
        parts = {part: exported[part] for part in place.names()}
        if self._is_there(place, bundle):
            line = f"{self._count(place)} had it already, nothing changed"
        else:
            self._refuse_what_is_not_ours(place)
            previous = self._fingerprint_before(place)
            version = self._write(place, bundle, parts, previous)
            self._switch(place, version)
            effect("directory.deliver", host=self._host.name, path=place.path, version=version)
            line = f"{self._count(place)}, replaced together"
        line += self._tell(place, bundle)
        remove_unfinished(self._host, place.own, place.path)
        return line

    def _place(self, site: Site) -> _Place:
        return _Place(DirectorySettings.parse(site.settings), site)

    def _count(self, place: _Place) -> str:
        files = counted(len(place.names()), "file")
        return f"{files} ({place.settings.format}) in {place.path} on {self._host.name}"

    def _present(self, place: _Place) -> Bundle | None:
        """Read what a reader finds; None where that is nothing usable."""
        contents = {}
        for part, path in place.files().items():
            try:
                contents[part] = self._host.read_file(path)
            except NotFound:
                return None
        try:
            return place.settings.load(completed(contents), self._open)
        except UnexpectedReply:
            return None

    def _is_there(self, place: _Place, bundle: Bundle) -> bool:
        """Whether exactly *bundle* is there, in the form, modes and place wanted."""
        note = self._note(place)
        if note.get("shape") != place.shape():
            return False
        for part, path in place.files().items():
            name = posixpath.basename(path)
            link, file = self._host.info(path), self._host.info(posixpath.join(place.live, name))
            if link is None or link.target != place.link_to(name):
                return False
            if file is None or (file.kind, file.mode) != ("file", place.mode(part)):
                return False
            wanted = place.settings
            if (wanted.owner and file.owner != wanted.owner) or (
                wanted.group and file.group != wanted.group
            ):
                return False
        try:
            found = self._present(place)
        except AuthenticationFailed:
            return False  # the password has changed
        return same(found, bundle, place.settings)

    def _fingerprint_before(self, place: _Place) -> Fingerprint | None:
        try:
            found = self._present(place)
        except CertrailError:
            return None
        return found.chain.fingerprint if found else None

    def _refuse_what_is_not_ours(self, place: _Place) -> None:
        for path in (*place.files().values(), place.live):
            info = self._host.info(path)
            if info is None:
                continue
            if info.kind not in ("file", "link") or (path == place.live and info.kind != "link"):
                raise Conflict(
                    f"{path} on {self._host.name} is a {info.kind}",
                    remedy="Move it away, or choose another name in `files`, then retry.",
                    connector=self._host.name,
                )
            theirs = info.target.startswith(f"{_OURS}/") and path != place.live
            if theirs and info.target != place.link_to(posixpath.basename(path)):
                raise Conflict(
                    f"{path} on {self._host.name} is delivered by another endpoint",
                    remedy="Give the files other names, for instance with {name}, then retry.",
                    connector=self._host.name,
                )

    def _write(
        self, place: _Place, bundle: Bundle, parts: dict[Part, bytes], previous: Fingerprint | None
    ) -> str:
        """Write a version beside the live one and return its name; nothing stays on failure."""
        version = f"{bundle.chain.fingerprint[:16]}-{secrets.token_hex(4)}"
        directory = posixpath.join(place.versions, version)
        note = {"shape": place.shape(), "previous": previous}
        try:
            self._host.make_directory(directory, mode=0o755)
            for part, name in place.names().items():
                self._host.write_file(
                    posixpath.join(directory, name),
                    parts[part],
                    mode=place.mode(part),
                    owner=place.settings.owner,
                    group=place.settings.group,
                )
            self._host.write_file(posixpath.join(directory, _NOTE), json.dumps(note).encode())
        except CertrailError:
            self._clean_up(directory)
            raise
        return version

    def _clean_up(self, directory: str) -> None:
        try:
            self._host.remove(directory, tree=True)
        except CertrailError as exc:
            # It is not live, and goes with the next delivery.
            logger.warning("directory.clean-up failed: %s", exc)

    def _switch(self, place: _Place, version: str) -> None:
        before = self._live_version(place)
        if not before:
            before = self._adopt(place)
        self._host.make_link(place.live, posixpath.join("versions", version))
        for path in place.files().values():
            self._link(place, path)
        self._remove_strays(place, before)
        for old in self._host.list_directory(place.versions):
            if old not in (version, before):
                self._host.remove(posixpath.join(place.versions, old), tree=True)

    def _adopt(self, place: _Place) -> str:
        """Turn files that are there already into a version with the same content."""
        found = [path for path in place.files().values() if self._host.info(path) is not None]
        if not found:
            return ""
        version = f"before-{secrets.token_hex(4)}"
        directory = posixpath.join(place.versions, version)
        self._host.make_directory(directory, mode=0o755)
        adopted = []
        for path in found:
            try:
                real = self._host.real_path(path)
                content, info = self._host.read_file(real), self._host.info(real)
            except NotFound:
                continue  # a link to nothing
            if info is not None:
                copy = posixpath.join(directory, posixpath.basename(path))
                self._host.write_file(
                    copy, content, mode=info.mode, owner=info.owner, group=info.group
                )
                adopted.append(path)
        self._host.make_link(place.live, posixpath.join("versions", version))
        for path in adopted:
            self._link(place, path)
        return version

    def _link(self, place: _Place, path: str) -> None:
        target = place.link_to(posixpath.basename(path))
        info = self._host.info(path)
        if info is None or info.target != target:
            self._host.make_link(path, target)

    def _remove_strays(self, place: _Place, before: str) -> None:
        """Remove our links to files that the present version no longer has."""
        if not before:
            return
        now = set(place.names().values())
        try:
            then = self._host.list_directory(posixpath.join(place.versions, before))
        except NotFound:
            return
        for name in set(then) - now - {_NOTE}:
            path = posixpath.join(place.path, name)
            info = self._host.info(path)
            if info is not None and info.target == place.link_to(name):
                self._host.remove(path)

    def _live_version(self, place: _Place) -> str:
        info = self._host.info(place.live)
        return posixpath.basename(info.target) if info else ""

    def _note(self, place: _Place) -> dict[str, object]:
        try:
            found = json.loads(self._host.read_file(posixpath.join(place.live, _NOTE)))
        except (NotFound, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _tell(self, place: _Place, bundle: Bundle) -> str:
        """Run the command unless it was told of this version; return what to add to the line."""
        if not place.settings.after:
            return ""
        version = self._live_version(place).encode()
        try:
            if self._host.read_file(place.told) == version:
                return ""
        except NotFound:
            pass
        previous = self._note(place).get("previous")
        told = description(
            place.site,
            bundle,
            form=place.settings.format,
            directory=place.path,
            files=place.files(),
            previous=Fingerprint(plain(previous)) if previous else None,
        )
        timeout = timedelta(seconds=place.settings.after_timeout)
        line = run_after(self._host, place.settings.after, told, timeout)
        self._host.write_file(place.told, version)
        return f"; {line}"
