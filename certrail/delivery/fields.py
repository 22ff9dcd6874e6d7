"""A certificate as the named text fields of one secret, which change together."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from certrail.delivery.names import filled
from certrail.delivery.settings import NamedParts, OpenReference
from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.model import Bundle, Site
from certrail.x509.export import Format, Part

_FIELDS = {
    Part.CERT: "certificate",
    Part.CHAIN: "chain",
    Part.FULLCHAIN: "fullchain",
    Part.KEY: "private_key",
    Part.BUNDLE: "bundle",
    Part.STORE: "keystore",
}
_TEXTS = (Format.PEM, Format.PEM_BUNDLE)


class FieldSettings(NamedParts):
    """Settings of a secret with fields; what is no PEM text is base64 there."""

    def usual(self, part: Part) -> str:
        return _FIELDS[part]

    def fields_of(
        self, site: Site, bundle: Bundle, open_reference: OpenReference
    ) -> dict[str, str]:
        """Return names and texts of the fields that *bundle* is stored in.

        Raises:
            InvalidRequest: a field for a key, and no key.
        """
        exported = self.export(bundle, open_reference)
        names = {part: filled(text, site) for part, text in self.templates().items()}
        if missing := set(names) - set(exported):
            raise InvalidRequest(
                f"the certificate came without one: no {', '.join(missing)} to deliver",
                remedy="Let Certrail make the key, or set `files: {key: ''}`.",
            )
        return {name: self._text(exported[part]) for part, name in names.items()}

    def bundle_in(
        self, site: Site, fields: Mapping[str, object], open_reference: OpenReference
    ) -> Bundle | None:
        """Return what the fields hold; None where that is nothing usable.

        Raises:
            AuthenticationFailed: a container has another password.
        """
        contents = {}
        for part, template in self.templates().items():
            value = fields.get(filled(template, site))
            if not isinstance(value, str):
                return None
            try:
                contents[part] = self._bytes(value)
            except binascii.Error:
                return None
        try:
            return self.load(completed(contents), open_reference)
        except UnexpectedReply:
            return None

    def _text(self, content: bytes) -> str:
        if self.format in _TEXTS:
            return content.decode()
        return base64.b64encode(content).decode()

    def _bytes(self, text: str) -> bytes:
        return text.encode() if self.format in _TEXTS else base64.b64decode(text, validate=True)


def completed(contents: Mapping[Part, bytes]) -> dict[Part, bytes]:
    """Return *contents* with the parts that are not delivered made of those that are."""
    full = dict(contents)
    if Part.FULLCHAIN in full:
        end = b"-----END CERTIFICATE-----\n"
        first, found, rest = full[Part.FULLCHAIN].partition(end)
        if found:
            full.setdefault(Part.CERT, first + found)
            full.setdefault(Part.CHAIN, rest)
    elif Part.CERT in full:
        full.setdefault(Part.CHAIN, b"")
        full[Part.FULLCHAIN] = full[Part.CERT] + full[Part.CHAIN]
    return full


def same(found: Bundle | None, wanted: Bundle, settings: NamedParts | None = None) -> bool:
    """Return whether *found* is *wanted*, as far as what is stored can tell.

    The key needs no look: it was read together with its certificate, and matches.
    """
    if found is None or found.chain.fingerprint != wanted.chain.fingerprint:
        return False
    whole = settings is None or {Part.FULLCHAIN, Part.CHAIN, Part.BUNDLE, Part.STORE} & set(
        settings.templates()
    )
    return not whole or found.chain == wanted.chain
