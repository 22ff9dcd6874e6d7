"""An HTTP proxy before a real service that spoils chosen replies.

For what only happens on the way: the service did its work, and the answer
got lost, or the request never arrived whole.
"""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum


class Fault(Enum):
    """What happens to one request."""

    NONE = "passed on"
    REFUSED_AFTER = "done, then answered with 502"
    CUT_AFTER = "done, then the connection breaks"
    CUT_BEFORE = "never done, the connection breaks"


Choose = Callable[[str, str], Fault]
Hook = Callable[[str, str], None]


@dataclass
class Proxy:
    """A running proxy: where it is, what it does, what it has seen."""

    port: int
    choose: Choose = lambda method, path: Fault.NONE
    before: Hook = lambda method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def faulty_proxy(upstream: int) -> Iterator[Proxy]:
    """Pass requests on to the port *upstream* of this machine, and spoil what ``choose`` says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            # AWS has one path for everything and says in a header what is asked.
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            what = f"{self.path}{operation}"
            proxy.requests.append((self.command, what))
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            fault = proxy.choose(self.command, what)
            if fault is not Fault.CUT_BEFORE:
                proxy.before(self.command, what)
                connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=20)
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                content = reply.read()
                connection.close()
            self.close_connection = True
            if fault is Fault.REFUSED_AFTER:
                self.send_response(502)
                self.send_header("Connection", "close")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif fault is Fault.NONE:
                self.send_response(reply.status)
                # Said, because a client that keeps the connection would lose its next request.
                self.send_header("Connection", "close")
                for name, value in reply.getheaders():
                    if name.lower() not in (
                        *("content-length", "transfer-encoding", "connection"),
                        *("date", "server"),
                    ):
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _pass  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy = Proxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
