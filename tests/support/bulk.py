"""Endpoints by the hundred: a CA on disk, one folder of certificates, one TLS server for all.

Each endpoint has a server name of its own; what is installed for it is what a
handshake with that name gets.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from blocks.ca.local import LocalAuthority
from tests.support.process import free_port, running


@dataclass(frozen=True)
class Estate:
    """Endpoints ``<prefix>0.<zone>:443`` and so on, all at one address.

    Attributes:
        folder: everything is below it.
        names: the server names.
        port: where all of them are served.
        prefix: of the names of connectors and profiles, so that tests do not meet.
    """

    folder: Path
    names: tuple[str, ...]
    port: int
    prefix: str

    def locations(self) -> list[str]:
        """The endpoints' locations."""
        return [f"{name}:443" for name in self.names]

    def configuration(self, **profile: Any) -> dict[str, Any]:
        """Return a configuration file; *profile* adds to its one profile."""
        return {
            "connectors": [
                {
                    "name": f"{self.prefix}-ca",
                    "type": "ca-local",
                    "ca_dir": str(self.folder / "ca"),
                    **({"permitted_names": [self.zone]} if self.zone else {}),
                },
                {"name": f"{self.prefix}-here", "type": "host-local"},
            ],
            "profiles": [
                {
                    "name": self.prefix,
                    "workflow": "web-server",
                    "ca": f"{self.prefix}-ca",
                    "trust": str(self.folder / "ca" / "authority" / "root.pem"),
                    **profile,
                }
            ],
            "endpoints": [self.endpoint(name) for name in self.names],
        }

    @property
    def zone(self) -> str:
        """The domain that all names are below."""
        return self.names[0].partition(".")[2] if self.names else ""

    def endpoint(self, name: str) -> dict[str, Any]:
        """Return the configuration of one endpoint."""
        return {
            "location": f"{name}:443",
            "address": f"127.0.0.1:{self.port}",
            "names": [name],
            "profile": self.prefix,
            "target": f"{self.prefix}-here",
            "server": {"kind": "command", "site": name, "directory": str(self.folder / "live")},
            "tags": [self.prefix],
        }

    def hold(
        self, whole: dict[str, Any], endpoint: dict[str, Any], file: Path, then: str = "true"
    ) -> None:
        """Let installing at *endpoint* wait until *file* is there, and do *then*.

        As a device of its own, so that no device's budget counts; two changes of this machine
        come one after the other all the same.
        """
        target = f"{self.prefix}-at-{endpoint['names'][0].partition('.')[0]}"
        whole["connectors"].append({"name": target, "type": "host-local"})
        endpoint["target"] = target
        endpoint["server"] |= {"test": gate(file, then), "timeout": 600}

    def write(self, configuration: Mapping[str, Any] | None = None) -> Path:
        """Write the configuration file and return its path."""
        path = self.folder / f"{self.prefix}.yaml"
        path.write_text(yaml.safe_dump(dict(configuration or self.configuration())))
        return path

    def issued(self) -> dict[str, int]:
        """Count the certificates that the CA signed for each name, from its own order files."""
        counted: dict[str, int] = {}
        for file in (self.folder / "ca" / "orders").glob("*/*.json"):
            order = json.loads(file.read_text())
            if "chain" in order:
                for name in order["names"]:
                    counted[name] = counted.get(name, 0) + 1
        return counted


@contextmanager
def estate(folder: Path, prefix: str, count: int, zone: str = "bulk.test") -> Iterator[Estate]:
    """Serve *count* endpoints while the block runs."""
    names = tuple(f"{prefix}{number}.{zone}" for number in range(count))
    (folder / "live").mkdir(parents=True)
    make_root(folder / "ca")
    port = free_port()
    argv = [sys.executable, "-m", "tests.support.sni_server", str(folder / "live"), str(port)]
    with running(argv, log=folder / "tls.log", port=port):
        yield Estate(folder, names, port, prefix)


def make_root(folder: Path) -> None:
    """Make the CA's root and intermediate, which the profile has to name as trusted."""
    with LocalAuthority(ca_dir=str(folder)).connect() as ca:
        ca.trust_anchor()


def gate(file: Path, then: str = "true") -> list[str]:
    """Return a command for a server's test that waits until *file* is there."""
    return ["sh", "-c", f"until [ -e {shlex.quote(str(file))} ]; do sleep 0.1; done; {then}"]


def chosen(locations: Sequence[str], folder: Path) -> Path:
    """Write a file for ``--locations-file``."""
    path = folder / "locations.txt"
    path.write_text("\n".join(locations) + "\n")
    return path
