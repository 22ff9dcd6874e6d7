"""Versions of a certificate with a PKCS #12 key store beside the PEM files."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from certrail.connectors import Host
from certrail.errors import ConnectorError, InvalidRequest
from certrail.model import Bundle, Chain
from certrail.servers.key_file import KeyFile
from certrail.servers.versions import Versions, version_of
from certrail.x509.export import Format, Part, export, load

STORE = "keystore.p12"


@dataclass(frozen=True, slots=True)
class Password:
    """What opens the store, and the name of the entry in it; not to be printed."""

    text: str
    alias: str

    def __repr__(self) -> str:
        return "Password(…)"


class StoreVersions(Versions):
    """Versions that hold a key store too, if *password* is given."""

    def __init__(
        self, host: Host, directory: str, key_file: KeyFile, password: Password | None
    ) -> None:
        super().__init__(host, directory, key_file=key_file)
        self._password = password

    @property
    def live_store(self) -> str:
        """The path for a server's configuration: key store."""
        return posixpath.join(self.live_link, STORE)

    def _files(self, bundle: Bundle) -> dict[str, bytes]:
        files = super()._files(bundle)
        if self._password is None:
            return files
        path = posixpath.join(self.path(version_of(bundle.chain.fingerprint)), STORE)
        return {STORE: self._present(path, bundle) or self._made(bundle), **files}

    def _made(self, bundle: Bundle) -> bytes:
        assert self._password is not None
        if bundle.key is None:
            raise InvalidRequest(
                "Tomcat's key store holds the key, and this certificate came without one",
                remedy="Set `key: {location: store}` in the profile, or name PEM files in "
                "server.xml.",
            )
        try:
            made = export(
                bundle, Format.PKCS12, password=self._password.text, alias=self._password.alias
            )
        except InvalidRequest as exc:
            exc.remedy = (
                "Give the key store in server.xml a longer password, or name PEM files there."
            )
            raise
        return made[Part.STORE]

    def _present(self, path: str, bundle: Bundle) -> bytes:
        """Return the store that is there if it holds *bundle*: a new one has other bytes."""
        assert self._password is not None
        try:
            content = self._host.read_file(path)
            found = load({Part.STORE: content}, Format.PKCS12, password=self._password.text)
        except ConnectorError:
            return b""
        return content if found.chain.fingerprint == bundle.chain.fingerprint else b""


def chain_in(content: bytes, password: str) -> Chain | None:
    """Return the chain in a PKCS #12 or JKS key store, None if it cannot be read."""
    for form in (Format.PKCS12, Format.JKS):
        try:
            return load({Part.STORE: content}, form, password=password).chain
        except (ConnectorError, InvalidRequest):
            continue
    return None
