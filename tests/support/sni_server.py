"""Thousands of TLS endpoints in one process: the server name picks the files.

A certificate is read from ``<folder>/<name>/live/fullchain.pem`` and
``privkey.pem`` when it is first asked for and again when the file changes, so
an installation needs no reload, as with servers that watch their files.

    python -m tests.support.sni_server FOLDER PORT
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path


class Contexts:
    """TLS contexts by server name, made when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, ssl.SSLContext]] = {}

    def choose(self, socket: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Give *socket* the context of *name*; an unknown name is refused."""
        live = self._folder / (name or "") / "live"
        chain, key = live / "fullchain.pem", live / "privkey.pem"
        try:
            stamp = chain.stat().st_mtime_ns ^ hash(str(live.resolve()))
        except OSError:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        known = self._known.get(name or "")
        if known is None or known[0] != stamp:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(chain, key)
            known = self._known[name or ""] = (stamp, context)
        socket.context = known[1]
        return None


async def serve(folder: Path, port: int) -> None:
    """Serve until cancelled; each connection is closed after its handshake."""
    contexts = Contexts(folder)
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.sni_callback = contexts.choose

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", port, ssl=front, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
