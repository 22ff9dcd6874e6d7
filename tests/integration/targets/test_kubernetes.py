"""What is peculiar to TLS secrets of Kubernetes: resource versions, who serves them, the API."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks._kubernetes import KubernetesAccess
from blocks.targets.kubernetes import KubernetesTlsTarget
from certrail.errors import ActivationRefused, Busy, Conflict, InvalidRequest, NotFound
from certrail.model import Site
from tests.support.device import SITE, Reply, Request
from tests.support.kubernetes_api import NAME, NAMESPACE, KubernetesIngress, data_of
from tests.support.own_environment import own_environment

WWW = Site(f"{NAMESPACE}/{NAME}")


@pytest.fixture
def ingress() -> Iterator[KubernetesIngress]:
    """A cluster and what serves from it."""
    with KubernetesIngress().running() as device:
        yield device


@contextmanager
def opened(device: KubernetesIngress) -> Iterator[KubernetesTlsTarget]:
    """Open the cluster as the connector does."""
    access = KubernetesAccess(
        url=device.url,
        namespace=NAMESPACE,
        token=SecretStr(device.cluster.token),
        ca_bundle=device.roots,
    )
    with access.opened("cluster") as cluster:
        yield KubernetesTlsTarget(cluster)


def test_sites_say_who_serves_them(ingress: KubernetesIngress) -> None:
    """An inventory of secrets alone would not say where they are seen."""
    ingress.cluster.put(NAMESPACE, "gateway-tls", data_of(ingress.ca.bundle("shop.example.test")))
    ingress.cluster.put(NAMESPACE, "unused-tls", data_of(ingress.ca.bundle("idle.example.test")))
    ingress.cluster.put(NAMESPACE, "password", {"tls.crt": "", "tls.key": ""}, type="Opaque")
    ingress.cluster.gateways = [
        {
            "metadata": {"name": "public"},
            "spec": {
                "listeners": [
                    {
                        "hostname": "shop.example.test",
                        "port": 8443,
                        "tls": {"certificateRefs": [{"name": "gateway-tls"}]},
                    },
                    {"port": 80},
                ]
            },
            "status": {"addresses": [{"value": "192.0.2.9"}]},
        }
    ]
    with opened(ingress) as target:
        target.stage(WWW, ingress.ca.bundle(SITE), None)
        found = {site.id: (site.names, site.listens) for site in target.sites()}

    assert found == {
        "web/www-tls": ((SITE,), ("192.0.2.7:443",)),
        "web/gateway-tls": (("shop.example.test",), ("192.0.2.9:8443",)),
        "web/unused-tls": (("idle.example.test",), ()),
    }


def test_a_change_between_look_and_write_is_noticed(ingress: KubernetesIngress) -> None:
    """Two that renew the same secret must not overwrite each other unseen."""
    theirs, answer = ingress.ca.bundle(SITE), ingress.answer

    def raced(request: Request) -> Reply:
        if request.method == "PATCH":
            ingress.answer = answer  # type: ignore[method-assign]
            ingress.put(theirs)
        return answer(request)

    with opened(ingress) as target:
        staged = target.stage(WWW, ingress.ca.bundle(SITE), None)
        ingress.answer = raced  # type: ignore[method-assign]
        with pytest.raises(Busy):
            target.activate(staged)
        for change in (target.activate, target.restore):
            with pytest.raises(Conflict):
                change(staged)

    assert ingress.served() == theirs.chain.fingerprint


def test_a_secret_that_is_not_there_yet_is_made_and_taken_back(
    ingress: KubernetesIngress,
) -> None:
    """The first certificate of a new Ingress."""
    place = (NAMESPACE, "fresh")
    with opened(ingress) as target:
        staged = target.stage(Site("fresh"), ingress.ca.bundle(SITE), None)
        assert place not in ingress.cluster.secrets
        target.activate(staged)
        assert ingress.cluster.secrets[place]["type"] == "kubernetes.io/tls"
        assert target.serving(Site("fresh")) == staged.fingerprint

        target.restore(staged)
        target.discard(staged)

    assert set(ingress.cluster.secrets) == {(NAMESPACE, NAME)}


def test_labels_and_other_data_stay(ingress: KubernetesIngress) -> None:
    """Controllers find a secret by its labels; some keep a CA beside the certificate."""
    data = {**data_of(ingress.old), "ca.crt": ""}
    ingress.cluster.put(NAMESPACE, NAME, data, metadata={"labels": {"app": "shop"}})
    with opened(ingress) as target:
        target.activate(target.stage(WWW, ingress.ca.bundle(SITE), None))

    secret = ingress.cluster.secrets[NAMESPACE, NAME]
    assert secret["metadata"]["labels"] == {"app": "shop"}
    assert secret["data"]["ca.crt"] == ""


def test_what_was_staged_and_is_gone_is_told(ingress: KubernetesIngress) -> None:
    """Somebody tidied up: a retry stages it again."""
    with opened(ingress) as target:
        staged = target.stage(WWW, ingress.ca.bundle(SITE), None)
        target.discard(staged)
        with pytest.raises(NotFound) as caught:
            target.activate(staged)

    assert "staged again" in caught.value.remedy


def test_an_immutable_secret_is_told(ingress: KubernetesIngress) -> None:
    """Nothing but a new name helps there."""
    ingress.put(ingress.old, immutable=True)
    with opened(ingress) as target:
        staged = target.stage(WWW, ingress.ca.bundle(SITE), None)
        with pytest.raises(ActivationRefused, match="immutable"):
            target.activate(staged)


@pytest.mark.parametrize("name", ["Web/www", "a/b/c", "-a", "a_b", "x" * 230, "web/../www"])
def test_names_are_checked_first(ingress: KubernetesIngress, name: str) -> None:
    """A name goes into the path of a request, and what is staged has a longer one."""
    before = ingress.snapshot()
    with opened(ingress) as target, pytest.raises(InvalidRequest) as caught:
        target.stage(Site(name), ingress.ca.bundle(SITE), None)

    assert caught.value.remedy
    assert before == ingress.snapshot()


def test_the_official_client_works_with_the_fake(
    ingress: KubernetesIngress, tmp_path: Path
) -> None:
    """The cluster is a fake; that Kubernetes' own client works with it keeps it true."""
    theirs = ingress.ca.bundle(SITE)
    assert theirs.key
    files = {"ca": ingress.roots, "crt": theirs.chain.text, "key": theirs.key.reveal().decode()}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with opened(ingress) as target:
        target.activate(target.stage(WWW, ingress.ca.bundle(SITE), None))
    python = own_environment("kubernetes") / "bin" / "python"
    program = Path(__file__).parents[2] / "support" / "run_kubernetes_client.py"
    paths = [str(tmp_path / name) for name in files]
    argv = [ingress.url, paths[0], ingress.cluster.token, NAMESPACE, NAME, "theirs", *paths[1:]]
    done = subprocess.run([str(python), str(program), *argv], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    chain = ingress.live()[0].encode()
    assert json.loads(done.stdout) == {
        "type": "kubernetes.io/tls",
        "tls.crt": base64.b64encode(chain).decode(),
        "changed": True,
        "stale": 409,
        "duplicate": 409,
        "listed": [NAME],
        "more": True,
        "secrets": [NAME],
        "gone": 404,
    }
