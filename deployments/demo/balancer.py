"""An "appliance": a load balancer that is changed through its API only.

It is a Caddy that has its certificates in its configuration, as appliances have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.demo.ca import caddy
from deployments.demo.processes import accepts, free_port, running
from deployments.demo.self_signed import self_signed

_KEY = b"-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Balancer:
    """The running load balancer.

    Attributes:
        api_url: of its admin API.
        https_port: where it serves.
    """

    api_url: str
    https_port: int


@contextmanager
def balancing(folder: Path, *, first_name: str) -> Iterator[Balancer]:
    """Run it with a self-signed certificate for *first_name*."""
    folder.mkdir()
    admin, port = free_port(), free_port()
    config = folder / "caddy.json"
    config.write_text(json.dumps(_configuration(admin, port, first_name), indent=1))
    config.chmod(0o600)
    command = [caddy(), "run", "--config", str(config)]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with running(
        "the load balancer",
        command,
        log=folder / "caddy.log",
        ready=lambda: accepts(port) and accepts(admin),
        environment=home,
    ):
        yield Balancer(f"http://127.0.0.1:{admin}", port)


def _configuration(admin: int, port: int, name: str) -> dict[str, object]:
    certificate, _, key = self_signed(name).partition(_KEY)
    entry = {"certificate": certificate.decode(), "key": (_KEY + key).decode(), "tags": [name]}
    server = {
        "listen": [f"127.0.0.1:{port}"],
        "automatic_https": {"disable": True},
        "tls_connection_policies": [{}],
        "routes": [{"handle": [{"handler": "static_response", "body": "hello"}]}],
    }
    return {
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "apps": {
            "tls": {"certificates": {"load_pem": [entry]}},
            "http": {"servers": {"balancer": server}},
        },
    }
