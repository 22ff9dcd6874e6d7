"""HAProxy through its Runtime API: a certificate is replaced without a reload."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from blocks._target import must_replace, must_take, short
from blocks.targets.haproxy.crt_list import CrtList
from blocks.targets.haproxy.memory import Memory, leaf_of, sha1_of, sha1_of_leaf, words
from blocks.targets.haproxy.runtime_api import RuntimeApi
from certrail.connectors import Host, InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    UnexpectedReply,
)
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site, Staged, fingerprint, key_text

_UNSAFE = re.compile(r"[\s;\\'\"<>*\x00-\x1f\x7f]")


class HaproxyRuntimeTarget(InstallTarget):
    """One running HAProxy and the machine that keeps its files."""

    traits = Traits(
        transactional=True,
        restores_by="a copy of the old file, kept beside it until the new one has passed its test",
        # commit changes memory; the file that a restart reads is written right after it.
        needs_save=True,
    )

    def __init__(self, api: RuntimeApi, host: Host) -> None:
        self._api = api
        self._memory = Memory(api)
        self._host = host
        self._label = api.label

    def check(self) -> str:
        info = dict(line.partition(": ")[::2] for line in self._api.run("show info").splitlines())
        if info.get("Name") != "HAProxy":
            raise UnexpectedReply(f"{self._label}: not HAProxy", connector=self._label)
        level = self._api.run("show cli level")
        if level != "admin":
            raise PermissionRefused(
                f"{self._label}: the socket has level {plain(level)[:20]}",
                remedy="Add `level admin` to the `stats socket` line.",
                connector=self._label,
            )
        files, _ = self._memory.files()
        return (
            f"HAProxy {plain(info.get('Version', '?'))}, {len(files)} certificate files; "
            f"{self._host.check()}"
        )

    def sites(self) -> Iterator[Site]:
        for path in self._memory.files()[0]:
            shown = self._memory.shown(path)
            if shown is not None and shown.used and not _UNSAFE.search(path):
                yield Site(path, shown.names, tls=True, fingerprint=self._known(path, shown.sha1))

    def serving(self, site: Site) -> Fingerprint | None:
        path = self._path(site.id)
        if self._is_new(path, str(site.settings.get("crt_list", ""))):
            return None
        shown = self._memory.must_show(path)
        found = self._known(path, shown.sha1)
        if found is None:
            raise Conflict(
                f"{self._label}: HAProxy serves a certificate for {path} that is in none of its "
                f"files on {self._host.name} (SHA-1 {shown.sha1[:16]}…)",
                remedy="Somebody changed its memory or its file only: reload HAProxy, "
                "so that both are the same again, then retry.",
                connector=self._label,
            )
        return found

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        path = self._path(site.id)
        key = must_take(bundle, self.traits, "HAProxy")
        new = bundle.chain.fingerprint
        present = self.serving(site)
        must_replace(present, replaces, new, path, self._label)
        content = bundle.chain.text.encode() + key.strip() + b"\n"
        if present is None:
            return self._stage_new(site, path, content, bundle)
        info = self._host.info(path)
        if info is None or info.kind != "file":
            raise InvalidRequest(
                f"{path} on {self._host.name} is {'a ' + info.kind if info else 'not there'}",
                remedy="Let HAProxy's `crt` name the file itself, under the path it has there.",
            )
        before = self._host.read_file(path)
        if b"PRIVATE KEY-----" not in before:
            raise InvalidRequest(
                f"{path} holds no private key: HAProxy reads it from a file of its own",
                remedy="Put chain and key into one file, which is replaced in one step.",
            )
        if present != new and fingerprint(leaf_of(before)) != present:
            raise Conflict(
                f"{self._label}: {path} on {self._host.name} is not what HAProxy has in memory",
                remedy="Reload HAProxy, so that both are the same again, then retry.",
                connector=self._label,
            )
        if present != new:
            self._write(_beside(path, new, "old"), before, 0o600)
        self._write(_beside(path, new), content, 0o600)
        effect("target.stage", connector=self._label, file=path, fingerprint=new)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"HAProxy: replace {path} in memory and on disk ({key_text(bundle.chain.leaf)})",
            {"file": path},
        )

    def _stage_new(self, site: Site, path: str, content: bytes, bundle: Bundle) -> Staged:
        crt_list = self._list(str(site.settings["crt_list"]))
        crt_list.must_exist()
        self._write(_beside(path, bundle.chain.fingerprint), content, 0o600)
        return Staged(
            site.id,
            bundle.chain.fingerprint,
            None,
            f"HAProxy: {path} is new in {crt_list.path} ({key_text(bundle.chain.leaf)})",
            {"file": path, "crt_list": crt_list.path},
        )

    def _activate_new(self, staged: Staged) -> str:
        path, content = self._staged(staged)
        crt_list = self._list(str(staged.data["crt_list"]))
        shown = self._memory.shown(path)
        if shown is None:
            said = self._api.run(f"new ssl cert {path}")
            if "New empty certificate store" not in said:
                raise ActivationRefused(f"HAProxy made no place for {path}: {words(said)}")
        elif shown.sha1 not in ("", sha1_of(content)):
            raise Conflict(
                f"{self._label}: somebody put another certificate at {path} since",
                connector=self._label,
            )
        try:
            if self._memory.shown_sha1(path) != sha1_of(content):
                self._memory.replace(path, content)
            self._write(path, content, 0o600)
            crt_list.add(path)
        except ActivationRefused:
            self._remove_new(staged)
            raise
        effect("target.activate", connector=self._label, file=path)
        return f"HAProxy: {path} added to {crt_list.path} without a reload, and on disk"

    def _remove_new(self, staged: Staged) -> str:
        path = self._path(str(staged.data["file"]))
        shown = self._memory.shown(path)
        if shown is None and self._host.info(path) is None:
            return "HAProxy: nothing to put back"
        known = self._known(path, shown.sha1) if shown and shown.sha1 else None
        if known not in (None, staged.fingerprint):
            raise Conflict(
                f"{self._label}: {path} was changed by somebody else since", connector=self._label
            )
        self._list(str(staged.data["crt_list"])).remove(path)
        if shown is not None:
            self._api.run(f"del ssl cert {path}")
        self._host.remove(path)
        effect("target.restore", connector=self._label, file=path)
        return f"HAProxy: {path} taken out of the list again, in memory and on disk"

    def activate(self, staged: Staged) -> str:
        if "crt_list" in staged.data:
            return self._activate_new(staged)
        path, content = self._staged(staged)
        shown = self._memory.must_show(path)
        new = sha1_of(content)
        if shown.sha1 != new:
            present = self._known(path, shown.sha1)
            must_replace(present, staged.replaces, staged.fingerprint, path, self._label)
            self._memory.replace(path, content)
        on_disk = self._host.read_file(path) == content
        if shown.sha1 == new and on_disk:
            return f"HAProxy: {short(staged.fingerprint)} was live already, nothing changed"
        if not on_disk:
            self._write_live(path, content)
        effect("target.activate", connector=self._label, file=path)
        return f"HAProxy: {path} replaced in memory without a reload, and on {self._host.name}"

    def restore(self, staged: Staged) -> str:
        if "crt_list" in staged.data:
            return self._remove_new(staged)
        path = self._path(str(staged.data["file"]))
        copy = _beside(path, staged.fingerprint, "old")
        try:
            before = self._host.read_file(copy)
        except NotFound:
            return "HAProxy: nothing to put back"
        shown = self._memory.must_show(path)
        on_disk = self._host.read_file(path) == before
        if shown.sha1 == sha1_of(before) and on_disk:
            return "HAProxy: nothing to put back"
        if self._known(path, shown.sha1) not in (staged.fingerprint, staged.replaces):
            raise Conflict(
                f"{self._label}: {path} was changed by somebody else since", connector=self._label
            )
        if shown.sha1 != sha1_of(before):
            self._memory.replace(path, before)
        if not on_disk:
            self._write_live(path, before)
        effect("target.restore", connector=self._label, file=path)
        return f"HAProxy: {short(staged.replaces)} put back in memory and on {self._host.name}"

    def discard(self, staged: Staged) -> None:
        path = self._path(str(staged.data["file"]))
        for copy in (_beside(path, staged.fingerprint), _beside(path, staged.fingerprint, "old")):
            self._host.remove(copy)

    def _known(self, path: str, sha1: str) -> Fingerprint | None:
        """Return the fingerprint of what is in memory: HAProxy tells the SHA-1 only."""
        folder, name = posixpath.split(path)
        try:
            beside = [n for n in self._host.list_directory(folder) if n.startswith(f".{name}.")]
        except NotFound:
            return None
        for candidate in (path, *(posixpath.join(folder, one) for one in beside)):
            try:
                leaf = leaf_of(self._host.read_file(candidate))
            except (NotFound, ValueError):
                continue
            if sha1_of_leaf(leaf) == sha1:
                return fingerprint(leaf)
        return None

    def _staged(self, staged: Staged) -> tuple[str, bytes]:
        path = self._path(str(staged.data["file"]))
        try:
            content = self._host.read_file(_beside(path, staged.fingerprint))
            if fingerprint(leaf_of(content)) != staged.fingerprint:
                raise ValueError
        except (NotFound, ValueError) as exc:
            raise ActivationRefused(
                f"what was staged for {path} is gone from {self._host.name} or was changed",
                remedy="Retry: the certificate is staged again, no new order is made.",
            ) from exc
        return path, content

    def _write(self, path: str, content: bytes, mode: int) -> None:
        info = self._host.info(path)
        same_shape = info is not None and (info.kind, info.mode) == ("file", mode)
        if same_shape and self._host.read_file(path) == content:
            return
        self._host.write_file(path, content, mode=mode)

    def _write_live(self, path: str, content: bytes) -> None:
        info = self._host.info(path)
        # Owner and group stay; what only a group may read stays so; others never may.
        mode = (info.mode if info else 0o600) & 0o750
        try:
            self._host.write_file(path, content, mode=mode)
        except ConnectorError as exc:
            exc.remedy = f"HAProxy's memory has it, its file does not. {exc.remedy}"
            raise

    def _is_new(self, path: str, crt_list: str) -> bool:
        shown = self._memory.shown(path) if crt_list else None
        return bool(crt_list) and (shown is None or not shown.sha1)

    def _list(self, path: str) -> CrtList:
        return CrtList(self._api, self._host, self._path(path))

    def _path(self, site: str) -> str:
        if not site.startswith("/") or _UNSAFE.search(site) or posixpath.normpath(site) != site:
            raise InvalidRequest(
                f"not a certificate file that can be changed: {plain(site)}",
                remedy="Set the endpoint's site to the absolute path that `show ssl cert` shows; "
                "it must have no space and no special character.",
            )
        return site


def _beside(path: str, new: Fingerprint, what: str = "new") -> str:
    # A name with a dot in front is skipped where `crt` names the whole directory.
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}.{new[:16]}.{what}")
