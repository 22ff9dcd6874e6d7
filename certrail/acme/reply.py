"""A reply of the CA, and reading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin

from certrail.acme.links import links
from certrail.acme.problem import Problem
from certrail.acme.retry_after import http_date, retry_after
from certrail.errors import UnexpectedReply
from certrail.log import plain


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply.

    Attributes:
        url: what was asked, after redirects.
        status: HTTP status.
        headers: names are case-insensitive.
        body: at most a megabyte.
        label: name of the connector, for errors.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    label: str

    def json(self) -> dict[str, Any]:
        """Return the JSON object in the body.

        Raises:
            UnexpectedReply: there is none.
        """
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            raise self._unexpected(f"is not JSON: {self.start}") from exc
        if not isinstance(data, dict):
            raise self._unexpected(f"is not a JSON object: {self.start}")
        return data

    def location(self) -> str:
        """Return the URL of what was made or found, absolute.

        Raises:
            UnexpectedReply: the header is missing.
        """
        value = self.headers.get("Location")
        if not value:
            raise self._unexpected("has no Location header")
        return urljoin(self.url, value)

    def links(self, relation: str) -> list[str]:
        """Return the absolute targets of all links with that relation (RFC 8288)."""
        return [urljoin(self.url, to) for to in links(self.headers.get("Link", ""), relation)]

    @property
    def retry_after(self) -> timedelta | None:
        """How long the CA asks to be left alone, None if it does not say."""
        now = http_date(self.headers.get("Date")) or datetime.now(UTC)
        return retry_after(self.headers.get("Retry-After"), now)

    @property
    def problem(self) -> Problem:
        """The problem document in it; one without type if the body is none."""
        try:
            return Problem.parse(json.loads(self.body), self.status)
        except (ValueError, RecursionError):
            return Problem(status=self.status)

    @property
    def start(self) -> str:
        """The start of the body, for messages."""
        return plain(self.body[:120].decode(errors="replace"))

    def _unexpected(self, what: str) -> UnexpectedReply:
        return UnexpectedReply(
            f"the reply of {plain(self.url)} {what}",
            remedy="Check that directory_url is an ACME directory, and what sits in front of it.",
            connector=self.label,
        )
