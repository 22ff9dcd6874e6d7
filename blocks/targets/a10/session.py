"""Calls of aXAPI with a session."""

from __future__ import annotations

from typing import Any

import httpx

from certrail.errors import (
    AuthenticationFailed,
    ConnectorError,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.log import logger, plain
from certrail.remote import http


class AxapiSession:
    """Calls with a session, which is asked for at the first call and given back at the end."""

    def __init__(self, client: httpx.Client, label: str, username: str, password: str) -> None:
        self._client = client
        self.label = label
        self._credentials = {"username": username, "password": password}
        self._signature = ""

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one call.

        Raises:
            Rejected: the device failed it, whatever the HTTP status; ``code`` is its own.
        """
        if not self._signature:
            self._signature = self._log_in()
        headers = {"Authorization": f"A10 {self._signature}"}
        try:
            reply = http.send(
                self._client, self.label, method, f"/axapi/v3/{path}", headers=headers, **more
            )
        except AuthenticationFailed:
            self._signature = ""
            raise
        except PermissionRefused as exc:
            exc.remedy = "Give the account write access to slb, file and pki in the partition."
            raise
        if reply.content.lstrip()[:1] == b"{":
            answer = http.json_of(reply, dict).get("response")
            if isinstance(answer, dict) and answer.get("status") == "fail":
                error = answer.get("err") or {}
                raise Rejected(
                    f"{self.label}: {method} {path}: {plain(error.get('msg', 'failed'))[:300]}",
                    connector=self.label,
                    code=str(error.get("code", "")),
                )
        return reply

    def read(self, path: str) -> dict[str, Any]:
        """Return the object at *path*; nothing there (204) is an empty one."""
        reply = self.call("GET", path)
        return http.json_of(reply, dict) if reply.content.strip() else {}

    def close(self) -> None:
        """End the session; a device has room for few of them."""
        if self._signature:
            try:
                self.call("POST", "logoff")
            except ConnectorError as exc:
                logger.warning("a10.logoff failed: %s", exc)
            self._signature = ""

    def _log_in(self) -> str:
        try:
            reply = http.send(
                self._client,
                self.label,
                "POST",
                "/axapi/v3/auth",
                json={"credentials": self._credentials},
                hide=[self._credentials["password"]],
            )
        except PermissionRefused as exc:
            # A wrong password is a 403 here.
            raise AuthenticationFailed(
                f"{self.label}: the device refused user name or password",
                connector=self.label,
                code=exc.code,
            ) from exc
        answer = http.json_of(reply, dict).get("authresponse")
        signature = answer.get("signature") if isinstance(answer, dict) else None
        if not isinstance(signature, str) or not signature.isalnum():
            raise UnexpectedReply(f"{self.label}: a login without signature", connector=self.label)
        return signature
