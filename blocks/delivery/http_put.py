"""A file behind a URL: WebDAV, an artifact store, anything that takes PUT and GET.

Where the server gives entity tags (RFC 9110 section 8.8.3), ``If-Match``
makes it refuse our write if somebody else wrote after our look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
from pydantic import Field, SecretStr

from blocks._base import DeliveryBlock, open_reference, open_secret
from certrail.connectors import DeliveryTarget
from certrail.delivery.fields import same
from certrail.delivery.objects import ObjectSettings, quoted_path
from certrail.errors import AuthenticationFailed, Conflict, InvalidRequest
from certrail.log import effect
from certrail.model import Bundle, Fingerprint, Site
from certrail.remote import http

# Not every server knows OPTIONS, or has something at the URL itself.
_ANSWERS = (404, 405, 501)


class HttpPut(DeliveryBlock):
    """Store certificates as files with HTTP PUT, and read them back with GET."""

    _block_type_name = "Certrail delivery: HTTP PUT"
    _block_type_slug = "delivery-http-put"

    url: str = Field(description="Where the files lie, such as https://files.example/certs.")
    username: str = Field(default="", description="Account for basic authentication.")
    password: SecretStr | None = Field(
        default=None, description="Its password, or a reference to it."
    )
    header: str = Field(
        default="Authorization", description="Header that carries header_value, if that is set."
    )
    header_value: SecretStr | None = Field(
        default=None,
        description="Whole value of the header, such as `Bearer …`, or a reference to it.",
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) of the server; empty: system."
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds the server may take.")

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the place."""
        value = open_secret(self.header_value)
        if value and self.username:
            raise InvalidRequest(
                f"{self.label} has both an account and a header",
                remedy="Set username and password, or header_value.",
            )
        with http.client(
            self.url.rstrip("/") + "/",
            headers={self.header: value} if value else None,
            auth=(self.username, open_secret(self.password)) if self.username else None,
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield _HttpPutDelivery(client, self.label)


class _HttpPutDelivery(DeliveryTarget):
    def __init__(self, client: httpx.Client, label: str) -> None:
        self._client = client
        self._label = label

    def check(self) -> str:
        reply = self._call("OPTIONS", "", accept=_ANSWERS)
        return f"{self._client.base_url.host} answered {reply.status_code}"

    def delivered(self, site: Site) -> Fingerprint | None:
        settings = ObjectSettings.parse(site.settings)
        body, _ = self._read(site)
        found = settings.bundle_in(body, open_reference) if body is not None else None
        return found.chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        settings = ObjectSettings.parse(site.settings)
        content = settings.body_of(bundle, open_reference)
        path = quoted_path(site.id)
        body, tag = self._read(site)
        if body is not None and self._holds(settings, body, bundle):
            return f"{path} had it already"
        headers = {"Content-Type": settings.content_type}
        if tag:
            headers["If-Match"] = tag
        elif body is None:
            headers["If-None-Match"] = "*"
        try:
            self._call("PUT", path, content=content, headers=headers)
        except Conflict as exc:
            exc.remedy = (
                "Retry: the present state is read again. If it stays, the folder may be missing."
            )
            raise
        effect("http.deliver", connector=self._label, path=path, size=len(content))
        return f"{path} on {self._client.base_url.host}, {len(content)} bytes"

    def _holds(self, settings: ObjectSettings, body: bytes, bundle: Bundle) -> bool:
        try:
            return same(settings.bundle_in(body, open_reference), bundle)
        except AuthenticationFailed:
            return False  # the container's password has changed

    def _read(self, site: Site) -> tuple[bytes | None, str]:
        """Return the body, None for none, and a strong entity tag, "" for none."""
        # Caches on the way must not answer for the server.
        reply = self._call(
            "GET", quoted_path(site.id), accept=(404, 410), headers={"Cache-Control": "no-cache"}
        )
        if not reply.is_success:
            return None, ""
        tag = reply.headers.get("ETag", "")
        return reply.content, tag if tag.startswith('"') else ""

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        return http.send(self._client, self._label, method, path, **kwargs)
