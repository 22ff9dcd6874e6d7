"""Serve acme2certifier's WSGI application on a port of 127.0.0.1, with threads.

Run by the Python of acme2certifier's own environment; its own script binds port
80 on every address. Configuration comes from ``ACME_SRV_CONFIGFILE``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """One thread for each connection."""

    daemon_threads = True


def application() -> Any:
    """Load the application from the folder in which the package ships it."""
    package = importlib.util.find_spec("acme2certifier")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "share" / "acme2certifier_wsgi.py"
    spec = importlib.util.spec_from_file_location("acme2certifier_wsgi", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.application


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), application(), ThreadingServer).serve_forever()
