"""The README's "first real certificate", followed word for word against real servers.

The files are those of the page. Only addresses, credentials and the trust of
the laboratory's CA are put in: fields that stand there get other values, and
a port or a folder is added where the real world has the standard one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.dns_servers import Bind, PowerDns, bind, powerdns
from tests.support.nginx import Nginx
from tests.support.pebble import Pebble, pebble
from tests.support.process import let_in
from tests.support.sshd import Sshd, sshd
from tests.support.stack import ROOT, Stack

NAME = "www.example.org"
ZONE = "example.org"
_EXAMPLE = re.compile(r"<!-- example: ([\w-]+) -->\n```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SITE = """
    server {
        listen 127.0.0.1:@port@ ssl;
        server_name www.example.org;
        ssl_certificate     @dir@/old.pem;
        ssl_certificate_key @dir@/old.key;
    }
    server {
        listen 127.0.0.1:@plain@;
        server_name www.example.org;
        location /.well-known/acme-challenge/ { root @dir@/htdocs; }
    }
"""


def example(name: str) -> dict[str, Any]:
    """Return one of the README's YAML files."""
    found = dict(_EXAMPLE.findall((ROOT / "README.md").read_text()))
    loaded: dict[str, Any] = yaml.safe_load(found[name])
    return loaded


def replaced(file: dict[str, Any], by: dict[str, Any]) -> dict[str, Any]:
    """Return *file* with the connectors and profiles of *by* in place of those of that name."""
    result = dict(file)
    for section, entries in by.items():
        new = {entry["name"]: entry for entry in entries}
        result[section] = [new.get(entry["name"], entry) for entry in file[section]]
    return result


@dataclass
class Laboratory:
    """The servers that stand for the reader's own."""

    folder: Path
    dns: Bind | PowerDns
    ca: Pebble
    nginx: Nginx
    ssh: Sshd

    def adapted(self, file: dict[str, Any]) -> dict[str, Any]:
        """Put the laboratory's addresses and credentials into a file of the page."""
        values: dict[str, dict[str, Any]] = {
            "ca-acme": {
                "directory_url": self.ca.directory_url,
                "ca_bundle": str(self.ca.ca_bundle),
            },
            "host-ssh": {
                "host": "127.0.0.1",
                "port": self.ssh.port,
                "private_key_file": str(self.ssh.key_file),
                "known_hosts_file": str(self.ssh.known_hosts),
            },
            "dns-rfc2136": {"server": self.dns.address, "port": self.dns.port, **self._dns()},
            "dns-powerdns": self._dns(),
        }
        for connector in file["connectors"]:
            connector.update(values[connector["type"]])
        for profile in file["profiles"]:
            profile["trust"] = str(self.ca.write_roots(self.folder / "roots.pem"))
            if "webroot" in profile["validation"]:
                profile["validation"]["webroot"] = str(self.nginx.directory / "htdocs")
        for endpoint in file["endpoints"]:
            endpoint["address"] = f"127.0.0.1:{self.nginx.port}"
            endpoint["server"].update({**self.nginx.server, "site": NAME})
        return file

    def _dns(self) -> dict[str, Any]:
        at = [f"{self.dns.address}:{self.dns.port}"]
        seen = {"nameservers": at, "resolvers": at, "poll_interval": 0.1}
        if isinstance(self.dns, Bind):
            return {"key_name": self.dns.key_name, **seen}
        return {"url": self.dns.url, **seen}

    @property
    def secrets(self) -> dict[str, str]:
        """The variables that the page's files refer to."""
        if isinstance(self.dns, Bind):
            return {"TSIG_SECRET": self.dns.key_secret}
        return {"PDNS_API_KEY": self.dns.api_key}


@contextmanager
def laboratory(folder: Path, *, power: bool) -> Iterator[Laboratory]:
    """Start DNS, CA, web server and SSH."""
    let_in(folder)
    parts = {part: folder / part for part in ("dns", "ca", "nginx", "ssh")}
    for part in parts.values():
        part.mkdir()
    dns_server = powerdns(parts["dns"], [ZONE]) if power else bind(parts["dns"], [ZONE])
    with (
        dns_server as dns,
        Nginx.started(parts["nginx"], servers=_SITE) as nginx,
        pebble(
            parts["ca"], dns=f"{dns.address}:{dns.port}", http_port=nginx.plain, authz_reuse=0
        ) as ca,
        sshd(parts["ssh"]) as ssh,
    ):
        dns.add_record(NAME, "A", "127.0.0.1")
        yield Laboratory(folder, dns, ca, nginx, ssh)


def own_names(text: str, variant: str) -> str:
    """Give the connectors names of their own: workers keep known ones for half a minute."""
    for name in ("letsencrypt-staging", "ns", "web01"):
        text = re.sub(rf"(?<=: ){name}$", f"{name}-{variant}", text, flags=re.MULTILINE)
    return text


def typed(line: str) -> list[str]:
    """Return the words of a command that the page has; it must be there as it stands."""
    assert f"\n{line}\n" in (ROOT / "README.md").read_text(), line
    return line.split()[1:]


@pytest.mark.parametrize("variant", ["dns-01", "powerdns", "http-01"])
def test_the_first_certificate(variant: str, installation: Stack, tmp_path: Path) -> None:
    """A newcomer's first ten minutes decide whether there is an eleventh."""
    with laboratory(tmp_path, power=variant == "powerdns") as servers:
        file = example("dns-01")
        if variant != "dns-01":
            file = replaced(file, example(variant))
        if variant == "http-01":
            file["connectors"] = [one for one in file["connectors"] if one["name"] != "ns"]
        path = tmp_path / "certificates.yaml"
        path.write_text(own_names(yaml.safe_dump(servers.adapted(file)), variant))
        before = servers.nginx.served(NAME)

        def run(line: str) -> str:
            words = [str(path) if word == path.name else word for word in typed(line)]
            done = installation.cli(*words, env=servers.secrets)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            return done.stdout

        assert "dry run: nothing was changed" in run(
            "certrail apply -f certificates.yaml --dry-run"
        )
        run("certrail apply -f certificates.yaml")
        said = run("certrail request start www.example.org:443 --wait")

        assert "Automation successful" in said
        assert said.count("✓") == 5
        assert servers.nginx.served(NAME) != before
        assert "Automation successful" in run("certrail endpoint show www.example.org:443")
        assert NAME in run("certrail endpoint list")
