"""Calls of the Services API and what they answer, as far as it is used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx
from pydantic import BaseModel

from certrail.ca.answer import refusal
from certrail.errors import AuthenticationFailed, PermissionRefused
from certrail.remote import http


class Me(BaseModel):
    """Whose key it is."""

    id: int
    email: str = ""
    username: str = ""


class Certificate(BaseModel):
    """A certificate of an order, as far as it exists."""

    id: int | None = None
    common_name: str = ""
    csr: str = ""
    status: str = ""


class OrderInfo(BaseModel):
    """An order."""

    id: int
    status: str
    certificate: Certificate = Certificate()
    order_valid_till: str = ""


class OrderPage(BaseModel):
    """A page of orders."""

    orders: list[OrderInfo] = []


class AlternateOrder(BaseModel):
    """An order as the search by alternative order id shows it."""

    order_id: int
    status: str = ""


class AlternateOrders(BaseModel):
    """The orders with one alternative order id; several may have the same."""

    orders: list[AlternateOrder] = []


class Certificates(BaseModel):
    """Reissues or duplicates of an order."""

    certificates: list[Certificate] = []


class Ordered(BaseModel):
    """What placing an order answers."""

    id: int
    certificate_id: int | None = None


class Token(BaseModel):
    """A random value to publish."""

    token: str = ""
    status: str = ""
    expiration_date: datetime | None = None


class Validation(BaseModel):
    """How far a domain is for one kind of product."""

    type: str
    status: str = ""
    dcv_status: str = ""
    validated_until: datetime | None = None


class Domain(BaseModel):
    """A domain of the account."""

    id: int
    name: str
    is_active: bool = True
    validations: list[Validation] = []
    dcv_method: str = ""
    dcv_token: Token | None = None
    dcv_expiration_datetime: datetime | None = None


class DomainPage(BaseModel):
    """A page of domains."""

    domains: list[Domain]


class NewDomain(BaseModel):
    """A domain just added."""

    id: int


class Api:
    """Calls with CertCentral's errors."""

    def __init__(self, client: httpx.Client, label: str, deadline: timedelta) -> None:
        self._client = client
        self._label = label
        self._deadline = deadline

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Send one request.

        Raises:
            Rejected: the API refuses; ``code`` is its own word.
            AuthenticationFailed, PermissionRefused: the key is unknown; it may not do this.
        """
        try:
            return self._send(method, path, body, params)
        except PermissionRefused as exc:
            if path == "user/me":
                raise self._unknown_key(exc) from exc
            try:
                self._send("GET", "user/me", None, None)
            except (PermissionRefused, AuthenticationFailed):
                raise self._unknown_key(exc) from exc
            raise PermissionRefused(
                str(exc),
                remedy="Give the key's user a role, and the key no restriction, that allow this.",
                connector=self._label,
                code=exc.code,
            ) from exc

    def _unknown_key(self, exc: PermissionRefused) -> AuthenticationFailed:
        return AuthenticationFailed(
            str(exc),
            remedy="Set api_key to a key that is valid, of the account at this address.",
            connector=self._label,
            code=exc.code,
        )

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
    ) -> httpx.Response:
        content: dict[str, Any] = {} if body is None else {"json": dict(body)}
        reply = http.send(
            self._client,
            self._label,
            method,
            path,
            accept=(400, 422),
            deadline=self._deadline,
            params=dict(params) if params else None,
            **content,
        )
        if reply.is_success:
            return reply
        raise refusal(
            reply,
            f"{method} {path}",
            self._label,
            remedy="Look the message up in CertCentral's documentation and correct the settings.",
            secret=self._client.headers.get("X-DC-DEVKEY", ""),
        )
