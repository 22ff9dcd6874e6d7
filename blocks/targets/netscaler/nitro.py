"""Calls of NITRO, and the files that certificates are in."""

from __future__ import annotations

import base64
import binascii
import posixpath
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx

from certrail.errors import Conflict, NotFound, PermissionRefused, Rejected, UnexpectedReply
from certrail.log import plain
from certrail.remote import http

FOLDER = "/nsconfig/ssl"
# NITRO's own status for errors of the appliance.
_APPLIANCE_ERROR = 599
_NO_SUCH_RESOURCE = 258


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


class Nitro:
    """The configuration of one appliance."""

    def __init__(self, client: httpx.Client, label: str) -> None:
        self._client = client
        self.label = label

    def file(self, path: str) -> bytes | None:
        """Return the content of a file, None if it is not there; *path* below the folder."""
        folder, name = posixpath.split(posixpath.join(FOLDER, path))
        where = f"filename:{quote(name, safe='')},filelocation:{quote(folder, safe='')}"
        try:
            found = self.read("systemfile", params=f"args={where}")
        except NotFound:
            return None
        try:
            return base64.b64decode(str(found[0]["filecontent"]), validate=True) if found else None
        except (KeyError, binascii.Error) as exc:
            raise UnexpectedReply(
                f"{self.label}: the content of {plain(path)} cannot be read",
                connector=self.label,
            ) from exc

    def write_file(self, name: str, content: bytes) -> None:
        """Write or replace a file of the folder; the same content again is quiet."""
        present = self.file(name)
        if present == content:
            return
        if present is not None:
            self.remove_file(name)
        body = {
            "filename": name,
            "filelocation": FOLDER,
            "filecontent": base64.b64encode(content).decode(),
            "fileencoding": "BASE64",
        }
        try:
            self.call("POST", "systemfile", json={"systemfile": body})
        except Conflict:
            # It is there by now: the same call may have arrived twice.
            if self.file(name) != content:
                raise

    def remove_file(self, name: str) -> None:
        """Remove a file of the folder; absent is quiet."""
        where = f"filelocation:{quote(FOLDER, safe='')}"
        try:
            self.call("DELETE", f"systemfile/{segment(name)}", params=f"args={where}")
        except NotFound:
            return

    def read(self, path: str, params: str = "") -> list[dict[str, Any]]:
        """Return the objects at *path*; an answer without a list has none."""
        found = self.call("GET", path, params=params or None).get(path.partition("/")[0], [])
        if not isinstance(found, list):
            # Objects of which there is one, such as nsversion, come without a list.
            found = [found]
        return [one for one in found if isinstance(one, dict)]

    def call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
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
                self.label,
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
            f"{self.label}: {method} {path.partition('?')[0]}: {plain(body.get('message'))[:300]}"
        )
        if code == _NO_SUCH_RESOURCE:
            raise NotFound(message, connector=self.label, code=str(code))
        raise Rejected(f"{message} ({code})", connector=self.label, code=str(code))


def segment(name: str) -> str:
    """Return *name* as one part of an address."""
    return quote(name, safe="")
