"""Certificates and keys on a BIG-IP: file objects that are made of uploads."""

from __future__ import annotations

from collections.abc import Mapping

from blocks.targets.bigip.replies import CertFile
from blocks.targets.bigip.session import Session
from certrail.errors import ConnectorError, NotFound, Rejected, UnexpectedReply
from certrail.log import effect, logger, plain
from certrail.model import Fingerprint
from certrail.remote import http

_CHUNK = 1024 * 1024
_DOWNLOADS = "/var/config/rest/downloads"

# By name, what is to be made of which content: ("ssl-key", b"...").
Files = dict[str, tuple[str, bytes]]


class FileObjects:
    """The file objects of one device; new ones are made in *partition*."""

    def __init__(self, session: Session, partition: str) -> None:
        self._session = session
        self._label = session.label
        self._partition = partition

    def fingerprint(self, path: str) -> Fingerprint | None:
        """Return the fingerprint of the certificate *path*; None if that stands for none.

        Raises:
            UnexpectedReply: the device does not tell it.
        """
        if path in ("", "none"):
            return None
        reply = self._session.call("GET", f"/mgmt/tm/sys/file/ssl-cert/{tilde(path)}")
        found = http.json_of(reply, CertFile).sha256
        if found is None:
            raise UnexpectedReply(
                f"{self._label}: the device does not tell the fingerprint of {plain(path)}",
                remedy="BIG-IP 14.1 or later is needed.",
                connector=self._label,
            )
        return found

    def missing(self, files: Files) -> Files:
        """Return those of *files* that the device does not have."""
        return {
            name: (kind, content)
            for name, (kind, content) in files.items()
            if not self.exists(kind, name)
        }

    def create(self, missing: Files) -> None:
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

    def exists(self, kind: str, name: str) -> bool:
        """Return whether the partition has the object *name* of *kind*: ssl-cert or ssl-key."""
        path = tilde(f"/{self._partition}/{name}")
        try:
            self._session.call("GET", f"/mgmt/tm/sys/file/{kind}/{path}")
        except NotFound:
            return False
        return True

    def delete(self, part: str, name: str) -> bool:
        """Remove an object that is no longer in use; return whether it was there and is gone.

        Args:
            part: of the profile: cert, key or chain.
            name: its full name.
        """
        kind = "ssl-key" if part == "key" else "ssl-cert"
        try:
            self._session.call("DELETE", f"/mgmt/tm/sys/file/{kind}/{tilde(name)}")
        except NotFound:
            return False
        except Rejected as exc:
            if "is in use" not in str(exc):
                raise
            logger.warning("bigip.discard: %s", exc)
            return False
        effect("target.discard", connector=self._label, object=name)
        return True


def tilde(path: str) -> str:
    """Return a full name as it is written in a URL."""
    return path.replace("/", "~")
