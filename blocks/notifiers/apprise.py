"""Anything that Apprise can write to: chats, pagers, telephones, message queues.

Apprise says only whether it worked; its log lines say why. They can quote the
address, which holds the credential, so only codes are taken from them.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field, SecretStr

from blocks._base import NotifierBlock, open_secret
from certrail.connectors import Notifier
from certrail.errors import (
    AuthenticationFailed,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Throttled,
    Unreachable,
)
from certrail.events import Severity
from certrail.log import effect
from certrail.message import Message

_TYPES = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "failure",
    Severity.CRITICAL: "failure",
}
_STATUS = re.compile(r"error\s*=\s*(\d{3})|\b(?:HTTP|status)\D{0,10}(\d{3})\b", re.IGNORECASE)


class AppriseUrl(NotifierBlock):
    """Write to anything that Apprise knows (Slack, Teams, PagerDuty, Matrix, SMS, …) by its URL."""

    _block_type_name = "Certrail notifier: Apprise"
    _block_type_slug = "notifier-apprise"

    url: SecretStr = Field(
        description="Apprise's URL of the service, such as `slack://TokenA/TokenB/TokenC/#ops`, or "
        "a reference to it."
    )

    @contextmanager
    def connect(self) -> Iterator[Notifier]:
        """Read the URL."""
        opened = _open(open_secret(self.url))
        if opened is None:
            raise InvalidRequest(
                f"{self.label}: Apprise cannot use this URL",
                remedy="See the URL of the service at https://github.com/caronc/apprise/wiki.",
            )
        yield _Apprise(opened, self.label)


def _open(url: str) -> Any:
    """Return Apprise with that one URL, None if it cannot use it."""
    # Two thirds of a second for the import, which only those pay who use it; it brings
    # modules with remarks to their programmers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import apprise

        # Nothing on disk, no modules from elsewhere, and no credential in its own lines.
        asset = apprise.AppriseAsset(
            app_id="Certrail",
            app_desc="Certrail",
            app_url="",
            secure_logging=True,
            storage_mode="memory",
            plugin_paths=[],
            async_mode=False,
        )
        opened = apprise.Apprise(asset=asset)
        return opened if opened.add(url) and len(opened) == 1 else None


class _Apprise(Notifier):
    def __init__(self, opened: Any, label: str) -> None:
        self._opened = opened
        self._label = label
        self._service = str(opened[0].service_name)

    def check(self) -> str:
        return (
            f"the URL is one of {self._service}; whether it works shows "
            "`certrail notify test` only, since Apprise cannot ask"
        )

    def send(self, message: Message) -> str:
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        handler.setLevel(logging.INFO)
        mine = threading.get_ident()
        handler.addFilter(lambda record: record.thread == mine)
        logger = logging.getLogger("apprise")
        logger.addHandler(handler)
        try:
            done = self._opened.notify(
                title=message.subject,
                body=message.text,
                notify_type=_TYPES[message.severity],
                body_format="text",
                interpret_escapes=False,
            )
        except (TypeError, ValueError, OSError) as exc:
            raise Unreachable(
                f"{self._label}: {self._service} failed: {type(exc).__name__}",
                connector=self._label,
            ) from None
        finally:
            logger.removeHandler(handler)
        if not done:
            raise self._failure(said.getvalue())
        effect("apprise.sent", connector=self._label, id=message.id, service=self._service)
        return f"{self._service} took it"

    def _failure(self, said: str) -> ConnectorError:
        match = _STATUS.search(said)
        code = int(match[1] or match[2]) if match else 0
        told = f"{self._label}: {self._service} did not take the message"
        if not code:
            return Unreachable(f"{told}: no usable answer", connector=self._label)
        told = f"{told}: it answered {code}"
        kind: type[ConnectorError]
        if code == 401:
            kind = AuthenticationFailed
        elif code == 403:
            kind = PermissionRefused
        elif code in (404, 410):
            kind = NotFound
        elif code == 429:
            kind = Throttled
        elif 400 <= code < 500:
            kind = Rejected
        else:
            kind = Unreachable
        return kind(told, connector=self._label, code=str(code))
