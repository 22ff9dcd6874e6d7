"""An HTTP relay that carries a request out and then loses the reply.

The worst moment of a connection is after the effect: the other side has done
what was asked, and we do not know::

    with relay(server.port) as between:
        between.lose("POST", "/sign/", http_reply(502))
        ... talk to between.port ...
"""

from __future__ import annotations

import http.client
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler


@dataclass
class Relay:
    """A running relay.

    Attributes:
        port: where it listens on 127.0.0.1.
        requests: method, path and body of all that came through; the path of a call by
            name (AWS) ends with ``#`` and the name.
    """

    port: int
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    _losses: list[tuple[str, str, bytes]] = field(default_factory=list)

    def lose(self, method: str, part: str, instead: bytes = b"") -> None:
        """Answer the next *method* whose path has *part* with *instead*, after carrying it out.

        With b"" the connection is just closed.
        """
        self._losses.append((method, part, instead))

    def take(self, method: str, path: str, body: bytes) -> bytes | None:
        """Return what to say instead of the reply, None for the reply itself."""
        self.requests.append((method, path, body))
        for loss in self._losses:
            if loss[0] == method and loss[1] in path:
                self._losses.remove(loss)
                return loss[2]
        return None


@contextmanager
def relay(upstream: int) -> Iterator[Relay]:
    """Relay plain HTTP to *upstream* on this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"
        wbufsize = -1  # head and body in one packet, or each call waits for an ACK

        def _carry(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server = http.client.HTTPConnection("127.0.0.1", upstream, timeout=20)
            try:
                server.request(self.command, self.path, body, dict(self.headers.items()))
                reply = server.getresponse()
                content = reply.read()
            finally:
                server.close()
            called = self.headers.get("X-Amz-Target", "")
            path = f"{self.path}#{called}" if called else self.path
            instead = between.take(self.command, path, body)
            if instead is not None:
                self.wfile.write(instead)
                return
            self.send_response_only(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_LIST = _carry  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            return

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Listener(("127.0.0.1", 0), Handler) as listener:
        between = Relay(listener.server_address[1])
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield between
        finally:
            listener.shutdown()
            thread.join()
