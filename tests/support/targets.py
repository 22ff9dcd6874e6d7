"""Every install target behind an API, opened at the imitation of its vendor's device.

Caddy, HAProxy and Redis are the real programs, behind a relay that breaks where a
test wants. The faults and the installing step are tried with each of them; see
:class:`Target`. A new target adds an entry to :data:`TARGETS`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blocks._keyvault import KeyVaultAccess
from blocks._kubernetes import KubernetesAccess
from blocks.targets import redis_server
from blocks.targets.a10 import A10Target, AxapiSession
from blocks.targets.aws import CloudFrontTarget, ElbTarget
from blocks.targets.azure_keyvault import KeyVaultTarget
from blocks.targets.bigip import BigIpTarget, Session
from blocks.targets.caddy import CaddyTarget
from blocks.targets.haproxy import HaproxyRuntimeTarget, RuntimeApi
from blocks.targets.iis import IisTarget, remoting
from blocks.targets.kubernetes import KubernetesTlsTarget
from blocks.targets.netscaler import NetScalerTarget, nitro_client
from certrail.connectors import InstallTarget
from certrail.model import Fingerprint, Site
from certrail.remote import aws, http
from certrail.remote.local import LocalHost
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
from tests.support.aws_edge import CLOUDFRONT_REGION, AwsBalancer, AwsDistribution
from tests.support.bigip_api import BigIp
from tests.support.caddy import Caddy
from tests.support.device import SITE, Device, Reply
from tests.support.haproxy_runtime import HaproxyRuntime, debian
from tests.support.iis_api import IisServer
from tests.support.key_vault_api import VaultGateway
from tests.support.kubernetes_api import KubernetesIngress
from tests.support.moto_server import REGION
from tests.support.netscaler_api import NetScaler
from tests.support.nginx import TestCa
from tests.support.redis_server import NAMES, PASSWORD, RedisProcess
from tests.support.scripted import http_reply
from tests.support.target_faults import HTTP, RESP, STATS_SOCKET, Speech
from tests.support.tcp_relay import tcp_relay

WRONG = "hunter2-hunter2"
LONG, SHORT = timedelta(seconds=20), timedelta(seconds=0.4)
Opened = AbstractContextManager[InstallTarget]
Opener = Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]


@dataclass(frozen=True)
class Place:
    """A running other side, and a target on the way to which a reply can get lost.

    Attributes:
        port: where clients connect.
        api: where a real program is administered; 0 for an imitation.
        opener: opens the target anew.
        lose: spoils the next switch: before it is done, after, or denied although done.
        served: what a client sees.
        names: what a certificate for it has.
    """

    ca: TestCa
    port: int
    api: int
    opener: Opener
    lose: Callable[[Loss], None]
    served: Callable[[], Fingerprint]
    names: tuple[str, ...] = (SITE,)


class Loss(Enum):
    """How the reply to the switch is lost."""

    BEFORE = "the request never arrives"
    AFTER = "it is done, the reply is lost"
    DENIED = "it is done, and an error is said"


@dataclass(frozen=True)
class Target:
    """How one install target is opened and where it is spoilt.

    Attributes:
        slug: of its block.
        at: opens it at a port of this machine, with the password :data:`WRONG` (where there
            is one) and a short deadline.
        device: starts the imitation; None where the real program is run.
        to: opens it at the imitation, with a password (None: the right one), a CA and
            ``timeout``, how long a call may take (:data:`LONG`).
        site: the place on the imitation.
        switch: method and path of the call that makes a certificate live.
        speech: faults in the words of its protocol.
        real: starts the real program, with a relay before it.
        no_credential: why there is none that could be wrong.
    """

    slug: str
    at: Callable[[int], Opened]
    device: Callable[[], Device] | None = None
    to: Callable[..., Opened] | None = None
    site: Callable[[Any], Site] | None = None
    switch: tuple[str, str] = ("", "")
    speech: Speech = field(default_factory=lambda: HTTP)
    real: Callable[[Path], AbstractContextManager[Place]] | None = None
    no_credential: str = ""

    def __str__(self) -> str:
        return self.slug.removeprefix("target-")

    @contextmanager
    def placed(self, folder: Path) -> Iterator[Place]:
        """Start the other side; *folder* is for files of a real program."""
        if self.real:
            with self.real(folder) as place:
                yield place
            return
        assert self.device
        with self.device().running() as device:

            def lose(loss: Loss) -> None:
                if loss is Loss.DENIED:
                    device.fault(*self.switch, reply=Reply(500, b"{}"), after=True)
                else:
                    device.fault(*self.switch, cut=True, after=loss is Loss.AFTER)

            yield Place(device.ca, device.port, 0, self.opener(device), lose, device.served)

    def opener(
        self, device: Device
    ) -> Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]:
        """Return what opens it anew each time, as each step does."""
        assert self.to
        assert self.site
        to, site = self.to, self.site

        @contextmanager
        def opened() -> Iterator[tuple[InstallTarget, Site]]:
            with to(device, None, device.roots) as target:
                yield target, site(device)

        return opened


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def caddy_at(url: str, timeout: timedelta, host: str = "") -> Iterator[InstallTarget]:
    """Open Caddy at an address of its admin API; *host* is what it calls itself."""
    # Caddy answers to its own name only, and the relay has another.
    headers = {"Connection": "close", **({"Host": host} if host else {})}
    with http.client(url, timeout=timeout, headers=headers) as client:
        yield CaddyTarget(client, "target")


@contextmanager
def _real_caddy(folder: Path) -> Iterator[Place]:
    with Caddy.started(folder) as caddy, tcp_relay(caddy.admin) as between:

        @contextmanager
        def opened() -> Iterator[tuple[InstallTarget, Site]]:
            with caddy_at(_local(between.port), LONG, f"127.0.0.1:{caddy.admin}") as target:
                yield target, Site(SITE)

        def lose(loss: Loss) -> None:
            denied = http_reply(500, {}, b"{}") if loss is Loss.DENIED else b""
            after = None if loss is Loss.BEFORE else b""
            between.spoil(b"PATCH /config/apps/tls", after=after, instead=denied)

        yield Place(caddy.ca, caddy.port, between.port, opened, lose, caddy.served)


@contextmanager
def haproxy_at(port: int, timeout: timedelta = SHORT) -> Iterator[InstallTarget]:
    """Open HAProxy at the port of its stats socket."""
    api = RuntimeApi(("127.0.0.1", port), "target", timeout)
    yield HaproxyRuntimeTarget(api, LocalHost("here"))


@contextmanager
def _real_haproxy(folder: Path) -> Iterator[Place]:
    with (
        HaproxyRuntime.running(folder, debian()) as haproxy,
        tcp_relay(haproxy.other) as between,
    ):

        @contextmanager
        def opened() -> Iterator[tuple[InstallTarget, Site]]:
            with haproxy_at(between.port, LONG) as target:
                yield target, Site(str(haproxy.file))

        def lose(loss: Loss) -> None:
            denied = b"Can't commit it now!\n" if loss is Loss.DENIED else b""
            after = None if loss is Loss.BEFORE else b"Success!"
            between.spoil(b"commit ssl cert", after=after, instead=denied)

        yield Place(
            haproxy.ca, haproxy.port, between.port, opened, lose, lambda: haproxy.served(SITE)
        )


@contextmanager
def redis_at(
    port: int, folder: Path = Path("/nonexistent"), password: str = WRONG, timeout: float = 0.4
) -> Iterator[InstallTarget]:
    """Open Redis; *folder* is for the files it reads, *timeout* in seconds."""
    with redis_server.client(
        "127.0.0.1", port, tls=False, password=password, timeout=timeout
    ) as connection:
        yield redis_server.RedisTarget(
            connection, LocalHost("here"), label="target", directory=str(folder / "certrail")
        )


@contextmanager
def _real_redis(folder: Path) -> Iterator[Place]:
    with RedisProcess.started(folder) as server, tcp_relay(server.plain) as between:

        @contextmanager
        def opened() -> Iterator[tuple[InstallTarget, Site]]:
            with redis_at(between.port, folder, PASSWORD, 20) as target:
                yield target, Site(redis_server.SITE)

        def lose(loss: Loss) -> None:
            denied = b"-LOADING Redis is loading\r\n" if loss is Loss.DENIED else b""
            after = None if loss is Loss.BEFORE else b"\r\n"
            between.spoil(b"\r\nSET\r\n", after=after, instead=denied)

        yield Place(server.ca, server.port, between.port, opened, lose, server.served, NAMES)


@contextmanager
def _bigip(url: str, password: str, ca: str, timeout: timedelta) -> Iterator[InstallTarget]:
    with http.client(url, ca_bundle=ca, timeout=timeout) as client:
        yield BigIpTarget(Session(client, "target", bigip_api.USER, password))


@contextmanager
def _netscaler(url: str, password: str, ca: str, timeout: timedelta) -> Iterator[InstallTarget]:
    with nitro_client(url, netscaler_api.USER, password, ca_bundle=ca, timeout=timeout) as client:
        yield NetScalerTarget(client, "target")


@contextmanager
def _a10(url: str, password: str, ca: str, timeout: timedelta) -> Iterator[InstallTarget]:
    with http.client(url, ca_bundle=ca, timeout=timeout) as client:
        yield A10Target(AxapiSession(client, "target", a10_api.USER, password))


@contextmanager
def _iis(url: str, password: str, ca: str, timeout: timedelta) -> Iterator[InstallTarget]:
    user, short = winrm_service.USER, timeout < LONG
    with remoting(
        url,
        user,
        password,
        auth="basic",
        ca_bundle=ca,
        label="target",
        timeout=timeout,
        grace=timedelta(0) if short else timedelta(seconds=5),
    ) as session:
        yield IisTarget(session)


@contextmanager
def _amazon(url: str, region: str, *key: str, ca: str, timeout: timedelta) -> Iterator[aws.Session]:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        Path(file.name).write_text(ca)
        with aws.session(
            region=region,
            access_key_id=key[0],
            secret_access_key=key[1],
            endpoint_url=url,
            ca_bundle=file.name if ca else "",
            timeout=timeout,
        ) as session:
            yield session


@contextmanager
def _elb(url: str, key: tuple[str, str], ca: str, timeout: timedelta) -> Iterator[InstallTarget]:
    with _amazon(url, REGION, *key, ca=ca, timeout=timeout) as session:
        yield ElbTarget(session, "target")


@contextmanager
def _cloudfront(
    url: str, key: tuple[str, str], ca: str, timeout: timedelta
) -> Iterator[InstallTarget]:
    with _amazon(url, CLOUDFRONT_REGION, *key, ca=ca, timeout=timeout) as session:
        yield CloudFrontTarget(session, "target")


def _aws_key(device: Any, password: str | None) -> tuple[str, str]:
    if password is None:
        return device.access_key_id, device.secret_access_key
    return "AKIAWRONGEXAMPLE0000", password


@contextmanager
def _key_vault(url: str, secret: str, ca: str, timeout: timedelta) -> Iterator[InstallTarget]:
    access = KeyVaultAccess(
        vault_url=url,
        authority_url=url,
        tenant_id="tenant",
        client_id="client",
        client_secret=SecretStr(secret),
        ca_bundle=ca,
        timeout=max(1, int(timeout.total_seconds())),
    )
    with access.opened("target") as vault:
        yield KeyVaultTarget(vault)


@contextmanager
def _kubernetes(url: str, token: str, ca: str, timeout: timedelta) -> Iterator[InstallTarget]:
    access = KubernetesAccess(
        url=url,
        namespace=kubernetes_api.NAMESPACE,
        token=SecretStr(token),
        ca_bundle=ca,
        timeout=max(1, int(timeout.total_seconds())),
    )
    with access.opened("target") as cluster:
        yield KubernetesTlsTarget(cluster)


TARGETS = (
    Target(
        "target-caddy",
        lambda port: caddy_at(_local(port), SHORT),
        real=_real_caddy,
        no_credential="Caddy's admin API has no password; it asks where a request comes from",
    ),
    Target(
        "target-haproxy",
        haproxy_at,
        speech=STATS_SOCKET,
        real=_real_haproxy,
        no_credential="the stats socket has no password; its level says what it may be used for",
    ),
    Target("target-redis", redis_at, speech=RESP, real=_real_redis),
    Target(
        "target-bigip",
        lambda port: _bigip(_local(port), WRONG, "", SHORT),
        BigIp,
        lambda d, word, ca, timeout=LONG: _bigip(d.url, word or bigip_api.PASSWORD, ca, timeout),
        lambda d: Site(bigip_api.PROFILE),
        ("PATCH", "/transaction/"),
    ),
    Target(
        "target-netscaler",
        lambda port: _netscaler(_local(port), WRONG, "", SHORT),
        NetScaler,
        lambda d, word, ca, timeout=LONG: _netscaler(
            d.url, word or netscaler_api.PASSWORD, ca, timeout
        ),
        lambda d: Site(netscaler_api.PAIR),
        ("POST", "/sslcertkey$"),
    ),
    Target(
        "target-a10",
        lambda port: _a10(_local(port), WRONG, "", SHORT),
        A10,
        lambda d, word, ca, timeout=LONG: _a10(d.url, word or a10_api.PASSWORD, ca, timeout),
        lambda d: Site(a10_api.TEMPLATE),
        ("PUT", "/certificate$"),
    ),
    Target(
        "target-iis",
        lambda port: _iis(_local(port), WRONG, "", SHORT),
        IisServer,
        lambda d, word, ca, timeout=LONG: _iis(d.url, word or winrm_service.PASSWORD, ca, timeout),
        lambda d: Site(iis_api.BINDING),
        ("POST", "#Command .* AddSslCertificate"),
    ),
    Target(
        "target-aws-elb",
        lambda port: _elb(_local(port), ("AKIAWRONGEXAMPLE0000", WRONG), "", SHORT),
        AwsBalancer,
        lambda d, word, ca, timeout=LONG: _elb(d.url, _aws_key(d, word), ca, timeout),
        lambda d: Site(f"{d.balancer}:443"),
        ("POST", "#ModifyListener"),
    ),
    Target(
        "target-aws-cloudfront",
        lambda port: _cloudfront(_local(port), ("AKIAWRONGEXAMPLE0000", WRONG), "", SHORT),
        AwsDistribution,
        lambda d, word, ca, timeout=LONG: _cloudfront(d.url, _aws_key(d, word), ca, timeout),
        lambda d: Site(d.distribution),
        ("PUT", "/config$"),
    ),
    Target(
        "target-azure-keyvault",
        lambda port: _key_vault(_local(port), WRONG, "", SHORT),
        VaultGateway,
        lambda d, word, ca, timeout=LONG: _key_vault(
            d.url, word or d.vault.client_secret, ca, timeout
        ),
        lambda d: Site(key_vault_api.NAME),
        ("POST", f"/{key_vault_api.NAME}/import$"),
    ),
    Target(
        "target-kubernetes",
        lambda port: _kubernetes(_local(port), WRONG, "", SHORT),
        KubernetesIngress,
        lambda d, word, ca, timeout=LONG: _kubernetes(d.url, word or d.cluster.token, ca, timeout),
        lambda d: Site(kubernetes_api.NAME),
        ("PATCH", f"/{kubernetes_api.NAME}$"),
    ),
)
DEVICES = tuple(target for target in TARGETS if target.device)
