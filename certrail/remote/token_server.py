"""A web server that knows nothing but the http-01 proofs published at the moment."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from certrail.errors import Busy, CertrailError, InvalidRequest, PermissionRefused, Unreachable
from certrail.log import logger, plain

_PREFIX = "/.well-known/acme-challenge/"
_CONNECTIONS = 128
_SECONDS = 5.0
"""For a whole request and its answer: a CA asks at once, and slow clients are no CA."""
_REQUEST_LIMIT = 8192


class TokenServer:
    """One listening socket and the proofs it answers with."""

    def __init__(self, address: str, port: int) -> None:
        """Listen.

        Raises:
            Busy: another program listens there.
            PermissionRefused: the port is not open to our account.
            InvalidRequest: the address is not one of this machine.
        """
        self._proofs: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        self._stopping = threading.Event()
        self._socket = _listen(address, port)
        self._thread = threading.Thread(
            target=self._accept, name=f"certrail-http01-{port}", daemon=True
        )
        self._thread.start()

    def add(self, proofs: Mapping[str, str]) -> None:
        """Answer for the tokens of *proofs*; each addition counts."""
        with self._lock:
            for token, proof in proofs.items():
                _, count = self._proofs.get(token, ("", 0))
                self._proofs[token] = (proof, count + 1)

    def discard(self, tokens: Iterable[str]) -> bool:
        """Take one addition of each token back; return whether none is left at all."""
        with self._lock:
            for token in tokens:
                proof, count = self._proofs.pop(token, ("", 0))
                if count > 1:
                    self._proofs[token] = (proof, count - 1)
            return not self._proofs

    def close(self) -> None:
        """Stop listening; returns when the port is free."""
        self._stopping.set()
        # Closing alone would not wake a thread that waits in accept().
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as exc:
                if not self._stopping.is_set():
                    logger.warning("http-01 listener: %s", exc)
                    # Out of descriptors, for example; some will be given back.
                    self._stopping.wait(0.1)
                continue
            if not self._slots.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                request = _request(client, time.monotonic() + _SECONDS)
                if request is not None:
                    client.settimeout(_SECONDS)
                    client.sendall(self._answer(*request))
        except OSError:
            return
        finally:
            self._slots.release()

    def _answer(self, method: str, target: str) -> bytes:
        if method not in ("GET", "HEAD"):
            return _reply("405 Method Not Allowed", b"", "Allow: GET, HEAD\r\n")
        try:
            path = urlsplit(target).path
        except ValueError:
            return _reply("400 Bad Request", b"")
        token = path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else ""
        with self._lock:
            proof, _ = self._proofs.get(token, ("", 0))
        if not proof:
            return _reply("404 Not Found", b"")
        logger.debug("http01.answer token=%s", plain(token))
        return _reply("200 OK", proof.encode(), body=method == "GET")


class PublishedTokens:
    """The listeners of this process, by address and port."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[tuple[str, int], TokenServer] = {}

    def add(self, address: str, port: int, proofs: Mapping[str, str]) -> None:
        """Answer for *proofs* there, opening the port if nothing is published yet."""
        if not proofs:
            return
        with self._lock:
            place = (address, port)
            if place not in self._servers:
                self._servers[place] = TokenServer(address, port)
            self._servers[place].add(proofs)

    def discard(self, address: str, port: int, tokens: Iterable[str]) -> None:
        """Stop answering for *tokens* there, and close the port with the last one."""
        with self._lock:
            server = self._servers.get((address, port))
            if server is not None and server.discard(tokens):
                del self._servers[address, port]
                server.close()


published_tokens = PublishedTokens()


def _listen(address: str, port: int) -> socket.socket:
    every = address in ("", "::")
    try:
        family = socket.AF_INET6 if ":" in address or every else socket.AF_INET
        both = every and socket.has_dualstack_ipv6()
        if every and not both:
            family, address = socket.AF_INET, ""
        listener = socket.create_server(
            (address, port), family=family, backlog=_CONNECTIONS, dualstack_ipv6=both
        )
    except OSError as exc:
        raise _refusal(exc, address, port) from exc
    listener.settimeout(1.0)
    return listener


def _refusal(exc: OSError, address: str, port: int) -> CertrailError:
    where = f"port {port} on {plain(address) or 'every address'}"
    if exc.errno == errno.EADDRINUSE:
        return Busy(
            f"{where} is taken by another program",
            remedy="Publish through that web server's document root, or use dns-01; the CA "
            "always asks on port 80.",
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(
            f"listening on {where} is not permitted",
            remedy="Give the worker CAP_NET_BIND_SERVICE, lower "
            "net.ipv4.ip_unprivileged_port_start, or forward port 80 to a higher one.",
        )
    if exc.errno == errno.EADDRNOTAVAIL or isinstance(exc, socket.gaierror):
        return InvalidRequest(
            f"{plain(address)} is not an address of this machine",
            remedy="Give one of its addresses, or leave the address out for all of them.",
        )
    return Unreachable(f"cannot listen on {where}: {exc.strerror}")


def _request(client: socket.socket, deadline: float) -> tuple[str, str] | None:
    """Return method and target of a request, None if none came whole before *deadline*."""
    received = b""
    while b"\r\n\r\n" not in received and b"\n\n" not in received:
        left = deadline - time.monotonic()
        if left <= 0 or len(received) > _REQUEST_LIMIT:
            return None
        client.settimeout(left)
        piece = client.recv(2048)
        if not piece:
            return None
        received += piece
    fields = received.split(b"\n", 1)[0].decode("latin-1").split()
    return (fields[0], fields[1]) if len(fields) == 3 else ("", "")


def _reply(status: str, content: bytes, headers: str = "", *, body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {len(content)}\r\n{headers}Connection: close\r\n\r\n"
    )
    return head.encode() + (content if body else b"")
