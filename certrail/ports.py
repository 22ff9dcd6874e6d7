"""A TCP port kept for a server that somebody else starts.

A port that is only looked at ("it is free now") can be taken by any outgoing
connection before the server has bound it, and again while the server is being
restarted. A bound socket that does not listen keeps it: the kernel gives the
port to nobody who does not ask for it by number, and a server that sets
SO_REUSEADDR, as servers do (socket(7)), can still listen there.
"""

from __future__ import annotations

import socket


def keep_port(host: str, port: int = 0) -> socket.socket:
    """Return a socket that keeps *port* of *host* until it is closed; 0: any free one.

    Raises:
        socket.gaierror: *host* is not an address of this machine.
        OSError: somebody listens there, or the account may not have that port.
    """
    family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    kept = socket.socket(family, socket.SOCK_STREAM)
    try:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(where)
    except OSError:
        kept.close()
        raise
    return kept


def number(kept: socket.socket) -> int:
    """Return the port that *kept* keeps."""
    return int(kept.getsockname()[1])
