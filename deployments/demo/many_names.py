"""Many TLS endpoints in one process: the server name says which certificate is shown.

A certificate is read from ``<folder>/<name>/live`` when it is first asked for and
again when it changed, as servers do that watch their files.

    python -m deployments.demo.many_names FOLDER PORT
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path


class _Contexts:
    """TLS contexts by server name, made when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[str, ssl.SSLContext]] = {}

    def choose(self, socket: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Give *socket* the context of *name*; a name without a certificate is refused."""
        live = self._folder / (name or "") / "live"
        version = str(live.resolve())
        known = self._known.get(name or "")
        if known is None or known[0] != version:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                context.load_cert_chain(live / "fullchain.pem", live / "privkey.pem")
            except OSError:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            known = self._known[name or ""] = (version, context)
        socket.context = known[1]
        return None


async def _serve(folder: Path, port: int) -> None:
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.sni_callback = _Contexts(folder).choose

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", port, ssl=front)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
