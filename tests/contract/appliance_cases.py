"""Install targets reached by an API, under the contract of ``test_install_target.py``.

``kind`` of a case is the block's slug. Where real software exists it is run;
the others answer from a fake of the vendor's documented API which also serves
the virtual server over TLS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import redis
from pydantic import SecretStr

from blocks._keyvault import KeyVaultAccess, Vault
from blocks._kubernetes import Cluster, KubernetesAccess
from blocks.targets import redis_server
from blocks.targets.a10 import A10Target, AxapiSession
from blocks.targets.aws import CloudFrontTarget, ElbTarget
from blocks.targets.azure_keyvault import KeyInVaultTarget, KeyVaultTarget
from blocks.targets.bigip import BigIpTarget, KeyOnBigIpTarget, Session
from blocks.targets.caddy import CaddyTarget
from blocks.targets.haproxy import HaproxyRuntimeTarget, RuntimeApi
from blocks.targets.iis import IisTarget, KeyOnIisTarget, Remoting, remoting
from blocks.targets.kubernetes import KubernetesTlsTarget
from blocks.targets.netscaler import KeyOnNetScalerTarget, NetScalerTarget, nitro_client
from certrail.connectors import HoldsKey, InstallTarget
from certrail.model import Bundle, Fingerprint, KeyAlgorithm, Site, Staged, SubjectSpec
from certrail.remote import aws, http
from certrail.remote.local import LocalHost
from tests.contract.install_cases import GAPS, SITE, Case, World, files_below, staged_chain
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
from tests.support.aws_edge import (
    CLOUDFRONT_REGION,
    AwsBalancer,
    AwsDistribution,
    AwsEdge,
    AwsSniBalancer,
)
from tests.support.bigip_api import BigIp
from tests.support.caddy import Caddy
from tests.support.device import Device
from tests.support.haproxy_runtime import HaproxyRuntime, debian, wheel
from tests.support.iis_api import IisServer
from tests.support.key_vault_api import VaultGateway
from tests.support.kubernetes_api import KubernetesIngress
from tests.support.moto_server import REGION
from tests.support.netscaler_api import NetScaler
from tests.support.redis_server import NAMES, PASSWORD, RedisProcess

_QUICK = timedelta(seconds=10)


class HaproxyRuntimeWorld(World):
    """A real HAProxy that is changed through its stats socket."""

    def __init__(self, haproxy: HaproxyRuntime) -> None:
        self._haproxy = haproxy
        self.port = haproxy.port
        self.ca = haproxy.ca
        self.site = Site(str(haproxy.file))
        self.old = haproxy.old.chain.fingerprint

    def open(self) -> InstallTarget:
        return HaproxyRuntimeTarget(
            RuntimeApi(self._haproxy.socket, "lb", _QUICK), LocalHost("here")
        )

    def served(self) -> Fingerprint:
        return self._haproxy.served(SITE)

    def snapshot(self) -> dict[str, bytes]:
        memory = self._haproxy.command("show ssl cert")
        shown = self._haproxy.command(f"show ssl cert {self._haproxy.file}")
        return {**files_below(self._haproxy.directory), "memory": (memory + shown).encode()}

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        (pem,) = self._haproxy.directory.glob(f".*.{staged.fingerprint[:16]}.new")
        good = pem.read_bytes()
        other = self.ca.bundle(SITE).key
        assert other is not None
        pem.write_bytes(staged_chain(good) + other.reveal())
        yield
        pem.write_bytes(good)

    def key_modes(self) -> list[int]:
        found = [self._haproxy.file, *self._haproxy.directory.glob(".*.new")]
        return [path.stat().st_mode & 0o7777 for path in found]

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        return self._haproxy.download(SITE)


class CaddyWorld(World):
    """A real Caddy that is changed through its admin API."""

    def __init__(self, caddy: Caddy, client: httpx.Client) -> None:
        self._caddy = caddy
        self.port = caddy.port
        self._client = client
        self.ca = caddy.ca
        self.site = Site(SITE)
        self.old = caddy.old.chain.fingerprint

    def open(self) -> InstallTarget:
        return CaddyTarget(self._client, "caddy")

    def served(self) -> Fingerprint:
        return self._caddy.served()

    def snapshot(self) -> dict[str, bytes]:
        return {"config": json.dumps(self._caddy.config(), sort_keys=True).encode()}

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        place = f"apps/http/servers/certrail_staged/named_routes/{staged.fingerprint[:16]}"
        key = f"{place}/handle/0/new/key"
        good = self._caddy.config(key)
        other = self.ca.bundle(SITE).key
        assert other is not None
        assert self._caddy.change("PATCH", key, other.reveal().decode()) == 200
        yield
        assert self._caddy.change("PATCH", key, good) == 200


class DeviceWorld(World):
    """A fake appliance; its subclasses say what its target is."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.port = device.port
        self.ca = device.ca
        self.old = device.old.chain.fingerprint

    def served(self) -> Fingerprint:
        return self.device.served()


class BigIpWorld(DeviceWorld):
    """A BIG-IP as iControl REST shows it."""

    def __init__(self, device: BigIp, client: httpx.Client) -> None:
        super().__init__(device)
        self._bigip = device
        self._client = client
        self.site = Site(bigip_api.PROFILE)

    def open(self) -> InstallTarget:
        session = Session(self._client, "lb", bigip_api.USER, bigip_api.PASSWORD)
        return BigIpTarget(session, sync_group="pair")

    def snapshot(self) -> dict[str, bytes]:
        return self._bigip.snapshot()

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        keys = self._bigip.state.keys
        name = str(staged.data["key"])
        good, other = keys[name], self.ca.bundle(SITE).key
        assert other is not None
        keys[name] = other.reveal()
        yield
        self._bigip.state.keys[name] = good


class KeyOnBigIpWorld(BigIpWorld):
    """The same, with keys that the device makes."""

    def open(self) -> InstallTarget:
        session = Session(self._client, "lb", bigip_api.USER, bigip_api.PASSWORD)
        return KeyOnBigIpTarget(session, sync_group="pair")

    def snapshot(self) -> dict[str, bytes]:
        # A key waits for its certificate, whatever becomes of that.
        used = {entry["key"] for entry in self._bigip.state.profiles[bigip_api.PROFILE]}
        shown = {}
        for name, content in super().snapshot().items():
            state = json.loads(content)
            state["keys"] = {key: text for key, text in state["keys"].items() if key in used}
            del state["requests"]
            shown[name] = json.dumps(state, sort_keys=True).encode()
        return shown

    def bundle(self) -> Bundle:
        target = self.open()
        assert isinstance(target, HoldsKey)
        csr = target.generate_csr(self.site, SubjectSpec((SITE,), KeyAlgorithm.ECDSA_P256))
        return Bundle(self.ca.signed(csr, SITE), None)


@contextmanager
def _bigip(directory: Path, world: type[BigIpWorld] = BigIpWorld) -> Iterator[World]:
    with (
        BigIp().running() as device,
        http.client(device.url, ca_bundle=device.roots) as client,
    ):
        yield world(device, client)


class NetScalerWorld(DeviceWorld):
    """A NetScaler as NITRO shows it."""

    def __init__(self, device: NetScaler, client: httpx.Client) -> None:
        super().__init__(device)
        self._netscaler = device
        self._client = client
        self.site = Site(netscaler_api.PAIR)

    def open(self) -> InstallTarget:
        return NetScalerTarget(self._client, "adc")

    def snapshot(self) -> dict[str, bytes]:
        return self._netscaler.snapshot()

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        files = self._netscaler.files
        name = str(staged.data["key"])
        good, other = files[name], self.ca.bundle(SITE).key
        assert other is not None
        files[name] = other.reveal()
        yield
        files[name] = good


class KeyOnNetScalerWorld(NetScalerWorld):
    """The same, with keys that the appliance makes."""

    def open(self) -> InstallTarget:
        return KeyOnNetScalerTarget(self._client, "adc", NETSCALER_SUBJECT)

    def snapshot(self) -> dict[str, bytes]:
        # A key waits for its certificate, whatever becomes of that.
        used = {
            value.rpartition("/")[2]
            for pair in self._netscaler.certkeys.values()
            for value in pair.values()
        }
        return {
            name: content
            for name, content in super().snapshot().items()
            if not name.endswith((".key", ".csr")) or name in used
        }

    def bundle(self) -> Bundle:
        target = self.open()
        assert isinstance(target, HoldsKey)
        csr = target.generate_csr(self.site, SubjectSpec((SITE,), KeyAlgorithm.RSA_2048))
        return Bundle(self.ca.signed(csr, SITE), None)


NETSCALER_SUBJECT = {"countryname": "DE", "statename": "Berlin", "organizationname": "Example"}


@contextmanager
def _netscaler(directory: Path, world: type[NetScalerWorld] = NetScalerWorld) -> Iterator[World]:
    with (
        NetScaler().running() as device,
        nitro_client(
            device.url, netscaler_api.USER, netscaler_api.PASSWORD, ca_bundle=device.roots
        ) as client,
    ):
        yield world(device, client)


class A10World(DeviceWorld):
    """An A10 as aXAPI shows it."""

    def __init__(self, device: A10, client: httpx.Client) -> None:
        super().__init__(device)
        self._a10 = device
        self._client = client
        self.site = Site(a10_api.TEMPLATE)

    def open(self) -> InstallTarget:
        return A10Target(AxapiSession(self._client, "adc", a10_api.USER, a10_api.PASSWORD))

    def snapshot(self) -> dict[str, bytes]:
        return self._a10.snapshot()

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        name = str(staged.data["new"]["key"])
        good, other = self._a10.keys[name], self.ca.bundle(SITE).key
        assert other is not None
        self._a10.keys[name] = other.reveal()
        yield
        self._a10.keys[name] = good


class AwsWorld(DeviceWorld):
    """A load balancer or a distribution of AWS."""

    def __init__(self, device: AwsEdge, session: aws.Session) -> None:
        super().__init__(device)
        self._aws = device
        self._session = session

    def snapshot(self) -> dict[str, bytes]:
        return self._aws.snapshot()

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        self._aws.refused.add(str(staged.data["new"]))
        yield
        self._aws.refused.clear()


class ElbWorld(AwsWorld):
    """The certificates of a listener."""

    def __init__(self, device: AwsBalancer, session: aws.Session) -> None:
        super().__init__(device, session)
        place = f"{device.balancer}:443"
        self.site = Site(f"{place}/{SITE}" if isinstance(device, AwsSniBalancer) else place)

    def open(self) -> InstallTarget:
        return ElbTarget(self._session, "aws")


class CloudFrontWorld(AwsWorld):
    """The certificate of a distribution."""

    def __init__(self, device: AwsDistribution, session: aws.Session) -> None:
        super().__init__(device, session)
        self.site = Site(device.distribution)

    def open(self) -> InstallTarget:
        return CloudFrontTarget(self._session, "aws")


@contextmanager
def aws_session(device: AwsEdge, directory: Path, region: str) -> Iterator[aws.Session]:
    """Open a session with the permissions that the connectors' pages name."""
    roots = directory / "roots.pem"
    roots.write_text(device.roots)
    with aws.session(
        region=region,
        access_key_id=device.access_key_id,
        secret_access_key=device.secret_access_key,
        endpoint_url=device.url,
        ca_bundle=str(roots),
    ) as session:
        yield session


@contextmanager
def _elb(directory: Path) -> Iterator[World]:
    with AwsBalancer().running() as device, aws_session(device, directory, REGION) as session:
        yield ElbWorld(device, session)


@contextmanager
def _elb_sni(directory: Path) -> Iterator[World]:
    with AwsSniBalancer().running() as device, aws_session(device, directory, REGION) as session:
        yield ElbWorld(device, session)


@contextmanager
def _cloudfront(directory: Path) -> Iterator[World]:
    with (
        AwsDistribution().running() as device,
        aws_session(device, directory, CLOUDFRONT_REGION) as session,
    ):
        yield CloudFrontWorld(device, session)


class KeyVaultWorld(DeviceWorld):
    """A vault, and a gateway that serves from it; keys are imported."""

    def __init__(self, device: VaultGateway, open_vault: Callable[[], Vault]) -> None:
        super().__init__(device)
        self._gateway = device
        self._vault = open_vault
        self.site = Site(key_vault_api.NAME, names=(SITE,))

    def open(self) -> InstallTarget:
        return KeyVaultTarget(self._vault())

    def snapshot(self) -> dict[str, bytes]:
        return self._gateway.snapshot()

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        self._gateway.vault.refused.add(key_vault_api.NAME)
        yield
        self._gateway.vault.refused.clear()


class KeyInVaultWorld(KeyVaultWorld):
    """The same, with keys that the vault makes; nothing is connected to, the vault is asked."""

    def __init__(self, device: VaultGateway, open_vault: Callable[[], Vault]) -> None:
        super().__init__(device, open_vault)
        self.port = 0

    def open(self) -> InstallTarget:
        return KeyInVaultTarget(self._vault())

    def bundle(self) -> Bundle:
        return self._made(self.site)

    def two(self) -> tuple[tuple[Site, Bundle], tuple[Site, Bundle]]:
        # A name of the vault has one key that waits for its certificate, never two.
        second = Site(f"{key_vault_api.NAME}-second", names=(SITE,))
        return (self.site, self._made(self.site)), (second, self._made(second))

    def _made(self, site: Site) -> Bundle:
        target = self.open()
        assert isinstance(target, HoldsKey)
        csr = target.generate_csr(site, SubjectSpec((SITE,)))
        return Bundle(self.ca.signed(csr, SITE), None)


@contextmanager
def _vault(directory: Path, world: type[KeyVaultWorld]) -> Iterator[World]:
    with VaultGateway().running() as device, ExitStack() as stack:

        def opened() -> Vault:
            return stack.enter_context(vault_of(device))

        yield world(device, opened)


@contextmanager
def vault_of(device: VaultGateway) -> Iterator[Vault]:
    """Open the vault as the connector does."""
    access = KeyVaultAccess(
        vault_url=device.url,
        authority_url=device.url,
        tenant_id="tenant",
        client_id="client",
        client_secret=SecretStr(device.vault.client_secret),
        ca_bundle=device.roots,
    )
    with access.opened("vault") as vault:
        yield vault


class KubernetesWorld(DeviceWorld):
    """A cluster, and an ingress controller that serves from it."""

    def __init__(self, device: KubernetesIngress, cluster: Cluster) -> None:
        super().__init__(device)
        self._ingress = device
        self._cluster = cluster
        self.site = Site(f"{kubernetes_api.NAMESPACE}/{kubernetes_api.NAME}")

    def open(self) -> InstallTarget:
        return KubernetesTlsTarget(self._cluster)

    def snapshot(self) -> dict[str, bytes]:
        return self._ingress.snapshot()

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        place = (kubernetes_api.NAMESPACE, kubernetes_api.NAME)
        self._ingress.cluster.secrets[place]["immutable"] = True
        yield
        del self._ingress.cluster.secrets[place]["immutable"]


@contextmanager
def _kubernetes(directory: Path) -> Iterator[World]:
    with KubernetesIngress().running() as device:
        access = KubernetesAccess(
            url=device.url,
            namespace=kubernetes_api.NAMESPACE,
            token=SecretStr(device.cluster.token),
            ca_bundle=device.roots,
        )
        with access.opened("cluster") as cluster:
            yield KubernetesWorld(device, cluster)


@contextmanager
def _a10(directory: Path) -> Iterator[World]:
    with (
        A10().running() as device,
        http.client(device.url, ca_bundle=device.roots) as client,
    ):
        yield A10World(device, client)


class IisWorld(DeviceWorld):
    """A Windows Server with IIS; the certificate before came from somebody else."""

    def __init__(self, device: IisServer, stack: ExitStack) -> None:
        super().__init__(device)
        self._iis = device
        self._stack = stack
        self.site = Site(iis_api.BINDING)

    def open(self) -> InstallTarget:
        return IisTarget(self._remote(self._stack))

    def _remote(self, stack: ExitStack) -> Remoting:
        return stack.enter_context(
            remoting(
                self._iis.url,
                winrm_service.USER,
                winrm_service.PASSWORD,
                auth="basic",
                ca_bundle=self._iis.roots,
                label="iis",
            )
        )

    def snapshot(self) -> dict[str, bytes]:
        return self._iis.snapshot()

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        new = staged.data["new"]
        stored = self._iis.stores[new["store"]][new["thumbprint"]]
        good, stored.key = stored.key, None
        yield
        stored.key = good


class KeyOnIisWorld(IisWorld):
    """The same, with keys that the machine makes."""

    def open(self) -> InstallTarget:
        return KeyOnIisTarget(self._remote(self._stack))

    def snapshot(self) -> dict[str, bytes]:
        # A key stays, waiting or with a certificate that is not live: a retry needs it.
        used = {f"My\\{thumbprint}" for thumbprint, _ in self._iis.http_sys.values()}
        return {
            name: content
            for name, content in super().snapshot().items()
            if name in used or not (name.startswith(("REQUEST\\", "My\\")) or name.endswith(".req"))
        }

    def bundle(self) -> Bundle:
        return self._made(self.site)

    def two(self) -> tuple[tuple[Site, Bundle], tuple[Site, Bundle]]:
        # A binding has one key that waits for its certificate, never two: borrow another's.
        other = iis_api.WebBinding("Shop", "*:443:shop.example.test")
        self._iis.bindings.append(other)
        second = Site(f"{other.site}/{other.information}")
        return (self.site, self._made(self.site)), (self.site, self._made(second))

    def _made(self, site: Site) -> Bundle:
        # An account may have few sessions at a time.
        with ExitStack() as alone:
            target = KeyOnIisTarget(self._remote(alone))
            csr = target.generate_csr(site, SubjectSpec((SITE,), KeyAlgorithm.ECDSA_P256))
        return Bundle(self.ca.signed(csr, SITE), None)


@contextmanager
def _iis(directory: Path, world: type[IisWorld] = IisWorld) -> Iterator[World]:
    with IisServer().running() as device, ExitStack() as stack:
        yield world(device, stack)


class RedisWorld(World):
    """A real Redis that is changed over its own protocol."""

    def __init__(self, server: RedisProcess, client: redis.Redis) -> None:
        self._server = server
        self.port = server.port
        self._client = client
        self.ca = server.ca
        self.site = Site(redis_server.SITE)
        self.old = server.old.chain.fingerprint

    def open(self) -> InstallTarget:
        return redis_server.RedisTarget(
            self._client,
            LocalHost("here"),
            label="cache",
            directory=str(self._server.directory / "certrail"),
        )

    def served(self) -> Fingerprint:
        return self._server.served()

    def snapshot(self) -> dict[str, bytes]:
        files = files_below(self._server.directory)
        files.pop("redis.log", None)
        # Its rewriting adds and removes blank lines at the end.
        config = {"redis.conf": files["redis.conf"].strip()}
        return {
            **files,
            **config,
            "memory": repr(self._server.command("CONFIG GET", "tls-*")).encode(),
        }

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        versions = self._server.directory / "certrail" / "versions"
        key = versions / str(staged.data["version"]) / "privkey.pem"
        good = key.read_bytes()
        other = self.ca.bundle(SITE).key
        assert other is not None
        key.write_bytes(other.reveal())
        yield
        key.write_bytes(good)

    def key_modes(self) -> list[int]:
        found = (self._server.directory / "certrail").rglob("privkey.pem")
        return [path.stat().st_mode & 0o7777 for path in found]

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        return self._server.session()

    def bundle(self) -> Bundle:
        return self.ca.bundle(*NAMES)


@contextmanager
def _redis(directory: Path) -> Iterator[World]:
    with (
        RedisProcess.started(directory) as server,
        redis_server.client(
            "localhost", server.port, tls=True, ca_bundle=server.roots, password=PASSWORD
        ) as client,
    ):
        yield RedisWorld(server, client)


@contextmanager
def _caddy(directory: Path) -> Iterator[World]:
    with (
        Caddy.started(directory) as caddy,
        http.client(caddy.url, headers={"Connection": "close"}) as client,
    ):
        yield CaddyWorld(caddy, client)


@contextmanager
def _haproxy_debian(directory: Path) -> Iterator[World]:
    with HaproxyRuntime.running(directory, debian()) as haproxy:
        yield HaproxyRuntimeWorld(haproxy)


@contextmanager
def _haproxy_wheel(directory: Path) -> Iterator[World]:
    with HaproxyRuntime.running(directory, wheel()) as haproxy:
        yield HaproxyRuntimeWorld(haproxy)


APPLIANCES = (
    Case("haproxy-runtime-2.6", "target-haproxy", _haproxy_debian),
    Case("haproxy-runtime-2.8", "target-haproxy", _haproxy_wheel),
    Case("caddy", "target-caddy", _caddy, GAPS),
    Case("redis", "target-redis", _redis),
    Case("bigip", "target-bigip", _bigip, GAPS),
    Case(
        "bigip-own-key",
        "target-bigip",
        partial(_bigip, world=KeyOnBigIpWorld),
        GAPS | {"own key"},
    ),
    Case("netscaler", "target-netscaler", _netscaler, GAPS),
    Case(
        "netscaler-own-key",
        "target-netscaler",
        partial(_netscaler, world=KeyOnNetScalerWorld),
        GAPS | {"own key"},
    ),
    Case("a10", "target-a10", _a10, GAPS),
    Case("aws-elb", "target-aws-elb", _elb, GAPS),
    Case("aws-elb-sni", "target-aws-elb", _elb_sni, GAPS),
    Case("aws-cloudfront", "target-aws-cloudfront", _cloudfront, GAPS),
    Case("azure-keyvault", "target-azure-keyvault", partial(_vault, world=KeyVaultWorld), GAPS),
    Case(
        "azure-key-in-vault",
        "target-azure-keyvault",
        partial(_vault, world=KeyInVaultWorld),
        GAPS | {"own key"},
    ),
    Case("iis", "target-iis", _iis, GAPS),
    Case(
        "iis-own-key",
        "target-iis",
        partial(_iis, world=KeyOnIisWorld),
        GAPS | {"own key"},
    ),
    Case("kubernetes", "target-kubernetes", _kubernetes, GAPS),
)
