"""Every install target behind an API, opened at the imitation of its vendor's device.

The faults and the installing step are tried with each of them; see
:class:`Target`. A new target adds an entry to :data:`TARGETS`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blocks._keyvault import KeyVaultAccess
from blocks._kubernetes import KubernetesAccess
from blocks.targets.a10 import A10Target, AxapiSession
from blocks.targets.aws import CloudFrontTarget, ElbTarget
from blocks.targets.azure_keyvault import KeyVaultTarget
from blocks.targets.bigip import BigIpTarget, Session
from blocks.targets.caddy import CaddyTarget
from blocks.targets.kubernetes import KubernetesTlsTarget
from blocks.targets.netscaler import NetScalerTarget, nitro_client
from certrail.connectors import InstallTarget
from certrail.model import Site
from certrail.remote import aws, http
from tests.support import a10_api, bigip_api, key_vault_api, kubernetes_api, netscaler_api
from tests.support.a10_api import A10
from tests.support.aws_edge import CLOUDFRONT_REGION, AwsBalancer, AwsDistribution
from tests.support.bigip_api import BigIp
from tests.support.device import Device
from tests.support.key_vault_api import VaultGateway
from tests.support.kubernetes_api import KubernetesIngress
from tests.support.moto_server import REGION
from tests.support.netscaler_api import NetScaler

WRONG = "hunter2-hunter2"
LONG, SHORT = timedelta(seconds=20), timedelta(seconds=0.4)
Opened = AbstractContextManager[InstallTarget]
Opener = Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]


@dataclass(frozen=True)
class Target:
    """How one install target is opened and where it is spoilt.

    Attributes:
        slug: of its block.
        at: opens it at an address, with the password :data:`WRONG` and a short deadline.
        device: starts the imitation; None where real software is tried elsewhere.
        to: opens it at the imitation, with a password (None: the right one) and a CA.
        site: the place on the imitation.
        switch: method and path of the call that makes a certificate live.
    """

    slug: str
    at: Callable[[str], Opened]
    device: Callable[[], Device] | None = None
    to: Callable[[Any, str | None, str], Opened] | None = None
    site: Callable[[Any], Site] | None = None
    switch: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        return self.slug.removeprefix("target-")

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


@contextmanager
def _caddy(url: str) -> Iterator[InstallTarget]:
    with http.client(url, timeout=SHORT) as client:
        yield CaddyTarget(client, "target")


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
    Target("target-caddy", _caddy),
    Target(
        "target-bigip",
        lambda url: _bigip(url, WRONG, "", SHORT),
        BigIp,
        lambda d, word, ca: _bigip(d.url, word or bigip_api.PASSWORD, ca, LONG),
        lambda d: Site(bigip_api.PROFILE),
        ("PATCH", "/transaction/"),
    ),
    Target(
        "target-netscaler",
        lambda url: _netscaler(url, WRONG, "", SHORT),
        NetScaler,
        lambda d, word, ca: _netscaler(d.url, word or netscaler_api.PASSWORD, ca, LONG),
        lambda d: Site(netscaler_api.PAIR),
        ("POST", "/sslcertkey$"),
    ),
    Target(
        "target-a10",
        lambda url: _a10(url, WRONG, "", SHORT),
        A10,
        lambda d, word, ca: _a10(d.url, word or a10_api.PASSWORD, ca, LONG),
        lambda d: Site(a10_api.TEMPLATE),
        ("PUT", "/certificate$"),
    ),
    Target(
        "target-aws-elb",
        lambda url: _elb(url, ("AKIAWRONGEXAMPLE0000", WRONG), "", SHORT),
        AwsBalancer,
        lambda d, word, ca: _elb(d.url, _aws_key(d, word), ca, LONG),
        lambda d: Site(f"{d.balancer}:443"),
        ("POST", "#ModifyListener"),
    ),
    Target(
        "target-aws-cloudfront",
        lambda url: _cloudfront(url, ("AKIAWRONGEXAMPLE0000", WRONG), "", SHORT),
        AwsDistribution,
        lambda d, word, ca: _cloudfront(d.url, _aws_key(d, word), ca, LONG),
        lambda d: Site(d.distribution),
        ("PUT", "/config$"),
    ),
    Target(
        "target-azure-keyvault",
        lambda url: _key_vault(url, WRONG, "", SHORT),
        VaultGateway,
        lambda d, word, ca: _key_vault(d.url, word or d.vault.client_secret, ca, LONG),
        lambda d: Site(key_vault_api.NAME),
        ("POST", f"/{key_vault_api.NAME}/import$"),
    ),
    Target(
        "target-kubernetes",
        lambda url: _kubernetes(url, WRONG, "", SHORT),
        KubernetesIngress,
        lambda d, word, ca: _kubernetes(d.url, word or d.cluster.token, ca, LONG),
        lambda d: Site(kubernetes_api.NAME),
        ("PATCH", f"/{kubernetes_api.NAME}$"),
    ),
)
DEVICES = tuple(target for target in TARGETS if target.device)
