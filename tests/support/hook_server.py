"""A receiver of webhooks: checks the signature with the specification's own library."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


@dataclass
class HookServer:
    """A running receiver.

    Attributes:
        received: the bodies that were accepted, oldest first.
        ids: their ``webhook-id``.
        status: what to answer instead of accepting, 0 to accept.
    """

    port: int = 0
    secret: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    status: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def hook_server(secret: str = "") -> Iterator[HookServer]:
    """Receive webhooks; with a *secret* only signed ones, otherwise any JSON."""
    hooks = HookServer(secret=secret)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(self._answer(body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, body: bytes) -> int:
            if hooks.status:
                return hooks.status
            if hooks.secret:
                try:
                    Webhook(hooks.secret).verify(body, dict(self.headers.items()))
                except WebhookVerificationError:
                    return 401
            hooks.ids.append(self.headers.get("webhook-id", ""))
            hooks.received.append(json.loads(body))
            return 200

        def do_OPTIONS(self) -> None:
            self.send_response(405)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hooks.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hooks
        finally:
            server.shutdown()
            thread.join()
