"""A whole request from the command line for every connector that takes a certificate.

The contract suites try each promise by itself; here a person writes connector, profile and
endpoint into a file, applies it, and starts a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

import blocks
from blocks._base import DeliveryBlock, TargetBlock
from blocks.ca.local import LocalAuthority
from certrail.model import Fingerprint, Site
from certrail.remote.ssh_pool import POOL
from tests.contract.delivery_cases import CASES, Case
from tests.support import (
    a10_api,
    bigip_api,
    iis_api,
    key_vault_api,
    kubernetes_api,
    netscaler_api,
    winrm_service,
)
from tests.support.a10_api import A10
from tests.support.aws_edge import AwsBalancer, AwsDistribution, AwsEdge, AwsSniBalancer
from tests.support.bigip_api import BigIp
from tests.support.caddy import Caddy
from tests.support.device import SITE, Device
from tests.support.forked_cli import ForkedCli, forked_cli
from tests.support.haproxy_runtime import HaproxyRuntime, debian
from tests.support.iis_api import IisServer
from tests.support.key_vault_api import VaultGateway
from tests.support.kubernetes_api import KubernetesIngress
from tests.support.moto_server import REGION
from tests.support.netscaler_api import NetScaler
from tests.support.redis_server import PASSWORD, RedisProcess
from tests.support.stack import Stack

HOST = "every-here"
APPLIANCE_STEPS = [
    "CSR generation",
    "Issuing certificate",
    "Certificate installation",
    "Testing installation",
]


@dataclass(frozen=True)
class Place:
    """Where a certificate is to go, as a person would write it down.

    Attributes:
        settings: of the connector, beside its name and type.
        site: the endpoint's site.
        address: where clients connect, "" for nowhere.
        served: what a client gets, or a consumer reads.
        profile: what its profile has beside the usual.
        trusts: lets it trust the root in that file, where it looks at that.
    """

    settings: Mapping[str, Any]
    site: str
    address: str
    served: Callable[[], Fingerprint]
    server: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    trusts: Callable[[Path], None] = lambda _: None


@dataclass(frozen=True)
class Way:
    """A connector's type and how its other side is started."""

    name: str
    slug: str
    world: Callable[[Path], AbstractContextManager[Place]]

    def __str__(self) -> str:
        return self.name


def at(device: Device, settings: Mapping[str, Any], site: str) -> Place:
    """Return the place on an imitation."""
    return Place(settings, site, f"127.0.0.1:{device.port}", device.served)


def _account(device: Device, user: str, password: str) -> dict[str, Any]:
    return {
        "url": device.url,
        "username": user,
        "password": password,
        "ca_bundle": device.roots,
    }


@contextmanager
def _bigip(_: Path) -> Iterator[Place]:
    with BigIp().running() as device:
        account = _account(device, bigip_api.USER, bigip_api.PASSWORD)
        yield at(device, account, bigip_api.PROFILE)


@contextmanager
def _bigip_key(_: Path) -> Iterator[Place]:
    with BigIp().running() as device:
        account = _account(device, bigip_api.USER, bigip_api.PASSWORD)
        yield at(device, {**account, "key_on_device": True}, bigip_api.PROFILE)


@contextmanager
def _netscaler(_: Path) -> Iterator[Place]:
    with NetScaler().running() as device:
        account = _account(device, netscaler_api.USER, netscaler_api.PASSWORD)
        yield at(device, account, netscaler_api.PAIR)


@contextmanager
def _netscaler_key(_: Path) -> Iterator[Place]:
    with NetScaler().running() as device:
        account = _account(device, netscaler_api.USER, netscaler_api.PASSWORD)
        subject = {"country": "DE", "state": "Berlin", "organization": "Example"}
        settings = {**account, "key_on_device": True, **subject}
        place = at(device, settings, netscaler_api.PAIR)
        yield replace(place, profile={"key": {"algorithm": "rsa-2048"}})


@contextmanager
def _a10(_: Path) -> Iterator[Place]:
    with A10().running() as device:
        yield at(device, _account(device, a10_api.USER, a10_api.PASSWORD), a10_api.TEMPLATE)


@contextmanager
def _iis(_: Path) -> Iterator[Place]:
    with IisServer().running() as device:
        account = _account(device, winrm_service.USER, winrm_service.PASSWORD)
        yield at(device, {**account, "auth": "basic"}, iis_api.BINDING)


@contextmanager
def _iis_key(_: Path) -> Iterator[Place]:
    with IisServer().running() as device:
        account = _account(device, winrm_service.USER, winrm_service.PASSWORD)
        settings = {**account, "auth": "basic", "store": "My", "key_on_device": True}
        place = at(device, settings, iis_api.BINDING)
        yield replace(place, trusts=lambda file: device.trust(file.read_bytes()))


@contextmanager
def _haproxy(folder: Path) -> Iterator[Place]:
    with HaproxyRuntime.running(folder, debian()) as haproxy:
        settings = {"socket": haproxy.socket, "host": f"host-local/{HOST}"}
        address = f"127.0.0.1:{haproxy.port}"
        yield Place(settings, str(haproxy.file), address, lambda: haproxy.served(SITE))


@contextmanager
def _caddy(folder: Path) -> Iterator[Place]:
    with Caddy.started(folder) as caddy:
        yield Place({"url": caddy.url}, SITE, f"127.0.0.1:{caddy.port}", caddy.served)


@contextmanager
def _redis(folder: Path) -> Iterator[Place]:
    with RedisProcess.started(folder) as server:
        settings = {
            "address": "127.0.0.1",
            "port": server.plain,
            "tls": False,
            "password": PASSWORD,
            "host": f"host-local/{HOST}",
            "directory": str(folder / "certrail"),
        }
        yield Place(settings, "server", f"127.0.0.1:{server.port}", server.served)


def _amazon(device: AwsEdge, folder: Path) -> dict[str, Any]:
    roots = folder / "aws-roots.pem"
    roots.write_text(device.roots)
    return {
        "access_key_id": device.access_key_id,
        "secret_access_key": device.secret_access_key,
        "endpoint_url": device.url,
        "ca_bundle": str(roots),
    }


@contextmanager
def _elb(folder: Path) -> Iterator[Place]:
    with AwsBalancer().running() as device:
        settings = {**_amazon(device, folder), "region": REGION}
        yield at(device, settings, f"{device.balancer}:443")


@contextmanager
def _elb_sni(folder: Path) -> Iterator[Place]:
    with AwsSniBalancer().running() as device:
        settings = {**_amazon(device, folder), "region": REGION}
        yield at(device, settings, f"{device.balancer}:443/{SITE}")


@contextmanager
def _cloudfront(folder: Path) -> Iterator[Place]:
    with AwsDistribution().running() as device:
        yield at(device, _amazon(device, folder), device.distribution)


def _vault(device: VaultGateway, **more: Any) -> dict[str, Any]:
    return {
        "vault_url": device.url,
        "authority_url": device.url,
        "tenant_id": "tenant",
        "client_id": "client",
        "client_secret": device.vault.client_secret,
        "ca_bundle": device.roots,
        **more,
    }


@contextmanager
def _key_vault(_: Path) -> Iterator[Place]:
    with VaultGateway().running() as device:
        yield at(device, _vault(device), key_vault_api.NAME)


@contextmanager
def _key_in_vault(_: Path) -> Iterator[Place]:
    # No address: nothing to connect to, so the vault is asked.
    with VaultGateway().running() as device:
        settings = _vault(device, key_in_vault=True, exportable=False)
        yield Place(settings, key_vault_api.NAME, "", device.served)


@contextmanager
def _kubernetes(_: Path) -> Iterator[Place]:
    with KubernetesIngress().running() as device:
        settings = {
            "url": device.url,
            "namespace": kubernetes_api.NAMESPACE,
            "token": device.cluster.token,
            "ca_bundle": device.roots,
        }
        yield at(device, settings, kubernetes_api.NAME)


INSTALLS = (
    Way("a10", "target-a10", _a10),
    Way("aws-cloudfront", "target-aws-cloudfront", _cloudfront),
    Way("aws-elb", "target-aws-elb", _elb),
    Way("aws-elb-sni", "target-aws-elb", _elb_sni),
    Way("azure-keyvault", "target-azure-keyvault", _key_vault),
    Way("azure-key-in-vault", "target-azure-keyvault", _key_in_vault),
    Way("bigip", "target-bigip", _bigip),
    Way("bigip-own-key", "target-bigip", _bigip_key),
    Way("caddy", "target-caddy", _caddy),
    Way("haproxy", "target-haproxy", _haproxy),
    Way("iis", "target-iis", _iis),
    Way("iis-own-key", "target-iis", _iis_key),
    Way("kubernetes", "target-kubernetes", _kubernetes),
    Way("netscaler", "target-netscaler", _netscaler),
    Way("netscaler-own-key", "target-netscaler", _netscaler_key),
    Way("redis", "target-redis", _redis),
)


def delivery_of(case: Case) -> Way:
    """Return the way of a delivery under contract."""
    assert case.block

    @contextmanager
    def started(folder: Path) -> Iterator[Place]:
        with case.world(folder) as world:
            site = Site(id="every-shop", names=(SITE,))
            settings = {
                name: value.get_secret_value() if isinstance(value, SecretStr) else value
                for name, value in world.fields.items()
                if value is not None
            }
            yield Place(
                settings,
                site.id,
                "",
                lambda: world.read(site).chain.fingerprint,
                world.settings(site.id),
            )

    return Way(case.name, case.block.get_block_type_slug(), started)


DELIVERIES = tuple(delivery_of(case) for case in CASES if case.block)


@pytest.fixture(scope="module")
def certrail(installation: Stack) -> Iterator[ForkedCli]:
    """The command line of the installation."""
    with forked_cli(installation.env) as cli:
        yield cli
    POOL.close()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA on disk; its root is what clients trust."""
    folder = tmp_path_factory.mktemp("every-ca")
    with LocalAuthority(ca_dir=str(folder)).connect() as opened:
        opened.crl()
    return folder


def requested(
    certrail: ForkedCli,
    ca: Path,
    folder: Path,
    way: Way,
    place: Place,
    *,
    code: int = 0,
    suffix: str = "",
    **changes: Any,
) -> dict[str, Any]:
    """Write the file, apply it, run a request to its end; return what it says of itself.

    *changes* are those of the profile; the request is to end with *code*.
    """
    workflow = "delivery" if way.slug.startswith("delivery-") else "appliance"
    name = f"every-{workflow}-{way.name}{suffix}"
    location = f"{name}/{SITE}"
    profile: dict[str, Any] = {"name": name, "workflow": workflow, "ca": "every-ca"}
    if workflow == "appliance":
        profile["trust"] = str(ca / "authority" / "root.pem")
        profile["install_timeout_seconds"] = 30
    profile |= changes
    endpoint: dict[str, Any] = {
        "location": location,
        "names": [SITE],
        "profile": name,
        "target": name,
        "server": {"site": place.site, **place.server},
    }
    if place.address:
        endpoint |= {"address": place.address, "sni": SITE}
    whole = {
        "connectors": [
            {"name": "every-ca", "type": "ca-local", "ca_dir": str(ca)},
            {"name": HOST, "type": "host-local"},
            {"name": name, "type": way.slug, **place.settings},
        ],
        "profiles": [profile],
        "endpoints": [endpoint],
    }
    file = folder / "every.yaml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    for arguments in (
        ("apply", "-f", str(file)),
        ("connector", "check", name),
        ("request", "start", location, "--wait"),
    ):
        done = certrail(*arguments)
        wanted = code if arguments[1] == "start" else 0
        assert done.returncode == wanted, f"{arguments}: {done.stdout}{done.stderr}"
        secrets = [
            value for key, value in place.settings.items() if "secret" in key or "password" in key
        ]
        assert not [one for one in secrets if str(one) in done.stdout + done.stderr]
    found: dict[str, Any] = json.loads(certrail("request", "show", location, "--json").stdout)
    return found


@pytest.mark.parametrize("way", INSTALLS, ids=str)
def test_a_certificate_is_installed(
    way: Way, certrail: ForkedCli, ca: Path, tmp_path: Path
) -> None:
    """The four documented steps, and a client sees what was ordered."""
    (tmp_path / "world").mkdir()
    with way.world(tmp_path / "world") as place:
        place.trusts(ca / "authority" / "root.pem")
        done = requested(certrail, ca, tmp_path, way, place, **place.profile)

        assert done["status"] == "automation-successful"
        assert [step["title"] for step in done["steps"]] == APPLIANCE_STEPS
        assert {step["status"] for step in done["steps"]} == {"completed"}
        assert done["certificate"]["fingerprint"] == place.served()
        if not place.address:
            assert "read back" in done["steps"][-1]["detail"]


@pytest.mark.parametrize("way", DELIVERIES, ids=str)
def test_a_certificate_is_delivered(
    way: Way, certrail: ForkedCli, ca: Path, tmp_path: Path
) -> None:
    """The three documented steps, and a consumer reads what was ordered."""
    (tmp_path / "world").mkdir()
    with way.world(tmp_path / "world") as place:
        done = requested(certrail, ca, tmp_path, way, place)

        assert done["status"] == "certificate-delivered"
        assert {step["status"] for step in done["steps"]} == {"completed"}
        assert done["certificate"]["fingerprint"] == place.served()


def _way(name: str) -> Way:
    return next(way for way in INSTALLS if way.name == name)


def test_a_key_that_a_target_does_not_take_is_not_ordered(
    certrail: ForkedCli, ca: Path, tmp_path: Path
) -> None:
    """CloudFront takes no P-384: said in the first step, before anything costs money."""
    (tmp_path / "world").mkdir()
    way = _way("aws-cloudfront")
    key = {"algorithm": "ecdsa-p384"}
    with way.world(tmp_path / "world") as place:
        done = requested(certrail, ca, tmp_path, way, place, code=1, suffix="-p384", key=key)

    first, second = done["steps"][:2]
    assert first["status"] == "failed"
    assert "takes no ecdsa-p384" in first["cause"]
    assert "key.algorithm" in first["remedy"]
    assert second["status"] == "pending"
    assert done["certificate"] is None


@pytest.mark.parametrize(
    ("way", "site", "told"),
    [
        ("kubernetes", "x" * 240, "too long"),
        ("azure-keyvault", "x" * 120, "too long"),
        ("a10", "x" * 64, "not a client-SSL template"),
        ("a10", "nothing_like_that", "not exist"),
        ("aws-elb", "nothing:443", "nothing"),
    ],
)
def test_a_place_that_a_target_cannot_have_is_not_ordered_for(
    certrail: ForkedCli, ca: Path, tmp_path: Path, way: str, site: str, told: str
) -> None:
    """A name too long for the device, or of nothing: said in the first step."""
    (tmp_path / "world").mkdir()
    with _way(way).world(tmp_path / "world") as place:
        wrong = replace(place, site=site)
        # A name for each: the worker keeps a connector's settings for some seconds.
        suffix = f"-{len(site)}"
        done = requested(certrail, ca, tmp_path, _way(way), wrong, code=1, suffix=suffix)

    first = done["steps"][0]
    assert first["status"] == "failed"
    assert told in first["cause"]
    assert first["remedy"]
    assert done["certificate"] is None


def test_a_container_without_a_password_is_not_ordered_for(
    certrail: ForkedCli, ca: Path, tmp_path: Path
) -> None:
    """Nobody could open it: said in the first step."""
    server = {"kind": "directory", "path": str(tmp_path / "store"), "format": "pkcs12"}
    whole = {
        "connectors": [
            {"name": "every-ca", "type": "ca-local", "ca_dir": str(ca)},
            {"name": HOST, "type": "host-local"},
        ],
        "profiles": [{"name": "every-container", "workflow": "delivery", "ca": "every-ca"}],
        "endpoints": [
            {
                "location": "every-container/shop",
                "names": [SITE],
                "profile": "every-container",
                "target": HOST,
                "server": server,
            }
        ],
    }
    file = tmp_path / "container.yaml"
    file.write_text(yaml.safe_dump(whole))
    assert certrail("apply", "-f", str(file)).returncode == 0

    done = certrail("request", "start", "every-container/shop", "--wait")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "pkcs12 needs `password`" in done.stdout
    shown = json.loads(certrail("request", "show", "every-container/shop", "--json").stdout)
    assert shown["steps"][0]["status"] == "failed"
    assert shown["certificate"] is None
    assert not (tmp_path / "store").exists()


def test_every_connector_is_tried() -> None:
    """A connector that is left out here was never used by a whole request."""
    assert blocks.__all__
    for kind, ways in ((TargetBlock, INSTALLS), (DeliveryBlock, DELIVERIES)):
        slugs = {block.get_block_type_slug() for block in kind.vendors()}
        assert slugs == {way.slug for way in ways}
