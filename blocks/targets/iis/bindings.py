"""The https bindings of IIS, and which of them a certificate is meant for.

``Get-WebBinding`` returns elements of ``system.applicationHost/sites`` ("Binding
<binding>", IIS configuration reference): ``bindingInformation`` is
``address:port:host``; bit 1 of ``sslFlags`` is SNI, bit 2 the central certificate
store; ``certificateHash`` and ``certificateStoreName`` are what HTTP.sys has.
HTTP.sys keeps one certificate for an address and port, which all bindings without SNI
there share, and one for each host and port with SNI ("netsh http", add sslcert).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509

from certrail.errors import InvalidRequest, NotFound, UnexpectedReply
from certrail.log import plain
from certrail.tls.verify import covers

SNI, CENTRAL_STORE = 1, 2

_SITE_NAME = re.compile(r"@name=(?:'([^']*)'|\"([^\"]*)\")")
_THUMBPRINT = re.compile(r"[0-9A-F]{40}")
# The Cert: drive has stores as folders; none of Windows' own has another character.
_STORE = re.compile(r"[A-Za-z0-9 _.-]{1,64}")


@dataclass(frozen=True)
class Binding:
    """One https binding.

    Attributes:
        site: name of the web site.
        information: ``address:port:host`` as IIS has it.
        xpath: where it is in the configuration.
        flags: ``sslFlags``.
        thumbprint: SHA-1 of its certificate in upper-case hex, "" for none.
        store: the machine's certificate store that this is in.
    """

    site: str
    information: str
    xpath: str
    flags: int = 0
    thumbprint: str = ""
    store: str = "My"

    @property
    def id(self) -> str:
        """How an endpoint names it; a site's name has no slash."""
        return f"{self.site}/{self.information}"

    @property
    def address(self) -> str:
        """Where it listens, ``*`` for everywhere."""
        return self.information.rsplit(":", 2)[0]

    @property
    def port(self) -> str:
        """Its port."""
        return self.information.rsplit(":", 2)[1]

    @property
    def host(self) -> str:
        """Host header, "" for any."""
        return self.information.rsplit(":", 2)[2].lower()

    @property
    def shared(self) -> tuple[str, ...]:
        """What HTTP.sys keeps its certificate by."""
        if self.flags & SNI:
            return ("host", self.host, self.port)
        return ("address", self.address, self.port)


def binding_of(row: object) -> Binding:
    """Read what ``Get-WebBinding | Select-Object`` returned.

    Raises:
        UnexpectedReply: it is no binding, or names what cannot be a thumbprint or store.
    """
    if not isinstance(row, dict):
        raise UnexpectedReply("a binding without properties")
    information, xpath = str(row.get("bindingInformation")), str(row.get("ItemXPath"))
    named = _SITE_NAME.search(xpath)
    thumbprint = str(row.get("certificateHash") or "").upper()
    store = str(row.get("certificateStoreName") or "My")
    flags = row.get("sslFlags")
    if (
        named is None
        or information.count(":") < 2
        or not isinstance(flags, int)
        or (thumbprint and not _THUMBPRINT.fullmatch(thumbprint))
        or not _STORE.fullmatch(store)
    ):
        raise UnexpectedReply(f"not a binding of IIS: {plain(information)[:100]}")
    site = named[1] if named[1] is not None else named[2]
    return Binding(site, information, xpath, flags, thumbprint, store)


def find(bindings: Sequence[Binding], wanted: str, label: str) -> Binding:
    """Return the binding that *wanted* names: ``site/address:port:host``, or a site with one.

    Raises:
        NotFound: there is none, or the site has none for https.
        InvalidRequest: the site has several.
    """
    site, slash, information = wanted.partition("/")
    found = [
        one
        for one in bindings
        if one.site.lower() == site.lower()
        and (not slash or one.information.lower() == information.lower())
    ]
    if len(found) == 1:
        return found[0]
    there = ", ".join(one.id for one in bindings[:20])
    if not found:
        raise NotFound(
            f"{label}: there is no https binding {plain(wanted)}",
            remedy=f"Set the endpoint's site to one that is there ({plain(there) or 'none'}), or "
            "make it on the machine first: New-WebBinding -Name SITE -Protocol https -Port 443 "
            "-HostHeader HOST -SslFlags 1.",
            connector=label,
        )
    several = ", ".join(one.id for one in found)
    raise InvalidRequest(
        f"{label}: {plain(wanted)} has {len(found)} https bindings",
        remedy=f"Set the endpoint's site to one of them: {plain(several)}",
    )


def must_be_ours_to_change(
    binding: Binding, bindings: Iterable[Binding], leaf: x509.Certificate, label: str
) -> None:
    """Check that *leaf* in *binding* harms nobody else.

    Raises:
        InvalidRequest: the certificate is a file of the central store, or other sites get the
            same certificate from HTTP.sys and are not named in it.
    """
    if binding.flags & CENTRAL_STORE:
        raise InvalidRequest(
            f"{label}: {binding.id} takes its certificate from the central certificate store",
            remedy="Deliver the certificate as a file to the share of that store (a delivery "
            "request, format pkcs12); IIS reads it by its name.",
        )
    left_out = [
        one.id
        for one in bindings
        if one.shared == binding.shared
        and one.id != binding.id
        and one.host
        and not covers(leaf, one.host)
    ]
    if left_out:
        raise InvalidRequest(
            f"{label}: {binding.id} shares its certificate with {plain(', '.join(left_out))}, "
            "which the new one does not name",
            remedy="Turn on Server Name Indication for these bindings (sslFlags 1), or put their "
            "names into this certificate as well. Nothing was changed.",
        )
