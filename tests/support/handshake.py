"""What a TLS client sees on a port of this machine."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from certrail.model import Fingerprint


def tls_connection(port: int, name: str, *, rsa_only: bool = False) -> ssl.SSLSocket:
    """Return a TLS connection, certificate not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if rsa_only:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aRSA")
    raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        return context.wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def fingerprint_at(port: int, name: str, *, rsa_only: bool = False) -> Fingerprint:
    """Return the fingerprint that a client asking for *name* sees."""
    with tls_connection(port, name, rsa_only=rsa_only) as connection:
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return Fingerprint(hashlib.sha256(der).hexdigest())


LARGE = 16_000_000
"""Bytes that no buffer on the way takes at once."""


@contextmanager
def long_download(port: int, name: str, path: str) -> Iterator[Callable[[], bool]]:
    """Begin to fetch *path*, which has :data:`LARGE` bytes; the value ends it: did all come?"""
    with tls_connection(port, name) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        first = connection.recv(1024)
        assert b" 200 " in first, first

        def ends_whole() -> bool:
            received, head = len(first), first
            while part := connection.recv(65536):
                received += len(part)
                head = head if b"\r\n\r\n" in head else head + part
            return received - len(head.partition(b"\r\n\r\n")[0]) - 4 == LARGE

        yield ends_whole
