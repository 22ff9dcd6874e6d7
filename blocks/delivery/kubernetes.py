"""A TLS secret (``kubernetes.io/tls``) in a Kubernetes namespace, through its REST API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from blocks._base import DeliveryBlock
from blocks._kubernetes import LONGEST_NAME, Cluster, KubernetesAccess, data_of
from certrail.connectors import DeliveryTarget, Traits
from certrail.delivery.fields import same
from certrail.delivery.settings import ServerSettings
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site


class KubernetesSecret(KubernetesAccess, DeliveryBlock):
    """Store certificates as TLS secrets in a Kubernetes cluster."""

    _block_type_name = "Certrail delivery: Kubernetes"
    _block_type_slug = "delivery-kubernetes"

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the cluster."""
        with self.opened(self.label) as cluster:
            yield _KubernetesDelivery(cluster)


class _KubernetesDelivery(DeliveryTarget):
    traits: ClassVar[Traits] = Traits(
        transactional=True,
        restores_by="deliver the certificate before again",
        longest_name=LONGEST_NAME,
    )

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def check(self) -> str:
        return self._cluster.check()

    def delivered(self, site: Site) -> Fingerprint | None:
        ServerSettings.parse(site.settings)
        secret = self._cluster.read(*self._cluster.place(site))
        found = secret.bundle() if secret else None
        return found.chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        ServerSettings.parse(site.settings)
        data = data_of(bundle)
        namespace, name = self._cluster.place(site)
        secret = self._cluster.read(namespace, name)
        if secret is None:
            version = self._cluster.create(namespace, name, data)
        elif same(secret.bundle(), bundle):
            return f"the secret {namespace}/{name} had it already"
        else:
            version = self._cluster.replace(namespace, name, secret.metadata.resourceVersion, data)
        effect("kubernetes.deliver", connector=self._cluster.label, secret=f"{namespace}/{name}")
        return f"the secret {namespace}/{name}, resource version {plain(version)}"
