"""Certificates that a configuration names."""

from __future__ import annotations

from cryptography import x509

from certrail.connectors import Host
from certrail.errors import ConnectorError
from certrail.model import Chain


def leaf_at(host: Host, path: str) -> x509.Certificate | None:
    """Return the first certificate in the file at *path*, None if it cannot be told."""
    if not path.startswith("/"):
        return None
    try:
        return Chain.from_pem(host.read_file(path).decode(errors="replace")).leaf
    except ConnectorError:
        return None
