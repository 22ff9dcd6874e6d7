"""A new user's Debian server: found by its configuration, put under Certrail, renewed, proven."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.debian_server import NAMES, DebianServer, debian_server
from tests.support.dns_servers import powerdns
from tests.support.pebble import Pebble, pebble
from tests.support.process import binary
from tests.support.stack import Stack

TARGET = "scan-debian"


@dataclass
class Laboratory:
    """The server, and the CA that its certificates shall come from."""

    server: DebianServer
    ca: Pebble
    roots: Path


@pytest.fixture(scope="module")
def laboratory(
    tmp_path_factory: pytest.TempPathFactory, installation: Stack
) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("scan")
    with ExitStack() as stack:
        for part in ("dns", "ca"):
            (folder / part).mkdir()
        dns = stack.enter_context(powerdns(folder / "dns"))
        ca = stack.enter_context(pebble(folder / "ca", dns=f"{dns.address}:{dns.port}"))
        server = stack.enter_context(debian_server())
        roots = ca.write_roots(folder / "roots.pem")
        file = folder / "certrail.yaml"
        connectors = [
            {
                "name": "scan-ca",
                "type": "ca-acme",
                "directory_url": ca.directory_url,
                "ca_bundle": str(ca.ca_bundle),
                "contact": "ops@example.test",
            },
            {
                "name": "scan-dns",
                "type": "dns-powerdns",
                "url": dns.url,
                "api_key": dns.api_key,
                "nameservers": [f"{dns.address}:{dns.port}"],
                "poll_interval": 0.1,
                "propagation_timeout": 5,
            },
            {
                "name": TARGET,
                "type": "host-ssh",
                "host": "127.0.0.1",
                "port": server.ssh.port,
                "username": "root",
                "private_key_file": str(server.ssh.key_file),
                "known_hosts_file": str(server.ssh.known_hosts),
            },
        ]
        profile = {
            "name": "scan-web",
            "workflow": "web-server",
            "ca": "scan-ca",
            "validation": {"method": "dns-01", "dns": "scan-dns", "timeout_seconds": 30},
            "trust": str(roots),
            "install_timeout_seconds": 20,
        }
        file.write_text(yaml.safe_dump({"connectors": connectors, "profiles": [profile]}))
        file.chmod(0o600)
        done = installation.cli("apply", "-f", str(file))
        assert done.returncode == 0, done.stderr
        yield Laboratory(server, ca, roots)


def offered(installation: Stack) -> dict[str, Any]:
    """Return the file that a scan prints."""
    done = installation.cli(
        "endpoint", "scan", "--target", TARGET, "--profile", "scan-web", "--yaml"
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def seen_by_openssl(laboratory: Laboratory, kind: str) -> str:
    """Return what openssl's client says of the service, certificate verified for its name."""
    name, port = NAMES[kind], laboratory.server.ports[kind]
    argv = [binary("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}"]
    argv += ["-servername", name, "-verify_hostname", name, "-verify_return_error"]
    argv += ["-CAfile", str(laboratory.roots)]
    argv += ["-starttls", "smtp"] if kind == "postfix" else []
    done = subprocess.run(argv, input=b"", capture_output=True, check=False, timeout=60)
    return done.stdout.decode(errors="replace")


@pytest.mark.timeout(900)
def test_a_server_is_scanned_and_renewed_with_nothing_else_touched(
    installation: Stack, laboratory: Laboratory, tmp_path: Path
) -> None:
    """Four programs, four ways of writing a configuration, and one way for the user."""
    server = laboratory.server
    before, around = server.files(), server.attributes()

    file = offered(installation)
    found = {endpoint["server"]["kind"]: endpoint for endpoint in file["endpoints"]}

    assert set(found) == set(NAMES)
    for kind, name in NAMES.items():
        assert found[kind]["location"] == f"{name}:{server.ports[kind]}"
        assert found[kind]["address"] == [f"127.0.0.1:{server.ports[kind]}"]
    assert found["postfix"]["starttls"] == "smtp"
    assert (server.files(), server.attributes()) == (before, around)

    path = tmp_path / "found.yaml"
    path.write_text(yaml.safe_dump(file))
    done = installation.cli("apply", "-f", str(path))
    assert done.returncode == 0, done.stderr
    assert offered(installation) == {"endpoints": []}

    def preview(location: str) -> dict[str, Any]:
        """A dry run: what would change, and nothing changes."""
        done = installation.cli("request", "start", location, "--dry-run", "--json", within=300)
        assert done.returncode == 0, done.stdout + done.stderr
        shown: dict[str, Any] = json.loads(done.stdout)
        return shown

    def renew(location: str) -> None:
        done = installation.cli("request", "start", location, "--wait", "--json", within=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["status"] == "automation-successful"

    assert not [kind for kind in NAMES if "Verification: OK" in seen_by_openssl(laboratory, kind)]
    locations = {kind: endpoint["location"] for kind, endpoint in found.items()}
    with ThreadPoolExecutor() as pool:
        previews = dict(zip(locations, pool.map(preview, locations.values()), strict=True))
        assert (server.files(), server.attributes()) == (before, around)
        list(pool.map(renew, locations.values()))

    for kind in NAMES:
        said = seen_by_openssl(laboratory, kind)
        assert "Verification: OK" in said, said
        assert "Pebble" in said
    assert server.attributes() == around
    changed = changes(before, server.files())
    assert set(changed) == {
        "etc/nginx/snippets/own.conf",
        "etc/apache2/sites-available/web.conf",
        "etc/haproxy/haproxy.cfg",
        "etc/postfix/main.cf",
    }
    shown = [preview["diff"].splitlines() for preview in previews.values()]
    for pairs in changed.values():
        lines = [(old.decode().rstrip("\n"), new.decode().rstrip("\n")) for old, new in pairs]
        expected = {line for old, new in lines for line in (f"-{old}", f"+{new}")}
        assert any(expected <= set(lines) for lines in shown)
    # Of a line that changed, every byte but the path.
    for old, new in (pair for pairs in changed.values() for pair in pairs):
        assert re.sub(rb"/etc/\w+/old\.(pem|key)", b"", old) == re.sub(
            rb"/etc/(\w+/)?certrail/[\w.@/-]+/live/\w+\.pem", b"", new
        )


def changes(
    before: dict[str, bytes], after: dict[str, bytes]
) -> dict[str, list[tuple[bytes, bytes]]]:
    """Return the lines that are not as they were, old and new, with their ends."""
    assert before.keys() == after.keys()
    result = {}
    for name in before:
        old, new = (text.split(b"\n") for text in (before[name], after[name]))
        assert len(old) == len(new), name
        if pairs := [(a, b) for a, b in zip(old, new, strict=True) if a != b]:
            result[name] = pairs
    return result
