"""Signed webhooks, after the Standard Webhooks specification.

Headers ``webhook-id`` (the event's id), ``webhook-timestamp`` (seconds since
1970) and ``webhook-signature`` (``v1,`` and the base64 of HMAC-SHA256 over
``id.timestamp.body``). A receiver refuses what is more than five minutes old
and what it has seen: its own library for the specification does both.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx
from pydantic import Field, SecretStr

from blocks._base import NotifierBlock, open_secret
from certrail.connectors import Notifier
from certrail.errors import InvalidRequest
from certrail.log import effect
from certrail.message import Message
from certrail.remote import http

_PREFIX = "whsec_"
_SHORTEST = 24  # bytes, as the specification asks


class Webhook(NotifierBlock):
    """Post each event as JSON to a URL, signed with HMAC-SHA256 (Standard Webhooks)."""

    _block_type_name = "Certrail notifier: signed webhook"
    _block_type_slug = "notifier-webhook"

    url: str = Field(description="Where to post, such as https://hooks.example.org/certrail.")
    secret: SecretStr = Field(
        description="Key of the signature: `whsec_` and base64 of 24 to 64 random bytes, or a "
        "reference to it.",
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) of the server; empty: system."
    )
    timeout: int = Field(default=15, ge=1, le=120, description="Seconds the server may take.")

    @contextmanager
    def connect(self) -> Iterator[Notifier]:
        """Open the client."""
        key = signing_key(open_secret(self.secret))
        with http.client(
            self.url, ca_bundle=self.ca_bundle, timeout=timedelta(seconds=self.timeout)
        ) as client:
            yield _Webhook(client, key, self.label)


class _Webhook(Notifier):
    def __init__(self, client: httpx.Client, key: bytes, label: str) -> None:
        self._client = client
        self._key = key
        self._label = label

    def check(self) -> str:
        # What a receiver says to a method it does not know still shows that it is there.
        reply = http.send(
            self._client, self._label, "OPTIONS", "", accept=(400, 404, 405, 415, 422, 501)
        )
        return f"{self._client.base_url.host} answered {reply.status_code}"

    def send(self, message: Message) -> str:
        body = json.dumps(
            {
                "type": "certrail.notification",
                "id": message.id,
                "severity": message.severity,
                "subject": message.subject,
                "events": list(message.events),
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        stamp = int(time.time())
        reply = http.send(
            self._client,
            self._label,
            "POST",
            "",
            content=body,
            headers={
                "Content-Type": "application/json",
                "webhook-id": message.id,
                "webhook-timestamp": str(stamp),
                "webhook-signature": sign(self._key, message.id, stamp, body),
            },
            limit=64 * 1024,
            deadline=timedelta(seconds=60),
        )
        effect("webhook.sent", connector=self._label, id=message.id, status=reply.status_code)
        return f"HTTP {reply.status_code}"


def sign(key: bytes, message_id: str, stamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``."""
    signed = f"{message_id}.{stamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signing_key(secret: str) -> bytes:
    """Return the bytes of a ``whsec_…`` secret.

    Raises:
        InvalidRequest: it is none, or shorter than 24 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or len(key) < _SHORTEST:
        # Not chained and nothing quoted: it is a secret.
        raise InvalidRequest(
            "the webhook's secret is not `whsec_` and base64 of 24 to 64 bytes",
            remedy='Make one with: echo "whsec_$(openssl rand -base64 32)"',
        ) from None
    return key
