"""TLS hosts of a ``server.xml``.

https://tomcat.apache.org/tomcat-10.1-doc/config/http.html, "SSL Support":
a ``Connector`` with ``SSLEnabled="true"`` has ``SSLHostConfig`` elements, each
for a name, with ``Certificate`` elements that name PEM files or a key store.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from certrail.errors import InvalidRequest
from certrail.servers.tomcat.xml import Attribute, Element, parse

CERTIFICATE, KEY, CHAIN = "certificateFile", "certificateKeyFile", "certificateChainFile"
STORE, PASSWORD, TYPE = (
    "certificateKeystoreFile",
    "certificateKeystorePassword",
    "certificateKeystoreType",
)
ALIAS, KEY_PASSWORD = "certificateKeyAlias", "certificateKeyPassword"
OLD_NAMES = {
    "keystoreFile": STORE,
    "keystorePass": PASSWORD,
    "keystoreType": TYPE,
    "keyAlias": ALIAS,
    "keyPass": KEY_PASSWORD,
    "SSLCertificateFile": CERTIFICATE,
    "SSLCertificateKeyFile": KEY,
    "SSLCertificateChainFile": CHAIN,
    "SSLPassword": KEY_PASSWORD,
}
"""Attributes of a connector before Tomcat 8.5, and those of a ``Certificate`` that took their
place (Tomcat 9 configuration reference, "SSL Support - Connector - NIO and NIO2 (deprecated)")."""
_DEFAULT = "_default_"
_PROPERTY = re.compile(r"\$\{")
_BASE = re.compile(r"\$\{catalina\.(base|home)\}")


@dataclass(frozen=True, slots=True)
class TlsHost:
    """One ``SSLHostConfig`` of a connector.

    Attributes:
        name: its host name, "" for clients that ask for none of the others.
    """

    connector: Element
    element: Element
    name: str

    @property
    def port(self) -> str:
        """The connector's port."""
        return self.connector.get("port")

    @property
    def address(self) -> str:
        """The connector's address, "" for any."""
        return self.connector.get("address")

    @property
    def certificates(self) -> list[Element]:
        """What names the files: the certificates in it, or it itself, as Tomcat 8.5 has it."""
        found = list(self.element.all("Certificate"))
        own = [self.element] if {CERTIFICATE, STORE} & self.element.attributes.keys() else []
        return found or own

    def fits(self, name: str) -> int:
        """Return how well it answers for *name*: 2 exactly, 1 by a wildcard, 0 as the last."""
        if self.name.lower() == name.lower():
            return 2
        if self.name.startswith("*.") and self.name[2:] == name.partition(".")[2]:
            return 1
        return -1 if self.name else 0


@dataclass(eq=False)
class Configuration:
    """A ``server.xml``."""

    path: str
    data: bytes
    base: str
    document: Element

    @classmethod
    def read(cls, path: str, data: bytes, base: str) -> Configuration:
        """Read *data*; *base* is CATALINA_BASE, "" for that of the path.

        Raises:
            InvalidRequest: it cannot be read.
        """
        return cls(path, data, base or base_of(path), parse(data, path))

    @property
    def hosts(self) -> list[TlsHost]:
        """Every TLS host, in their order."""
        found = []
        for connector in self.document.all("Connector"):
            if connector.get("SSLEnabled").lower() != "true":
                continue
            default = connector.get("defaultSSLHostConfigName", _DEFAULT)
            for element in connector.all("SSLHostConfig"):
                name = element.get("hostName", _DEFAULT)
                found.append(TlsHost(connector, element, "" if name == default else name))
        return found

    def old_connectors(self) -> Iterator[Element]:
        """Yield connectors whose certificate is configured as Tomcat 8.0 did it."""
        for one in self.document.all("Connector"):
            if {"keystoreFile", "SSLCertificateFile"} & one.attributes.keys():
                yield one

    def serving(self, name: str, port: str) -> list[TlsHost]:
        """Return the hosts that answer for *name*, one of each connector."""
        best: dict[int, TlsHost] = {}
        for host in self.hosts:
            if port and port != host.port:
                continue
            key = id(host.connector)
            if host.fits(name) > (best[key].fits(name) if key in best else -1):
                best[key] = host
        return list(best.values())

    def file(self, attribute: Attribute | None) -> str:
        """Return the absolute path that *attribute* names, "" if it cannot be told."""
        if attribute is None:
            return ""
        text = _BASE.sub(lambda _: self.base, attribute.value).removeprefix("file:")
        return "" if _PROPERTY.search(text) else posixpath.join(self.base, text)

    def place(self, element: Element) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{element.number}"

    def text(self, attribute: Attribute | None, default: str = "") -> str:
        """Return the value of *attribute*.

        Raises:
            InvalidRequest: it is a property, whose value is elsewhere.
        """
        if attribute is None:
            return default
        if _PROPERTY.search(attribute.value):
            raise InvalidRequest(
                f"{self.path}:{attribute.number}: the value is a property, which is set elsewhere",
                remedy="Name PEM files with `certificateFile` and `certificateKeyFile` instead of "
                "a key store, then retry.",
            )
        return attribute.value


def base_of(path: str) -> str:
    """Return CATALINA_BASE of a ``server.xml``: Debian keeps the two apart."""
    name = posixpath.basename(posixpath.dirname(path))
    if path.startswith("/etc/tomcat"):
        return f"/var/lib/{name}"
    return posixpath.dirname(posixpath.dirname(path))
