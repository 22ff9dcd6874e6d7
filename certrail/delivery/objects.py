"""A certificate as one body: an object in a bucket, a file behind a URL."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from pydantic import Field

from certrail.delivery.settings import ContentSettings, OpenReference
from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.log import plain
from certrail.model import Bundle
from certrail.x509.export import Format

CONTENT_TYPES = {
    Format.PEM_BUNDLE: "application/x-pem-file",
    Format.PKCS12: "application/x-pkcs12",
    Format.PKCS12_LEGACY: "application/x-pkcs12",
    Format.JKS: "application/octet-stream",
}
_LONGEST = 900


class ObjectSettings(ContentSettings):
    """Forms that are one body; several would not change together."""

    formats: ClassVar[frozenset[Format]] = frozenset(CONTENT_TYPES)

    format: Format = Field(Format.PEM_BUNDLE, description="Form of certificate and key.")

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return CONTENT_TYPES[self.format]

    def body_of(self, bundle: Bundle, open_reference: OpenReference) -> bytes:
        """Return *bundle* as one body."""
        return self.export(bundle, open_reference)[self.format.parts[0]]

    def bundle_in(self, body: bytes, open_reference: OpenReference) -> Bundle | None:
        """Return what *body* holds; None where that is nothing usable.

        Raises:
            AuthenticationFailed: a container has another password.
        """
        try:
            return self.load({self.format.parts[0]: body}, open_reference)
        except UnexpectedReply:
            return None


def checked_path(text: str) -> str:
    """Return *text* if it is a relative path that stays below where it starts.

    Raises:
        InvalidRequest: it is empty, has ``.`` or ``..`` or empty parts, or control characters.
    """
    parts = text.split("/")
    if not all(parts) or {".", ".."} & set(parts) or not text.isprintable() or len(text) > _LONGEST:
        raise InvalidRequest(
            f"not a usable name for an object: {plain(text)[:100]!r}",
            remedy="Set `site` of the endpoint's server to a path such as apps/shop.",
        )
    return text


def quoted_path(text: str) -> str:
    """Return *text* checked and with every part quoted for a URL."""
    return "/".join(quote(part, safe="") for part in checked_path(text).split("/"))
