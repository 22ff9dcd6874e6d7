"""TLS secrets of a Kubernetes cluster that Ingresses and Gateways serve.

The new pair waits, with the one before, in a secret beside the one that is used
(``NAME.certrail-…``); both are there until the new one has passed its test. The switch is
one merge patch with the resource version that was read (Kubernetes API reference, Secret
v1, Ingress v1; Gateway API, Gateway v1; read November 2026). Tried against an imitation
of the API server that the official client works with; no cluster was at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

from blocks._base import TargetBlock
from blocks._kubernetes import CERTIFICATE, KEY, LONGEST_NAME, Cluster, KubernetesAccess, Secret
from blocks._kubernetes import data_of as fields_of
from blocks._target import must_replace, must_take, short
from certrail.connectors import InstallTarget, Traits
from certrail.errors import ActivationRefused, Busy, Conflict, InvalidRequest, NotFound, Rejected
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site, Staged, key_text, subject_names
from certrail.remote import http

_BEFORE = ("before.crt", "before.key")
_MARK = re.compile(r"\.certrail-[0-9a-f]{16}\Z")
_LONGEST_SITE = LONGEST_NAME - len(".certrail-") - 16
_OURS = {"app.kubernetes.io/managed-by": "certrail"}


class KubernetesTarget(KubernetesAccess, TargetBlock):
    """Renew TLS secrets that Ingresses and Gateways of a Kubernetes cluster serve.

    The site is the secret: `name`, or `namespace/name`. Give the endpoint an `address` of
    what serves it, and the installation is tested there; without one, the secret is read
    back.
    """

    _block_type_name = "Certrail target: Kubernetes"
    _block_type_slug = "target-kubernetes"

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the cluster."""
        with self.opened(self.label) as cluster:
            yield KubernetesTlsTarget(cluster)


class KubernetesTlsTarget(InstallTarget):
    """The TLS secrets of one cluster."""

    traits: ClassVar[Traits] = Traits(
        transactional=True,
        restores_by="the pair before is kept in a secret beside it until the new one has passed "
        "its test",
        longest_name=_LONGEST_SITE,
        # Mounted secrets reach their pods with the next round of the kubelet.
        settles_within=timedelta(minutes=2),
        serves=False,
    )

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._label = cluster.label

    def check(self) -> str:
        return self._cluster.check()

    def sites(self) -> Iterator[Site]:
        namespace = self._cluster.namespace
        hosts, listens = self._users(namespace)
        secrets = f"/api/v1/namespaces/{namespace}/secrets"
        for item in self._cluster.items(secrets, fieldSelector="type=kubernetes.io/tls"):
            secret = http.shaped(item, Secret, self._label)
            name = secret.metadata.name
            if _MARK.search(name):
                continue
            found = secret.bundle()
            names = subject_names(found.chain.leaf) if found else ()
            yield Site(
                f"{namespace}/{name}",
                tuple(dict.fromkeys(hosts.get(name, ()))) or names,
                tuple(dict.fromkeys(listens.get(name, ()))),
                tls=found is not None,
                fingerprint=found.chain.fingerprint if found else None,
            )

    def serving(self, site: Site) -> Fingerprint | None:
        return _fingerprint(self._cluster.read(*self._place(site)))

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_take(bundle, self.traits, "Kubernetes")
        new = bundle.chain.fingerprint
        namespace, name = self._place(site)
        secret = self._cluster.read(namespace, name)
        present = _fingerprint(secret)
        must_replace(present, replaces, new, site.id, self._label)
        beside = f"{name}.certrail-{new[:16]}"
        staged = self._cluster.read(namespace, beside)
        if staged is None:
            data = fields_of(bundle)
            if secret is not None and secret.data and present != new:
                pairs = zip(_BEFORE, (CERTIFICATE, KEY), strict=True)
                data |= {kept: secret.data[field] for kept, field in pairs}
            with self._raced():
                self._cluster.create(namespace, beside, data, _OURS)
            effect("target.stage", connector=self._label, secret=f"{namespace}/{beside}")
        return Staged(
            site.id,
            new,
            replaces or present,
            f"Kubernetes: {namespace}/{name} gets {key_text(bundle.chain.leaf)}",
            {"namespace": namespace, "name": name, "beside": beside, "made": secret is None},
        )

    def activate(self, staged: Staged) -> str:
        namespace, name, secret = self._present(staged)
        present = _fingerprint(secret)
        if present == staged.fingerprint:
            return f"Kubernetes: {short(staged.fingerprint)} was there already, nothing changed"
        must_replace(present, staged.replaces, staged.fingerprint, staged.site, self._label)
        data = self._beside(staged)
        new = {field: data[field] for field in (CERTIFICATE, KEY)}
        try:
            with self._raced():
                if secret is None:
                    version = self._cluster.create(namespace, name, new)
                else:
                    seen = secret.metadata.resourceVersion
                    version = self._cluster.replace(namespace, name, seen, new)
        except Rejected as exc:
            raise ActivationRefused(
                f"Kubernetes refused the certificate: {exc}",
                remedy="An immutable secret, or an admission rule: look at what the API server "
                "says. Then retry, no new order is made.",
            ) from exc
        effect("target.activate", connector=self._label, secret=f"{namespace}/{name}")
        return f"Kubernetes: the secret {namespace}/{name} has resource version {plain(version)}"

    def restore(self, staged: Staged) -> str:
        namespace, name, secret = self._present(staged)
        present = _fingerprint(secret)
        if secret is None or present != staged.fingerprint:
            if present != staged.replaces:
                raise Conflict(
                    f"{self._label}: {staged.site} was changed by somebody else since",
                    connector=self._label,
                )
            return "Kubernetes: nothing to put back"
        seen = secret.metadata.resourceVersion
        if staged.data["made"]:
            self._cluster.delete(namespace, name, seen)
            return f"Kubernetes: the secret {namespace}/{name} is gone, it was not there before"
        data = self._beside(staged)
        if _BEFORE[0] not in data:
            return "Kubernetes: nothing to put back"
        pairs = zip((CERTIFICATE, KEY), _BEFORE, strict=True)
        before = {field: data[kept] for field, kept in pairs}
        with self._raced():
            version = self._cluster.replace(namespace, name, seen, before)
        effect("target.restore", connector=self._label, secret=f"{namespace}/{name}")
        return f"Kubernetes: {namespace}/{name} has the pair before, version {plain(version)}"

    def discard(self, staged: Staged) -> None:
        self._cluster.delete(str(staged.data["namespace"]), str(staged.data["beside"]))

    @contextmanager
    def _raced(self) -> Iterator[None]:
        try:
            yield
        except Conflict as exc:
            # Also the answer where the same change arrived twice, as when its reply was lost.
            raise Busy(
                f"{self._label}: the secret was made or changed at the same moment ({exc})",
                remedy="Retry: the present secret is read again.",
                connector=self._label,
                code=exc.code,
            ) from exc

    def _place(self, site: Site) -> tuple[str, str]:
        namespace, name = self._cluster.place(site)
        if len(name) > _LONGEST_SITE:
            raise InvalidRequest(
                f"the name {name[:40]}… is too long: {len(name)} of {_LONGEST_SITE} characters",
                remedy="Name the secret shorter: the new pair waits in one with a longer name.",
            )
        return namespace, name

    def _present(self, staged: Staged) -> tuple[str, str, Secret | None]:
        namespace, name = str(staged.data["namespace"]), str(staged.data["name"])
        return namespace, name, self._cluster.read(namespace, name)

    def _beside(self, staged: Staged) -> Mapping[str, str]:
        namespace, beside = str(staged.data["namespace"]), str(staged.data["beside"])
        found = self._cluster.read(namespace, beside)
        if found is None or found.data is None:
            raise NotFound(
                f"{self._label}: the secret {namespace}/{beside} is gone, where the new pair was",
                remedy="Retry: it is staged again.",
                connector=self._label,
            )
        return found.data

    def _users(self, namespace: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return host names and addresses of what serves each secret."""
        hosts: dict[str, list[str]] = {}
        listens: dict[str, list[str]] = {}
        # A token that may not look there, and a cluster without Gateways, still list secrets.
        missing = (403, 404)
        path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses"
        for ingress in self._cluster.items(path, missing):
            points = _get(ingress, "status", "loadBalancer").get("ingress") or []
            where = [f"{one.get('hostname') or one.get('ip', '')}:443" for one in points]
            for tls in _get(ingress, "spec").get("tls") or []:
                name = str(tls.get("secretName", ""))
                hosts.setdefault(name, []).extend(tls.get("hosts") or [])
                listens.setdefault(name, []).extend(where)
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/gateways"
        for gateway in self._cluster.items(path, missing):
            points = _get(gateway, "status").get("addresses") or []
            for listener in _get(gateway, "spec").get("listeners") or []:
                where = [f"{one.get('value', '')}:{listener.get('port', 443)}" for one in points]
                for reference in _get(listener, "tls").get("certificateRefs") or []:
                    name = str(reference.get("name", ""))
                    hosts.setdefault(name, []).extend(filter(None, [listener.get("hostname")]))
                    listens.setdefault(name, []).extend(where)
        return hosts, listens


def _get(value: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for part in path:
        value = value.get(part) or {}
    return value


def _fingerprint(secret: Secret | None) -> Fingerprint | None:
    found = secret.bundle() if secret else None
    return found.chain.fingerprint if found else None
