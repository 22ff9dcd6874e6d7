"""Both workflows from the command line with every certificate authority.

An appliance (a real Caddy) and a folder get certificates from each of them. Those that want a
proof for a domain find it in a real PowerDNS, where our DNS connector puts it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from blocks._base import CaBlock
from certrail.model import fingerprint
from certrail.remote.ssh_pool import POOL
from tests.contract.ca_cases import CASES, ZONE
from tests.support.caddy import Caddy
from tests.support.certcentral_api import certcentral_api
from tests.support.device import SITE
from tests.support.dns_servers import PowerDns, powerdns
from tests.support.forked_cli import ForkedCli, forked_cli
from tests.support.pebble import pebble
from tests.support.stack import Stack

PEM = Encoding.PEM
SHOP = f"shop.{ZONE}"


@dataclass(frozen=True)
class Authority:
    """A running CA.

    Attributes:
        settings: of its connector, beside name and type.
        root: what its certificates chain to, in PEM.
        proofs: whether it wants to see that a domain is ours.
        client: who checks what is served, of the profile.
    """

    settings: Mapping[str, Any]
    root: str
    proofs: bool = False
    client: str = "rfc5280"


Starts = Callable[[Path, PowerDns], AbstractContextManager[Authority]]


def under_contract(slug: str, client: str = "rfc5280") -> Starts:
    """Return how the CA of the contract suite is started."""
    (case,) = [one for one in CASES if one.name == slug]

    @contextmanager
    def started(folder: Path, _: PowerDns) -> Iterator[Authority]:
        with case.world(folder) as world:
            assert isinstance(world.block, CaBlock)
            given = {name: getattr(world.block, name) for name in world.block.model_fields_set}
            settings = {
                name: value.get_secret_value() if isinstance(value, SecretStr) else value
                for name, value in given.items()
            }
            yield Authority(settings, world.root.public_bytes(PEM).decode(), client=client)

    return started


@contextmanager
def acme(folder: Path, dns: PowerDns) -> Iterator[Authority]:
    """Any ACME CA: Pebble."""
    with pebble(folder, dns=dns.endpoint, authz_reuse=0) as ca:
        settings = {"directory_url": ca.directory_url, "ca_bundle": str(ca.ca_bundle)}
        yield Authority(settings, "".join(ca.roots()), proofs=True)


@contextmanager
def certcentral(_: Path, dns: PowerDns) -> Iterator[Authority]:
    """CertCentral looks for its token in DNS."""
    with certcentral_api(lambda name: set(dns.values(name))) as api:
        settings = {
            "url": api.base,
            "api_key": api.key,
            "organization_id": api.organization,
            "poll_interval": 0.05,
        }
        yield Authority(settings, api.ca.root.public_bytes(PEM).decode(), proofs=True)


AUTHORITIES: Mapping[str, Starts] = {
    "ca-acme": acme,
    # The server in place of AWS, and the program, leave extensions out that RFC 5280 asks for.
    "ca-aws-pca": under_contract("ca-aws-pca", client="openssl"),
    "ca-certcentral": certcentral,
    "ca-command": under_contract("ca-command", client="openssl"),
    "ca-digicert-one": under_contract("ca-digicert-one"),
    "ca-vault": under_contract("ca-vault"),
}


@pytest.fixture(scope="module")
def certrail(installation: Stack) -> Iterator[ForkedCli]:
    """The command line of the installation."""
    with forked_cli(installation.env) as cli:
        yield cli
    POOL.close()


@pytest.fixture(scope="module")
def caddy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caddy]:
    """The appliance; the certificate of one CA follows that of another."""
    with Caddy.started(tmp_path_factory.mktemp("every-ca-caddy")) as running:
        yield running


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDns]:
    """Where proofs are put."""
    with powerdns(tmp_path_factory.mktemp("every-ca-dns"), [ZONE]) as running:
        yield running


@pytest.mark.parametrize("slug", AUTHORITIES)
def test_both_workflows_with_every_authority(
    slug: str, certrail: ForkedCli, caddy: Caddy, dns: PowerDns, tmp_path: Path
) -> None:
    """Connector, profiles and endpoints from a file, a request for each, and both are served."""
    for part in ("ca", "delivered"):
        (tmp_path / part).mkdir()
    with AUTHORITIES[slug](tmp_path / "ca", dns) as authority:
        file = tmp_path / "every.yaml"
        file.write_text(yaml.safe_dump(_file(slug, authority, caddy, dns, tmp_path)))
        for arguments in (("apply", "-f", str(file)), ("connector", "check", f"all-{slug}")):
            done = certrail(*arguments)
            assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        shown = [
            _requested(certrail, f"all-{slug}/{workflow}") for workflow in ("appliance", "delivery")
        ]

    for request in shown:
        steps = {step["title"]: step for step in request["steps"]}
        assert {step["status"] for step in steps.values()} == {"completed"}
        assert ("dns-01 through" in steps["Issuing certificate"]["detail"]) is authority.proofs
    assert [request["status"] for request in shown] == [
        "automation-successful",
        "certificate-delivered",
    ]
    delivered = (tmp_path / "delivered" / "fullchain.pem").read_bytes()
    leaf = x509.load_pem_x509_certificate(delivered)
    assert [request["certificate"]["fingerprint"] for request in shown] == [
        caddy.served(),
        fingerprint(leaf),
    ]
    # The proofs are taken away again.
    assert not any(dns.values(f"{below}{name}") for name in (SITE, SHOP) for below in _PLACES)


_PLACES = ("", "_acme-challenge.", "_dnsauth.")


def _requested(certrail: ForkedCli, location: str) -> dict[str, Any]:
    done = certrail("request", "start", location, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(certrail("request", "show", location, "--json").stdout)
    return found


def _file(
    slug: str, authority: Authority, caddy: Caddy, dns: PowerDns, folder: Path
) -> dict[str, Any]:
    """Return connectors, profiles and endpoints as a person would write them."""
    name, root = f"all-{slug}", folder / "root.pem"
    root.write_text(authority.root)
    common: dict[str, Any] = {"ca": name}
    if authority.proofs:
        common["validation"] = {"method": "dns-01", "dns": f"{name}-dns"}
    seen = {"nameservers": [dns.endpoint], "resolvers": [dns.endpoint], "poll_interval": 0.05}
    address = f"127.0.0.1:{caddy.port}"
    return {
        "connectors": [
            {"name": name, "type": slug, **authority.settings},
            {
                "name": f"{name}-dns",
                "type": "dns-powerdns",
                "url": dns.url,
                "api_key": dns.api_key,
                **seen,
            },
            {"name": f"{name}-caddy", "type": "target-caddy", "url": caddy.url},
            {"name": f"{name}-here", "type": "host-local"},
        ],
        "profiles": [
            {
                "name": f"{name}-a",
                "workflow": "appliance",
                "trust": str(root),
                "client": authority.client,
                **common,
            },
            {"name": f"{name}-d", "workflow": "delivery", **common},
        ],
        "endpoints": [
            {
                "location": f"{name}/appliance",
                "names": [SITE],
                "profile": f"{name}-a",
                "target": f"{name}-caddy",
                "address": address,
                "sni": SITE,
                "server": {"site": SITE},
            },
            {
                "location": f"{name}/delivery",
                "names": [SHOP],
                "profile": f"{name}-d",
                "target": f"{name}-here",
                "server": {"kind": "directory", "path": str(folder / "delivered")},
            },
        ],
    }


def test_every_authority_is_tried() -> None:
    """One that is left out here was never used by a whole request."""
    # The CA on disk is that of every target and delivery: test_every_connector.py.
    elsewhere = {"ca-local"}
    slugs = {block.get_block_type_slug() for block in CaBlock.vendors()}
    assert slugs == set(AUTHORITIES) | elsewhere
