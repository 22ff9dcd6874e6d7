"""What the proxy of the tests keeps apart."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from tests.support.faulty_proxy import faulty_proxy


def test_a_call_that_has_to_be_alone_is_alone() -> None:
    """And its turn comes, however many others there are."""
    beside: list[tuple[str, int]] = []
    inside: list[str] = []
    other = threading.Event()

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            inside.append(self.path)
            if self.path == "/alone/":
                # Long enough for those that wait outside to come in, if anything let them.
                other.clear()
                other.wait(timeout=0.2)
            else:
                other.set()
            beside.append((self.path, len(inside)))
            inside.remove(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server,
        faulty_proxy(server.server_address[1]) as proxy,
        ThreadPoolExecutor(8) as pool,
    ):
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        proxy.alone = "/alone/"

        def call(path: str) -> int:
            address = f"http://127.0.0.1:{proxy.port}{path}"
            with urllib.request.urlopen(address, timeout=30) as reply:
                return int(reply.status)

        paths = ["/a", "/b", "/alone/"] * 10
        assert set(pool.map(call, paths)) == {204}
        server.shutdown()

    assert len(beside) == len(paths)
    assert {number for path, number in beside if path == "/alone/"} == {1}
