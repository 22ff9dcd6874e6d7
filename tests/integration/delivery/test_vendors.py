"""What is peculiar to each service that certificates are delivered to."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from blocks.delivery.aws_secrets_manager import AwsSecretsManager
from blocks.delivery.azure_keyvault import AzureKeyVault
from blocks.delivery.http_put import HttpPut
from blocks.delivery.kubernetes import KubernetesSecret
from blocks.delivery.s3 import S3Bucket
from blocks.delivery.vault_kv import VaultKv
from certrail.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.model import Bundle, Site
from certrail.x509.export import Format, Part, export, load
from tests.support.bundles import new_bundle
from tests.support.cloud_api import served
from tests.support.delivery_servers import VaultServer, WebDav, vault_server, webdav_server
from tests.support.key_vault_api import KeyVault
from tests.support.kubernetes_api import Kubernetes
from tests.support.moto_server import REGION, Aws, aws
from tests.support.own_environment import own_environment
from tests.support.scripted import http_reply, scripted

SITE = Site(id="shop", names=("shop.example.test",))
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with vault_server(tmp_path_factory.mktemp("vault")) as server:
        yield server


@pytest.fixture(scope="module")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDav]:
    with webdav_server(tmp_path_factory.mktemp("webdav")) as server:
        yield server


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws(tmp_path_factory.mktemp("aws")) as server:
        yield server


@pytest.fixture
def bundle() -> Bundle:
    return new_bundle("shop.example.test")


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_PASSWORD", PASSWORD)


def _vault(server: VaultServer, **fields: Any) -> VaultKv:
    return VaultKv(**{"url": server.url, "token": SecretStr(server.token), **fields})


def test_vault_other_fields_of_the_secret_stay(vault: VaultServer, bundle: Bundle) -> None:
    """A secret often holds more than the certificate."""
    vault.api("POST", "secret/data/mixed", data={"note": "ours", "certificate": "old"})

    with _vault(vault).connect() as target:
        target.deliver(replace(SITE, id="mixed"), bundle)

    found = vault.api("GET", "secret/data/mixed")["data"]["data"]
    assert found["note"] == "ours"
    assert found["certificate"] == bundle.chain.pems[0]


def test_vault_a_deleted_secret_is_written_again(vault: VaultServer, bundle: Bundle) -> None:
    """A deleted version still counts for the check-and-set."""
    site = replace(SITE, id="deep/er/deleted")
    with _vault(vault).connect() as target:
        target.deliver(site, bundle)
        vault.api("DELETE", "secret/data/deep/er/deleted")
        assert target.delivered(site) is None

        target.deliver(site, bundle)

        assert target.delivered(site) == bundle.chain.fingerprint


def test_vault_names_of_fields_can_be_chosen(vault: VaultServer, bundle: Bundle) -> None:
    """Consumers that exist want the names they know."""
    names = {"cert": "crt", "key": "{name}.key", "chain": "", "fullchain": ""}
    site = replace(SITE, id="named", settings={"files": names})

    with _vault(vault).connect() as target:
        target.deliver(site, bundle)
        assert target.delivered(site) == bundle.chain.fingerprint

    found = vault.api("GET", "secret/data/named")["data"]["data"]
    assert set(found) == {"crt", "shop.example.test.key"}


def test_vault_holds_a_container_as_base64(vault: VaultServer, bundle: Bundle) -> None:
    """Java servers fetch their key store from there."""
    settings = {"format": "pkcs12", "password": "env:STORE_PASSWORD"}
    site = replace(SITE, id="container", settings=settings)

    with _vault(vault).connect() as target:
        target.deliver(site, bundle)
        assert "already" in target.deliver(site, bundle)

    text = vault.api("GET", "secret/data/container")["data"]["data"]["keystore"]
    store = {Part.STORE: base64.b64decode(text)}
    assert load(store, Format.PKCS12, password=PASSWORD).chain == bundle.chain


def test_vault_a_missing_permission_is_no_wrong_token(vault: VaultServer, bundle: Bundle) -> None:
    """The server answers 403 to both; people have to do different things."""
    token = vault.api("POST", "auth/token/create", policies=["default"])["auth"]["client_token"]

    with (
        _vault(vault, token=SecretStr(token)).connect() as target,
        pytest.raises(PermissionRefused) as caught,
    ):
        target.deliver(SITE, bundle)

    assert "secret/data" in caught.value.remedy


def test_vault_an_engine_of_another_version_is_told(vault: VaultServer) -> None:
    """Version 1 takes the same requests and stores them in another form."""
    vault.api("POST", "sys/mounts/old", type="kv", options={"version": "1"})

    with _vault(vault, mount="old").connect() as target, pytest.raises(InvalidRequest) as caught:
        target.check()

    assert "version 2" in str(caught.value)


def test_vault_a_role_leaves_no_token_behind(vault: VaultServer, bundle: Bundle) -> None:
    """A token for every renewal would pile up until the server is full of leases."""
    vault.api("POST", "sys/auth/approle", type="approle")
    policy = 'path "secret/data/*" { capabilities = ["create", "read", "update"] }'
    vault.api("PUT", "sys/policies/acl/all-secrets", policy=policy)
    vault.api("POST", "auth/approle/role/d", token_policies=["all-secrets"])
    role = vault.api("GET", "auth/approle/role/d/role-id")["data"]["role_id"]
    secret = vault.api("POST", "auth/approle/role/d/secret-id", metadata="{}")["data"]["secret_id"]
    before = vault.api("LIST", "auth/token/accessors")["data"]["keys"]
    block = _vault(vault, token=None, role_id=role, secret_id=SecretStr(secret))

    with block.connect() as target:
        target.deliver(replace(SITE, id="by-role"), bundle)
        during = vault.api("LIST", "auth/token/accessors")["data"]["keys"]

    assert len(during) == len(before) + 1
    assert set(before) == set(vault.api("LIST", "auth/token/accessors")["data"]["keys"])


@pytest.mark.parametrize("name", ["../up", "a//b", "", "a/../../b", "x\n"])
def test_no_name_leaves_its_place(vault: VaultServer, bundle: Bundle, name: str) -> None:
    """An endpoint's name is no way into other people's secrets."""
    with _vault(vault, prefix="apps").connect() as target, pytest.raises(InvalidRequest):
        target.deliver(replace(SITE, id=name), bundle)


def test_webdav_a_folder_that_is_missing_is_told(webdav: WebDav, bundle: Bundle) -> None:
    """The server answers 409, which is not somebody else's change."""
    block = HttpPut(url=webdav.url, username=webdav.username, password=SecretStr(webdav.password))

    with block.connect() as target, pytest.raises(Conflict) as caught:
        target.deliver(replace(SITE, id="no/such/folder.pem"), bundle)

    assert "folder" in caught.value.remedy


def test_http_a_header_can_carry_the_credential(bundle: Bundle) -> None:
    """Artifact stores want a token in a header of their own."""
    block_fields = {"header": "X-Token", "header_value": SecretStr("lab-header-secret")}
    with scripted(http_reply(404)) as server:
        block = HttpPut(url=f"http://127.0.0.1:{server.port}/certs", **block_fields)
        with block.connect() as target, pytest.raises(NotFound):
            target.deliver(SITE, bundle)

    assert [b"X-Token: lab-header-secret" in request for request in server.requests] == [True] * 2
    assert server.requests[1].startswith(b"PUT /certs/shop HTTP/1.1")
    assert b"If-None-Match: *" in server.requests[1]


@pytest.mark.parametrize("form", ["pem", "der"])
def test_several_files_are_not_one_object(webdav: WebDav, bundle: Bundle, form: str) -> None:
    """Two objects cannot be replaced together, so they are not offered."""
    block = HttpPut(url=webdav.url, username=webdav.username, password=SecretStr(webdav.password))

    with block.connect() as target, pytest.raises(InvalidRequest, match="as one"):
        target.deliver(replace(SITE, settings={"format": form}), bundle)


def _aws_fields(server: Aws) -> dict[str, Any]:
    return {
        "region": REGION,
        "endpoint_url": server.url,
        "access_key_id": server.access_key_id,
        "secret_access_key": SecretStr(server.secret_access_key),
    }


def test_s3_a_missing_bucket_is_told(amazon: Aws, bundle: Bundle) -> None:
    """A missing object is the first delivery; a missing bucket is a mistake."""
    block = S3Bucket(bucket="no-such-bucket", **_aws_fields(amazon))

    with block.connect() as target, pytest.raises(NotFound, match="NoSuchBucket"):
        target.deliver(SITE, bundle)


def test_s3_holds_containers(amazon: Aws, bundle: Bundle) -> None:
    """A consumer opens it with the password that it knows."""
    client = amazon.client("s3")
    client.create_bucket(
        Bucket="containers", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    settings = {"format": "jks", "password": "env:STORE_PASSWORD"}
    site = replace(SITE, id="a b/shop.jks", settings=settings)

    with S3Bucket(bucket="containers", **_aws_fields(amazon)).connect() as target:
        target.deliver(site, bundle)
        assert "already" in target.deliver(site, bundle)

    content = client.get_object(Bucket="containers", Key="a b/shop.jks")["Body"].read()
    assert load({Part.STORE: content}, Format.JKS, password=PASSWORD).chain == bundle.chain


def test_secrets_manager_other_fields_stay(amazon: Aws, bundle: Bundle) -> None:
    """A secret often holds more than the certificate."""
    client = amazon.client("secretsmanager")
    client.create_secret(Name="mixed", SecretString='{"note": "ours"}')

    with AwsSecretsManager(**_aws_fields(amazon)).connect() as target:
        target.deliver(replace(SITE, id="mixed"), bundle)

    found = client.get_secret_value(SecretId="mixed", VersionStage="AWSCURRENT")
    assert json.loads(found["SecretString"])["note"] == "ours"
    before = client.get_secret_value(SecretId="mixed", VersionStage="AWSPREVIOUS")
    assert before["SecretString"] == '{"note": "ours"}'


def test_secrets_manager_a_secret_of_another_kind_is_not_overwritten(
    amazon: Aws, bundle: Bundle
) -> None:
    """A password of the same name would be gone."""
    amazon.client("secretsmanager").create_secret(Name="text", SecretString="hunter2")

    with (
        AwsSecretsManager(**_aws_fields(amazon)).connect() as target,
        pytest.raises(UnexpectedReply) as caught,
    ):
        target.deliver(replace(SITE, id="text"), bundle)

    assert "hunter2" not in str(caught.value)


def test_secrets_manager_refuses_names_it_cannot_hold(amazon: Aws, bundle: Bundle) -> None:
    """The service's own message does not say which character it was."""
    with (
        AwsSecretsManager(**_aws_fields(amazon)).connect() as target,
        pytest.raises(InvalidRequest, match="not a name"),
    ):
        target.deliver(replace(SITE, id="a b"), bundle)


def test_kubernetes_labels_and_other_data_stay(bundle: Bundle) -> None:
    """Controllers find a secret by its labels; some keep a CA beside the certificate."""
    with served(Kubernetes()) as api:
        data = dict.fromkeys(("tls.crt", "tls.key", "ca.crt"), "")
        api.put("shops", "tls", data, metadata={"labels": {"app": "shop"}})
        block = KubernetesSecret(url=api.url, token=SecretStr(api.token))
        with block.connect() as target:
            target.deliver(replace(SITE, id="shops/tls"), bundle)
        secret = api.secrets["shops", "tls"]

    assert secret["metadata"]["labels"] == {"app": "shop"}
    assert secret["data"]["ca.crt"] == ""
    assert base64.b64decode(secret["data"]["tls.crt"]).decode() == bundle.chain.text


def test_kubernetes_a_secret_of_another_type_is_left_alone(bundle: Bundle) -> None:
    """The type of a secret cannot be changed."""
    with served(Kubernetes()) as api:
        api.put("default", "shop", {"password": ""}, type="Opaque")
        block = KubernetesSecret(url=api.url, token=SecretStr(api.token))
        with block.connect() as target, pytest.raises(Conflict, match="Opaque"):
            target.deliver(SITE, bundle)


def test_kubernetes_an_immutable_secret_is_told(bundle: Bundle) -> None:
    """Nothing but a new name helps there."""
    with served(Kubernetes()) as api:
        api.put("default", "shop", dict.fromkeys(("tls.crt", "tls.key"), ""), immutable=True)
        block = KubernetesSecret(url=api.url, token=SecretStr(api.token))
        with block.connect() as target, pytest.raises(Rejected, match="immutable"):
            target.deliver(SITE, bundle)


@pytest.mark.parametrize("name", ["Shop", "a/b/c", "-a", "a_b", "x" * 254, "web/../shop"])
def test_kubernetes_names_are_checked_first(bundle: Bundle, name: str) -> None:
    """A name goes into the path of the request."""
    with served(Kubernetes()) as api:
        block = KubernetesSecret(url=api.url, token=SecretStr(api.token))
        with block.connect() as target, pytest.raises(InvalidRequest):
            target.deliver(replace(SITE, id=name), bundle)


def _azure(api: KeyVault) -> AzureKeyVault:
    return AzureKeyVault(
        vault_url=api.url,
        authority_url=api.url,
        tenant_id="t",
        client_id="c",
        client_secret=SecretStr(api.client_secret),
    )


def test_azure_a_deleted_certificate_can_be_recovered(bundle: Bundle) -> None:
    """Its name stays taken for weeks; the remedy is not obvious."""
    with served(KeyVault(deleted={"shop"})) as api:
        with _azure(api).connect() as target, pytest.raises(Conflict) as caught:
            target.deliver(SITE, bundle)

        assert "purge" in caught.value.remedy


@pytest.mark.parametrize("name", ["a.b", "a/b", "x" * 128, "", "a_b"])
def test_azure_names_are_checked_first(bundle: Bundle, name: str) -> None:
    """The vault takes letters, digits and dashes only."""
    with (
        served(KeyVault()) as api,
        _azure(api).connect() as target,
        pytest.raises(InvalidRequest, match="not a name"),
    ):
        target.deliver(replace(SITE, id=name), bundle)


def test_azure_one_token_serves_one_delivery(bundle: Bundle, tmp_path: Path) -> None:
    """Token requests are throttled more than the vault is."""
    with served(KeyVault()) as api:
        with _azure(api).connect() as target:
            target.deliver(SITE, bundle)
            target.delivered(SITE)

        assert len(api.tokens) == 1
        policy = api.versions["shop"][0]["shown"]["policy"]
        assert policy["key_props"] == {
            "exportable": True,
            "reuse_key": False,
            "kty": "EC",
            "crv": "P-256",
        }


def test_azure_our_requests_are_those_of_its_own_client(bundle: Bundle, tmp_path: Path) -> None:
    """The vault is a fake; that Azure's client works with it keeps it true."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trust, store = tmp_path / "ca.pem", tmp_path / "store.pfx"
    authority.cert_pem.write_to_path(str(trust))
    store.write_bytes(export(bundle, Format.PKCS12, password=PASSWORD)[Part.STORE])
    python = own_environment("azure-keyvault") / "bin" / "python"
    program = Path(__file__).parents[2] / "support" / "run_key_vault_client.py"
    with served(KeyVault(tokens={"token-of-theirs"}), tls) as api:
        block = _azure(api).model_copy(update={"ca_bundle": str(trust)})
        with block.connect() as target:
            target.deliver(replace(SITE, id="by-us"), bundle)
            argv = [api.url, str(trust), "token-of-theirs", "by-them", "by-us", str(store)]
            done = subprocess.run(
                [str(python), str(program), *argv, PASSWORD], capture_output=True, text=True
            )
            found = target.delivered(replace(SITE, id="by-them"))

    assert done.returncode == 0, done.stderr
    assert found == bundle.chain.fingerprint
    assert json.loads(done.stdout) == {
        "imported": "by-them",
        "cer": base64.b64encode(bundle.chain.leaf.public_bytes(Encoding.DER)).decode(),
        "content_type": "application/x-pkcs12",
        "enabled": True,
    }
