"""The servers that a web-server request talks to, all of them real.

PowerDNS holds the zone, Pebble validates through it, nginx serves many sites
behind sshd. :meth:`World.configuration` is what a user would write to put
them under Certrail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.dns_servers import PowerDns, powerdns
from tests.support.nginx import Nginx
from tests.support.pebble import Pebble, pebble
from tests.support.process import let_in
from tests.support.sshd import Sshd, sshd

SITE = """
    server {{
        listen 127.0.0.1:@port@ ssl;
        server_name {name};
        ssl_certificate     @dir@/old.pem;
        ssl_certificate_key @dir@/old.key;
        location / {{ return 200 "{name}\\n"; }}
    }}
"""


@dataclass
class World:
    """Everything outside, running.

    Attributes:
        folder: its files; ``roots.pem`` is what clients of Pebble's certificates trust.
        names: sites of nginx, each with a server block of its own.
    """

    folder: Path
    dns: PowerDns
    ca: Pebble
    nginx: Nginx
    ssh: Sshd
    names: Sequence[str]

    @property
    def roots(self) -> Path:
        """The trust file, as Pebble's present root wants it."""
        return self.ca.write_roots(self.folder / "roots.pem")

    def connectors(self) -> list[dict[str, Any]]:
        """Return the connectors ``pebble``, ``ns`` and ``web01``."""
        return [
            {
                "name": "pebble",
                "type": "ca-acme",
                "directory_url": self.ca.directory_url,
                "ca_bundle": str(self.ca.ca_bundle),
                "contact": "ops@example.test",
            },
            {
                "name": "ns",
                "type": "dns-powerdns",
                "url": self.dns.url,
                "api_key": self.dns.api_key,
                "nameservers": [f"{self.dns.address}:{self.dns.port}"],
                "poll_interval": 0.1,
                "propagation_timeout": 60,
            },
            {
                "name": "web01",
                "type": "host-ssh",
                "host": "127.0.0.1",
                "port": self.ssh.port,
                "username": "root",
                "private_key_file": str(self.ssh.key_file),
                "known_hosts_file": str(self.ssh.known_hosts),
            },
        ]

    def profile(self, **changes: Any) -> dict[str, Any]:
        """Return the profile ``public-web`` with *changes*."""
        return {
            "name": "public-web",
            "workflow": "web-server",
            "ca": "pebble",
            "validation": {"method": "dns-01", "dns": "ns", "timeout_seconds": 120},
            "trust": str(self.roots),
            "install_timeout_seconds": 60,
            **changes,
        }

    def endpoint(self, name: str, **changes: Any) -> dict[str, Any]:
        """Return the endpoint of the site *name* with *changes*."""
        return {
            "location": f"{name}:443",
            "address": f"127.0.0.1:{self.nginx.port}",
            "names": [name],
            "profile": "public-web",
            "target": "web01",
            "server": {**self.nginx.server, "site": name},
            **changes,
        }

    def configuration(self, **changes: Any) -> dict[str, Any]:
        """Return the whole file: connectors, one profile, an endpoint for each site."""
        return {
            "connectors": self.connectors(),
            "profiles": [self.profile()],
            "endpoints": [self.endpoint(name) for name in self.names],
            **changes,
        }

    def write(self, name: str, configuration: Mapping[str, Any]) -> Path:
        """Write a configuration file and return its path."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(dict(configuration), sort_keys=False))
        path.chmod(0o600)
        return path


@contextmanager
def world(folder: Path, names: Sequence[str], **pebble_options: Any) -> Iterator[World]:
    """Start all of it; *names* lie below ``example.test``."""
    with ExitStack() as stack:
        parts = {part: folder / part for part in ("dns", "ca", "nginx", "ssh")}
        for part in parts.values():
            part.mkdir(parents=True)
        let_in(folder)
        dns = stack.enter_context(powerdns(parts["dns"]))
        options = {"dns": f"{dns.address}:{dns.port}", **pebble_options}
        ca = stack.enter_context(pebble(parts["ca"], **options))
        sites = "".join(SITE.format(name=name) for name in names)
        nginx = stack.enter_context(Nginx.started(parts["nginx"], servers=sites))
        ssh = stack.enter_context(sshd(parts["ssh"]))
        yield World(folder, dns, ca, nginx, ssh, names)
