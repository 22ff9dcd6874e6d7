"""Calls of iControl REST with a token, alone or in a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from certrail.errors import (
    AuthenticationFailed,
    Busy,
    ConnectorError,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.log import logger, plain
from certrail.remote import http

T = TypeVar("T", bound=BaseModel)


class _Items(BaseModel):
    items: list[dict[str, Any]] = []


class Session:
    """Calls with a token, which is asked for at the first call and given back at the end."""

    def __init__(
        self,
        client: httpx.Client,
        label: str,
        username: str,
        password: str,
        *,
        provider: str = "tmos",
    ) -> None:
        self._client = client
        self.label = label
        self._login = {
            "username": username,
            "password": password,
            "loginProviderName": provider,
        }
        self._token = ""

    def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """Send one call.

        Raises:
            PermissionRefused: the account's role does not allow it.
        """
        if not self._token:
            self._token = self._log_in()
        given = {"X-F5-Auth-Token": self._token, **(headers or {})}
        try:
            return http.send(self._client, self.label, method, path, headers=given, **more)
        except AuthenticationFailed as exc:
            # The device says 401 for a role that is too small, too.
            if "Authorization failed" in str(exc):
                raise PermissionRefused(
                    str(exc),
                    remedy="Give the account the role Administrator on all partitions.",
                    connector=self.label,
                    code=exc.code,
                ) from exc
            self._token = ""
            raise

    def items(self, path: str, kind: type[T], **more: Any) -> list[T]:
        """Return a collection of *kind*; an empty one has no ``items``."""
        found = http.json_of(self.call("GET", path, **more), _Items).items
        return [http.shaped(one, kind, self.label) for one in found]

    @contextmanager
    def transaction(self) -> Iterator[Mapping[str, str]]:
        """Do all calls with the headers that this gives, or none of them.

        What is begun and not committed is forgotten by the device after two minutes.
        """
        reply = http.json_of(self.call("POST", "/mgmt/tm/transaction", json={}), dict)
        number = reply.get("transId")
        if not isinstance(number, int):
            raise UnexpectedReply(
                f"{self.label}: a transaction without a number", connector=self.label
            )
        yield {"X-F5-REST-Coordination-Id": str(number)}
        try:
            done = self.call(
                "PATCH", f"/mgmt/tm/transaction/{number}", json={"state": "VALIDATING"}
            )
        except NotFound as exc:
            raise Busy(
                f"{self.label}: the device gave the transaction up before it was complete",
                remedy="Retry: nothing of it was done.",
                connector=self.label,
                code=exc.code,
            ) from exc
        state = http.json_of(done, dict).get("state")
        if state != "COMPLETED":
            raise Rejected(
                f"{self.label}: the transaction ended as {plain(state)}",
                connector=self.label,
                code=plain(state),
            )

    def close(self) -> None:
        """Give the token back; devices allow a hundred of them for an account."""
        if self._token:
            try:
                self.call("DELETE", f"/mgmt/shared/authz/tokens/{self._token}")
            except ConnectorError as exc:
                logger.warning("bigip.logout failed: %s", exc)
            self._token = ""

    def _log_in(self) -> str:
        reply = http.send(
            self._client,
            self.label,
            "POST",
            "/mgmt/shared/authn/login",
            json=self._login,
            hide=[self._login["password"]],
        )
        token = http.json_of(reply, dict).get("token")
        text = token.get("token") if isinstance(token, dict) else None
        if not isinstance(text, str) or not text.isalnum():
            raise UnexpectedReply(f"{self.label}: a login without token", connector=self.label)
        return text
