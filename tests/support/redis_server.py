"""A real Redis with TLS on ports from the kernel: Debian's ``redis-server``."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from cryptography.hazmat.primitives import serialization

from certrail.model import Bundle, Fingerprint
from tests.support.nginx import TestCa, store
from tests.support.process import accepts, binary, free_port, running

NAMES = ("www.example.test", "localhost")
PASSWORD = "correct horse"


@dataclass
class RedisProcess:
    """A running server; ``old`` is its certificate."""

    directory: Path
    port: int
    plain: int
    ca: TestCa
    old: Bundle

    @property
    def roots(self) -> str:
        """The CA that its certificate comes from."""
        return self.ca.root.public_bytes(serialization.Encoding.PEM).decode()

    def command(self, *words: str) -> object:
        """Run a command without the code under test."""
        with redis.Redis(port=self.plain, password=PASSWORD, decode_responses=True) as client:
            return client.execute_command(*words)

    def connect(self) -> ssl.SSLSocket:
        """Return a TLS connection, certificate not verified."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        try:
            return context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise

    def served(self) -> Fingerprint:
        """Return the fingerprint that a client sees."""
        with self.connect() as connection:
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return Fingerprint(hashlib.sha256(der).hexdigest())

    @contextmanager
    def session(self) -> Iterator[Callable[[], bool]]:
        """Open a connection; the value says whether it still answers."""
        with self.connect() as connection:

            def answers() -> bool:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))

            assert answers()
            yield answers

    @classmethod
    @contextmanager
    def started(cls, directory: Path, *, file: bool = True) -> Iterator[RedisProcess]:
        """Start it; with *file* = False from arguments only, without a configuration file."""
        ca = TestCa()
        server = cls(directory, free_port(), free_port(), ca, ca.bundle(*NAMES))
        store(directory / "old", server.old)
        settings = {
            "port": str(server.plain),
            "tls-port": str(server.port),
            "tls-cert-file": str(directory / "old.pem"),
            "tls-key-file": str(directory / "old.key"),
            "tls-auth-clients": "no",
            "bind": "127.0.0.1",
            "save": '""',
            "dir": str(directory),
            "user": f"default on #{hashlib.sha256(PASSWORD.encode()).hexdigest()} ~* &* +@all",
        }
        config = directory / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        with config.open("a") as sink:
            reader = hashlib.sha256(b"reader").hexdigest()
            sink.write(f"user reader on #{reader} ~* &* +@all -config|set\n")
        arguments = [str(config)]
        if not file:
            arguments = [part for n, v in settings.items() if n != "user" for part in (f"--{n}", v)]
            arguments += ["--requirepass", PASSWORD]
            arguments[arguments.index('""')] = ""
        with server.again(arguments):
            if file:
                # Rewritten once, it is rewritten the same way ever after.
                assert server.command("CONFIG REWRITE")
            yield server

    @contextmanager
    def again(self, arguments: list[str] | None = None) -> Iterator[None]:
        """Start it with its configuration file as it is now."""
        with running(
            [
                binary("redis-server", "redis-server"),
                *(arguments or [str(self.directory / "redis.conf")]),
            ],
            log=self.directory / "redis.log",
            ready=lambda: accepts(self.port) and accepts(self.plain),
        ):
            yield
