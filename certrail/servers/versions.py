"""Certificate versions on a host, and the link that says which one is live.

::

    <base>/<name>/versions/<first 16 hex digits of the fingerprint>/fullchain.pem
                                                                   /privkey.pem
                                                  or, for servers that want one file, /combined.pem
    <base>/<name>/live -> versions/<…>
    <base>/<name>/history.json      versions that have been live, newest last
    <base>/<name>/keys/             keys that were made there; then privkey.pem is a link to one

A server's configuration names files below ``live``. Certificate and key
change together, in one step, because only the link is replaced.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from enum import StrEnum

from certrail.connectors import Host
from certrail.errors import (
    ActivationRefused,
    CertrailError,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    UnexpectedReply,
)
from certrail.log import effect, plain
from certrail.model import Bundle, Chain, Csr, Fingerprint, SubjectSpec
from certrail.private_key import PrivateKeyPem
from certrail.remote.leftovers import remove_unfinished
from certrail.servers.host_keys import HostKeys
from certrail.servers.key_file import KeyFile

CHAIN = "fullchain.pem"
KEY = "privkey.pem"
COMBINED = "combined.pem"
_PLAIN = re.compile(r"[^a-z0-9.-]")
_VERSION = re.compile(r"[0-9a-f]{16}\Z")
_KEY_PEM = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----\n?", re.DOTALL)
_LONGEST = 120


def slug(site: str) -> str:
    """Return a directory name for *site*: readable, unique, and never a way out of a directory.

    ``*.example.test`` becomes ``_wildcard_.example.test``. Wherever something
    else had to be replaced, a digest keeps different sites apart.
    """
    text = site.lower()
    wildcard = text.startswith("*.")
    kept = _PLAIN.sub("_", text[1:] if wildcard else text)
    result = f"_wildcard_{kept}" if wildcard else kept
    lossless = kept == (site[1:] if wildcard else site)
    if lossless and result and not result.startswith(".") and len(result) <= _LONGEST:
        return result
    digest = hashlib.sha256(site.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{result[:_LONGEST].lstrip('.') or '_'}-{digest}"


def version_of(fingerprint: Fingerprint) -> str:
    """Return the directory name of a version."""
    return fingerprint[:16]


class Form(StrEnum):
    """How chain and key are laid out in files."""

    PAIR = "pair"
    """Two files."""
    CHAIN_FIRST = "chain-first"
    """One file: HAProxy's ``crt``."""
    KEY_FIRST = "key-first"
    """One file with the key before its chain: Postfix's ``smtpd_tls_chain_files``."""


class Versions:
    """The versions of one site's certificate on one host.

    With *combined*, chain and key are one file, the chain first.
    """

    def __init__(
        self,
        host: Host,
        directory: str,
        *,
        key_file: KeyFile | None = None,
        combined: bool = False,
        form: Form = Form.PAIR,
    ) -> None:
        self._host = host
        self._key_file = key_file or KeyFile()
        self._form = Form.CHAIN_FIRST if combined else form
        self.directory = directory
        self._keys = HostKeys(host, directory, self._key_file)

    @property
    def live_link(self) -> str:
        """The link itself."""
        return posixpath.join(self.directory, "live")

    @property
    def live_chain(self) -> str:
        """The path for a server's configuration: certificate chain."""
        return posixpath.join(self.live_link, CHAIN)

    @property
    def live_key(self) -> str:
        """The path for a server's configuration: private key."""
        return posixpath.join(self.live_link, KEY)

    @property
    def live_combined(self) -> str:
        """The path for a server's configuration: chain and private key in one file."""
        return posixpath.join(self.live_link, COMBINED)

    def path(self, version: str) -> str:
        """Return the directory of *version*."""
        if not _VERSION.match(version):
            raise InvalidRequest(f"not a version of a certificate: {plain(version)!r}")
        return posixpath.join(self.directory, "versions", version)

    def target(self, version: str) -> str:
        """Return what ``live`` points at when *version* is live."""
        return f"versions/{version}"

    def live(self) -> str:
        """Return the version that is live, "" if none is.

        Raises:
            Conflict: something other than our link is there.
        """
        target = self.live_target()
        name = posixpath.basename(target)
        return name if target == self.target(name) and _VERSION.match(name) else ""

    def live_target(self) -> str:
        """Return where ``live`` points as written, "" if it is absent.

        Raises:
            Conflict: something other than a link is there.
        """
        info = self._host.info(self.live_link)
        if info is None:
            return ""
        if info.kind != "link":
            raise Conflict(
                f"{self.live_link} on {self._host.name} is a {info.kind}, not our link",
                remedy="Move it away, then retry.",
            )
        return info.target

    def stage(self, bundle: Bundle) -> str:
        """Write *bundle* as a version beside the live one; the same again is quiet.

        The key is written first and never readable by more than its mode
        allows. A bundle without key is for a key that was made there. If anything
        fails, what this call made is removed again.

        Returns the version.

        Raises:
            KeyUnavailable: the bundle has no key, and the host has none for it.
            StorageFull: no room; nothing stays behind.
        """
        version = version_of(bundle.chain.fingerprint)
        directory = self.path(version)
        new = self._host.info(directory) is None
        try:
            self._host.make_directory(posixpath.dirname(directory), mode=0o755)
            self._host.make_directory(directory, mode=0o755)
            if bundle.key is None and self._form is Form.PAIR:
                self._link_key(directory, bundle.chain)
            for name, content in self._files(bundle).items():
                self._write(posixpath.join(directory, name), content, secret=name != CHAIN)
            if not new:
                remove_unfinished(self._host, directory, self.directory)
        except CertrailError:
            if new:
                self._host.remove(directory, tree=True)
                self._remove_if_unused()
            raise
        effect("version.stage", host=self._host.name, directory=directory)
        return version

    def must_be_whole(self, version: str) -> None:
        """Read *version* back: its files are there, and the key belongs to the certificate.

        For servers that take over anything and then refuse every client.

        Raises:
            ActivationRefused: they do not fit, or are not there.
        """
        directory = self.path(version)
        one = self._form is not Form.PAIR
        try:
            chain = self._host.read_file(posixpath.join(directory, COMBINED if one else CHAIN))
            found = Chain.from_pem(chain.decode(errors="replace"))
            fits = version_of(found.fingerprint) == version
            if not one and self._key_made_there(version):
                public = self._keys.public_key(posixpath.join(directory, KEY))
                fits = fits and public == found.public_key_der()
            else:
                key = chain if one else self._key_of_ours(posixpath.join(directory, KEY))
                if key is not None:
                    pem = _KEY_PEM.search(key)
                    Bundle(found, PrivateKeyPem(pem[0] if pem else b"")).must_match()
        except (NotFound, UnexpectedReply, InvalidRequest, ValueError) as exc:
            raise _not_whole(directory, self._host.name) from exc
        if not fits:
            raise _not_whole(directory, self._host.name)

    def _key_of_ours(self, path: str) -> bytes | None:
        """Return the key, None if it was handed over to an account that alone may read it."""
        try:
            return self._host.read_file(path)
        except PermissionRefused:
            info = self._host.info(path)
            if info is None or info.owner != self._key_file.owner:
                raise
            return None

    def make_csr(self, subject: SubjectSpec, reference: str) -> Csr:
        """Make a key that stays on the host, and a CSR for it; see :class:`HostKeys`.

        Raises:
            InvalidRequest: the server wants chain and key in one file.
        """
        if self._form is not Form.PAIR:
            raise InvalidRequest(
                "this server reads certificate and key from one file, which is read back, so its "
                "key cannot stay on the host",
                remedy="Set `key: {location: store}` in the profile.",
            )
        return self._keys.make_csr(subject, reference)

    def _link_key(self, directory: str, chain: Chain) -> None:
        path = posixpath.join(directory, KEY)
        public = chain.public_key_der()
        info = self._host.info(path)
        if info is not None and info.kind == "link" and self._keys.public_key(path) == public:
            self._keys.give(posixpath.basename(info.target))
            return
        name = self._keys.find(public)
        self._keys.give(name)
        self._host.make_link(path, f"../../keys/{name}")

    def _key_made_there(self, version: str) -> str:
        """Return the name of the key that *version* links to, "" if it has a file of its own."""
        info = self._host.info(posixpath.join(self.path(version), KEY))
        return posixpath.basename(info.target) if info is not None and info.kind == "link" else ""

    def changes(self, version: str = "") -> str:
        """Return where it is written down how *version*, or any, became live."""
        return posixpath.join(self.directory, "changes", version).rstrip("/")

    def switch(self, target: str) -> None:
        """Point ``live`` at *target* (as written in the link); "" removes the link."""
        if target:
            self._host.make_link(self.live_link, target)
        else:
            self._host.remove(self.live_link)

    def remember(self, version: str) -> None:
        """Note that *version* has been live, for :meth:`prune`."""
        self._write_history([*(old for old in self.history() if old != version), version])

    def history(self) -> list[str]:
        """Return versions that have been live, newest last."""
        try:
            raw = self._host.read_file(posixpath.join(self.directory, "history.json"))
            found = json.loads(raw)
        except (NotFound, ValueError):
            return []
        return [text for text in found if isinstance(text, str) and _VERSION.match(text)]

    def remove(self, version: str) -> None:
        """Remove *version* unless it is live; directories left empty go with it."""
        if version == self.live():
            return
        self._host.remove(self.path(version), tree=True)
        if version in (history := self.history()):
            self._write_history([kept for kept in history if kept != version])
        self._remove_if_unused()

    def prune(self, keep: int) -> list[str]:
        """Remove versions that were live longer ago than the last *keep* before the live one.

        Versions that were never live are left: another request may have
        staged them. What broken connections left goes too. Returns what was removed.
        """
        live = self.live()
        old = [version for version in self.history() if version != live]
        gone = old[: max(0, len(old) - keep)]
        used = {self._key_made_there(version) for version in self.history() if version not in gone}
        for version in gone:
            key = self._key_made_there(version)
            self._host.remove(self.path(version), tree=True)
            if key and key not in used:
                self._keys.remove(key)
        if gone:
            self._write_history([version for version in self.history() if version not in gone])
        remove_unfinished(self._host, self.directory, self.changes(live), self._keys.directory)
        return gone

    def _write_history(self, versions: list[str]) -> None:
        path = posixpath.join(self.directory, "history.json")
        if versions:
            self._host.write_file(path, json.dumps(versions).encode(), mode=0o644)
        else:
            self._host.remove(path)

    def _files(self, bundle: Bundle) -> dict[str, bytes]:
        chain = bundle.chain.text.encode()
        if bundle.key is None:
            return {CHAIN: chain}
        key = bundle.key.reveal()
        if self._form is Form.CHAIN_FIRST:
            return {COMBINED: chain + key.strip() + b"\n"}
        if self._form is Form.KEY_FIRST:
            return {COMBINED: key.strip() + b"\n" + chain}
        return {KEY: key, CHAIN: chain}

    def _write(self, path: str, content: bytes, *, secret: bool) -> None:
        mode = self._key_file.mode if secret else 0o644
        info = self._host.info(path)
        same_shape = info and (info.kind, info.mode, info.size) == ("file", mode, len(content))
        # The same bytes again are left alone: this version may be the live one.
        if same_shape and self._key_of_ours(path) == content:
            return
        self._host.write_file(
            path,
            content,
            mode=mode,
            owner=self._key_file.owner if secret else "",
            group=self._key_file.group if secret else "",
        )

    def _remove_if_unused(self) -> None:
        """Remove our directories as far as nothing of use is left in them."""
        for path in (posixpath.join(self.directory, "versions"), self.directory):
            if self._host.info(path) is None:
                continue
            remove_unfinished(self._host, path)
            if any(name != "history.json" for name in self._host.list_directory(path)):
                return
            self._host.remove(path, tree=True)
        base = posixpath.dirname(self.directory)
        if self._host.info(base) is not None and not self._host.list_directory(base):
            self._host.remove(base)


def _not_whole(directory: str, host: str) -> ActivationRefused:
    return ActivationRefused(
        f"what was staged in {directory} on {host} is no longer a certificate with its key; "
        "nothing was changed",
        remedy="Retry: the certificate is staged again, no new order is made.",
    )
