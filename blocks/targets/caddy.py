"""Caddy through its admin API: certificates loaded as PEM in its configuration.

The API (caddyserver.com/docs/api, "API" and "Concurrent config changes", and
/docs/json/apps/tls/certificates/load_pem; looked up November 2026, behaviour tried
with 2.11): ``GET /config/…`` with an ``Etag`` of path and hash, ``PATCH`` replaces,
``POST`` appends, ``PUT`` creates, ``DELETE``; a change with an ``If-Match`` that
no longer fits is refused with 412. A configuration that cannot be loaded is
answered with 500 and the one before stays. After every change Caddy starts its
admin listener anew and closes open connections.

Entries of ``load_pem`` have no name but their index, and two for one name would
compete in handshakes. So what is staged waits elsewhere in the configuration, in
an HTTP server of ours that listens nowhere, and the switch replaces the entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from urllib.parse import quote

import httpx
from cryptography import x509
from pydantic import Field

from blocks._base import TargetBlock
from blocks._target import must_not_leak, must_replace, must_take, short
from certrail.connectors import InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Busy,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
    Unreachable,
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
from certrail.names import matches
from certrail.remote import http
from certrail.words import counted

_SHELF = ("apps", "http", "servers", "certrail_staged")
_ENTRIES = ("apps", "tls", "certificates", "load_pem")
_LISTENS_NOWHERE = {"automatic_https": {"disable": True}}
_TAG = "certrail:"

Json = dict[str, Any]


class CaddyAdmin(TargetBlock):
    """Replace certificates that a Caddy has in its configuration (`load_pem`).

    The site is a tag of the entry or a name in its certificate. Caddy writes
    each change into its autosave file, which only `caddy run --resume` starts from:
    a Caddy started with `--config` goes back to what that file says.
    """

    _block_type_slug = "target-caddy"
    _block_type_name = "Certrail target: Caddy"

    url: str = Field(
        default="http://localhost:2019",
        description="Address of the admin API; Caddy accepts only hosts listed as its origins.",
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for an https address; empty: system."
    )
    allow_cleartext: bool = Field(
        default=False,
        description="Send keys over http to another machine, which anybody on the way can read.",
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds the API may take.")

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        url = httpx.URL(self.url)
        if url.scheme == "http":
            must_not_leak(url.host, self.allow_cleartext, "Caddy's admin API")
        with http.client(
            self.url,
            # Kept open, a connection would break at the next change.
            headers={"Connection": "close"},
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield CaddyTarget(client, self.label)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of ``load_pem``."""

    index: int
    value: Json
    leaf: x509.Certificate

    @property
    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.leaf)

    @property
    def tags(self) -> list[str]:
        return [str(tag) for tag in self.value.get("tags", [])]

    @property
    def site(self) -> str:
        ours = (tag[len(_TAG) :] for tag in self.tags if tag.startswith(_TAG))
        return next(iter((*ours, *subject_names(self.leaf))), str(self.index))


@dataclass(frozen=True, slots=True)
class _Config:
    """The configuration as read at one moment."""

    tree: Json
    etag: str

    def at(self, path: tuple[str, ...]) -> Any:
        """Return what is at *path*, None if nothing."""
        found: Any = self.tree
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def entries(self) -> list[_Entry]:
        """Return the entries whose certificate can be read."""
        result = []
        for index, value in enumerate(self.at(_ENTRIES) or []):
            try:
                leaf = x509.load_pem_x509_certificate(str(value["certificate"]).encode())
            except UNREADABLE:
                continue
            result.append(_Entry(index, value, leaf))
        return result

    def find(self, site: str) -> _Entry | None:
        """Return the entry that *site* means: by our tag, any tag, or a name it covers.

        Raises:
            InvalidRequest: it could be more than one.
        """
        entries = self.entries()
        for found in (
            [one for one in entries if _TAG + site in one.tags],
            [one for one in entries if site in one.tags],
            [one for one in entries if site.lower() in subject_names(one.leaf)],
            [one for one in entries if any(matches(n, site) for n in subject_names(one.leaf))],
        ):
            if len(found) == 1:
                return found[0]
            if found:
                raise InvalidRequest(
                    f"{len(found)} certificates in Caddy's configuration are for {site}",
                    remedy="Give the entry of `load_pem` that is meant a tag of its own, and set "
                    "the endpoint's site to that tag.",
                )
        return None


class CaddyTarget(InstallTarget):
    """One running Caddy."""

    traits = Traits(
        transactional=True,
        restores_by="the old entry waits in Caddy's configuration until the new one has passed "
        "its test",
        needs_save=True,
    )

    def __init__(self, client: httpx.Client, label: str) -> None:
        self._client = client
        self._label = label

    def check(self) -> str:
        config = self._read()
        settings = config.at(("admin", "config")) or {}
        kept = (
            "not saved at all (admin.config.persist is false)"
            if settings.get("persist") is False
            else "saved for `caddy run --resume`"
        )
        guarded = "" if config.etag else ", an old Caddy that cannot guard against other writers"
        return (
            f"Caddy, {counted(len(config.at(_ENTRIES) or []), 'certificate')} in its "
            f"configuration{guarded}; "
            f"changes are {kept}"
        )

    def sites(self) -> Iterator[Site]:
        for entry in self._read().entries():
            yield Site(
                entry.site, subject_names(entry.leaf), tls=True, fingerprint=entry.fingerprint
            )

    def serving(self, site: Site) -> Fingerprint | None:
        entry = self._read().find(site.id)
        return entry.fingerprint if entry else None

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        key = must_take(bundle, self.traits, "Caddy")
        new = bundle.chain.fingerprint
        config = self._read()
        entry = config.find(site.id)
        present = entry.fingerprint if entry else None
        must_replace(present, replaces, new, site.id, self._label)
        before = self._shelved(config, new)
        old = before["old"] if before else (entry.value if entry and present != new else None)
        tags = [tag for tag in (entry.tags if entry else []) if tag != _TAG + site.id]
        kept: Json = {
            "handler": "vars",
            "site": site.id,
            "old": old,
            "new": {
                "certificate": bundle.chain.text,
                "key": key.decode(),
                "tags": [*tags, _TAG + site.id],
            },
        }
        if kept != before:
            self._put(config, (*_SHELF, "named_routes", _place(new)), {"handle": [kept]})
        effect("target.stage", connector=self._label, site=site.id, fingerprint=new)
        how = f"replaces entry {entry.index}" if entry else "becomes a new entry"
        return Staged(
            site.id,
            new,
            replaces or present,
            f"Caddy: {key_text(bundle.chain.leaf)} {how} of load_pem",
        )

    def activate(self, staged: Staged) -> str:
        config = self._read()
        entry = config.find(staged.site)
        present = entry.fingerprint if entry else None
        if present == staged.fingerprint:
            return f"Caddy: {short(present)} was live already, nothing changed"
        must_replace(present, staged.replaces, staged.fingerprint, staged.site, self._label)
        kept = self._shelved(config, staged.fingerprint)
        if kept is None:
            raise ActivationRefused(
                f"what was staged for {staged.site} is gone from Caddy's configuration",
                remedy="Retry: the certificate is staged again, no new order is made.",
            )
        self._switch(config, entry, kept["new"])
        effect("target.activate", connector=self._label, site=staged.site)
        return f"Caddy: {staged.site} has {short(staged.fingerprint)} in its configuration, loaded"

    def restore(self, staged: Staged) -> str:
        config = self._read()
        kept = self._shelved(config, staged.fingerprint)
        entry = config.find(staged.site)
        if kept is None or entry is None or entry.fingerprint == staged.replaces:
            return "Caddy: nothing to put back"
        if entry.fingerprint != staged.fingerprint:
            raise Conflict(
                f"{self._label}: {staged.site} was changed by somebody else since",
                connector=self._label,
            )
        if kept["old"] is None:
            self._change(config, "DELETE", (*_ENTRIES, str(entry.index)))
        else:
            self._switch(config, entry, kept["old"])
        effect("target.restore", connector=self._label, site=staged.site)
        return f"Caddy: {short(staged.replaces)} put back and loaded"

    def discard(self, staged: Staged) -> None:
        config = self._read()
        shelf: Mapping[str, Any] = (config.at(_SHELF) or {}).get("named_routes") or {}
        place = _place(staged.fingerprint)
        if place not in shelf:
            return
        last = set(shelf) == {place}
        self._change(config, "DELETE", _SHELF if last else (*_SHELF, "named_routes", place))

    def _switch(self, config: _Config, entry: _Entry | None, value: Json) -> None:
        try:
            if entry is None:
                self._put(config, _ENTRIES, value)
            else:
                self._change(config, "PATCH", (*_ENTRIES, str(entry.index)), value)
        except (Rejected, Unreachable) as exc:
            # Only a number says that Caddy itself answered; it keeps what it had.
            if exc.code not in ("400", "500"):
                raise
            raise ActivationRefused(
                f"Caddy refused the certificate: {exc}",
                remedy="Correct what Caddy complains about, then retry: no new order is made.",
            ) from exc

    def _put(self, config: _Config, path: tuple[str, ...], value: Json) -> None:
        """Set *path*, or append to the list that is there; missing parents are made."""
        present = config.at(path)
        made: Any = [value] if path == _ENTRIES and present is None else value
        while len(path) > 1 and config.at(path[:-1]) is None:
            made, path = {path[-1]: made}, path[:-1]
            if path == _SHELF:
                made = {**_LISTENS_NOWHERE, **made}
        self._change(config, "POST", path, made)

    def _shelved(self, config: _Config, new: Fingerprint) -> Json | None:
        route = config.at((*_SHELF, "named_routes", _place(new)))
        try:
            return cast(Json, route["handle"][0]) if route else None
        except (KeyError, IndexError, TypeError):
            return None

    def _read(self) -> _Config:
        reply = self._call("GET", "/config/")
        # A Caddy that runs without any configuration says null.
        tree = http.json_of(reply, dict) if reply.content.strip() != b"null" else {}
        return _Config(cast(Json, tree), reply.headers.get("Etag", ""))

    def _change(
        self, config: _Config, method: str, path: tuple[str, ...], value: Any = None
    ) -> None:
        where = "/config/" + "/".join(quote(part, safe="") for part in path)
        headers = {"If-Match": config.etag} if config.etag else {}
        body: dict[str, Any] = {}
        if method != "DELETE":
            headers["Content-Type"] = "application/json"
            body = {"content": json.dumps(value).encode()}
        try:
            self._call(method, where, headers=headers, **body)
        except Conflict as exc:
            raise Busy(
                f"{self._label}: somebody changed Caddy's configuration at the same moment",
                remedy="Retry: the present configuration is read again.",
                connector=self._label,
                code=exc.code,
            ) from exc

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return http.send(self._client, self._label, method, path, **kwargs)
        except PermissionRefused as exc:
            exc.remedy = "Add this host and port to `admin.origins` of Caddy's configuration."
            raise
        except NotFound as exc:
            raise UnexpectedReply(
                str(exc),
                remedy="Check that the address is Caddy's admin API.",
                connector=self._label,
            ) from exc
        except ConnectorError as exc:
            # Caddy quotes the configuration it could not read; it may hold keys.
            if "PRIVATE KEY" in str(exc):
                raise type(exc)(
                    f"{self._label}: {method} {plain(path)} was refused",
                    connector=self._label,
                    code=exc.code,
                ) from None
            raise


def _place(new: Fingerprint) -> str:
    return new[:16]
