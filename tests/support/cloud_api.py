"""The frame of strict fakes of REST APIs that cannot be run here, over real sockets.

See :mod:`tests.support.kubernetes_api` and :mod:`tests.support.key_vault_api`.
"""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, dict[str, Any]]


@dataclass
class Api:
    """A running fake."""

    port: int = 0
    scheme: str = "http"
    lock: threading.Lock = field(default_factory=threading.Lock)

    challenge: str = "Bearer"

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        """Return status and JSON for one request."""
        raise NotImplementedError


@contextmanager
def served(api: Api, tls: ssl.SSLContext | None = None) -> Iterator[Any]:
    """Serve *api* on a port of this machine, over TLS if a context is given."""

    class Handler(http.server.BaseHTTPRequestHandler):
        wbufsize = -1  # head and body in one packet, or each call waits for an ACK
        disable_nagle_algorithm = True

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            with api.lock:
                status, answer = api.answer(self.command, self.path, self.headers, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 401:
                self.send_header("WWW-Authenticate", api.challenge)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _reply  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            api.scheme = "https"
        api.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
