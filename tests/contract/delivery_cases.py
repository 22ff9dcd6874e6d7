"""The delivery targets under contract, and a reference that shows what the contract means.

A case knows how to start the other side, how to make the target talk to it,
and how a consumer reads what was delivered. A new target adds a ``Case`` to
:data:`CASES`; the promises are in ``test_delivery_target.py``.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr

from blocks._base import DeliveryBlock, open_reference
from blocks.delivery.aws_secrets_manager import AwsSecretsManager
from blocks.delivery.azure_keyvault import AzureKeyVault
from blocks.delivery.http_put import HttpPut
from blocks.delivery.kubernetes import KubernetesSecret
from blocks.delivery.s3 import S3Bucket
from blocks.delivery.vault_kv import VaultKv
from blocks.hosts.local import LocalMachine
from blocks.hosts.ssh import SshMachine
from certrail.connectors import DeliveryTarget, Host
from certrail.delivery.directory import DirectoryDelivery
from certrail.errors import AuthenticationFailed, InvalidRequest, NotFound
from certrail.model import Bundle, Chain, Fingerprint, Site
from certrail.private_key import PrivateKeyPem
from certrail.remote.ssh_pool import POOL
from tests.support.cloud_api import served
from tests.support.delivery_servers import VaultServer, WebDav, vault_server, webdav_server
from tests.support.key_vault_api import KeyVault
from tests.support.kubernetes_api import Kubernetes
from tests.support.moto_server import REGION, Aws, aws
from tests.support.scripted import Script, http_reply
from tests.support.sshd import sshd

GAPS = frozenset({"network", "race", "credential"})
"""What a case may lack: an HTTP service under it, versions that a concurrent writer would
change, a credential of its own."""

Open = Callable[[], AbstractContextManager[DeliveryTarget]]
_fresh = itertools.count()


class World(ABC):
    """A running other side.

    Attributes:
        open: with good settings.
        intruder: with a wrong credential.
        secrets: texts that may never be seen.
        port: of the service, 0 if there is none.
        fields: the block's good settings; empty where there is no block.
    """

    open: Open
    intruder: Open
    secrets: tuple[str, ...] = ()
    port: int = 0
    fields: Mapping[str, Any] = MappingProxyType({})

    def site(self) -> Site:
        """Return a place that nothing was delivered to yet."""
        name = f"shop-{next(_fresh)}"
        return Site(id=name, names=(f"{name}.example.test",), settings=self.settings(name))

    def settings(self, name: str) -> Mapping[str, Any]:
        """Return the endpoint's ``server`` mapping for the place *name*."""
        return {}

    @abstractmethod
    def read(self, site: Site) -> Bundle:
        """Return what a consumer finds, read at one moment; NotFound if nothing is there."""

    @abstractmethod
    def snapshot(self) -> object:
        """Return all that is on the other side, versions included, to compare by."""

    @abstractmethod
    def tamper(self, site: Site, bundle: Bundle) -> None:
        """Put *bundle* there behind the target's back, in the form it is delivered in."""

    def rest(self, site: Site) -> None:
        """Let some time pass for what was stored, where that makes a difference."""
        return

    def at(self, port: int) -> Open:
        """Return the target pointing at another port of this machine, with a deadline of 1 s."""
        raise AssertionError("declare that the network is lacking")

    def writes(self, method: str, path: str) -> bool:
        """Return whether a request for this is the one that stores a certificate."""
        raise AssertionError("declare that the network is lacking")


@dataclass(frozen=True)
class Case:
    """A target under contract.

    Attributes:
        block: the block class; None for a reference and for what is reached through a host.
        world: starts the other side in a folder.
        nonsense: replies outside the protocol.
        throttled: a reply that asks for seven seconds of peace.
        echo: a refusal that quotes the whole request.
        lacks: declared gaps, of :data:`GAPS`.
    """

    name: str
    block: type[DeliveryBlock] | None
    world: Callable[[Path], AbstractContextManager[World]]
    nonsense: Sequence[Script] = ()
    throttled: Script = b""
    echo: Script = b""
    lacks: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.name


class DirectoryWorld(World):
    """A directory on this machine, reached through *host*."""

    def __init__(self, folder: Path, host: Callable[[], AbstractContextManager[Host]]) -> None:
        self.folder = folder
        self.folder.mkdir()
        self._host = host
        self.open = self._open

    def settings(self, name: str) -> Mapping[str, Any]:
        return {"kind": "directory", "path": str(self.folder / name)}

    @contextmanager
    def _open(self) -> Iterator[DeliveryTarget]:
        with self._host() as host:
            yield DirectoryDelivery(host, open_reference)

    def read(self, site: Site) -> Bundle:
        # A careful consumer finds out where the files are, then reads all of them there.
        try:
            place = (self.folder / site.id / "fullchain.pem").resolve(strict=True).parent
            return Bundle(
                Chain.from_pem((place / "fullchain.pem").read_text()),
                PrivateKeyPem((place / "privkey.pem").read_bytes()),
            )
        except FileNotFoundError as exc:
            raise NotFound(str(exc)) from exc

    def snapshot(self) -> object:
        return {
            str(path): (path.readlink() if path.is_symlink() else path.stat().st_ino)
            for path in self.folder.rglob("*")
        }

    def tamper(self, site: Site, bundle: Bundle) -> None:
        assert bundle.key
        folder, pems = self.folder / site.id, bundle.chain.pems
        folder.mkdir(exist_ok=True)
        for name, content in {
            "fullchain.pem": bundle.chain.text.encode(),
            "cert.pem": pems[0].encode(),
            "chain.pem": "".join(pems[1:]).encode(),
            "privkey.pem": bundle.key.reveal(),
        }.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(content)


@contextmanager
def _local_directory(folder: Path) -> Iterator[World]:
    yield DirectoryWorld(folder / "there", LocalMachine().connect)


@contextmanager
def _ssh_directory(folder: Path) -> Iterator[World]:
    with ExitStack() as stack:
        server = stack.enter_context(sshd(folder / "sshd"))
        stack.callback(POOL.close)
        block = SshMachine(
            host="127.0.0.1",
            port=server.port,
            username="root",
            private_key_file=str(server.key_file),
            known_hosts_file=str(server.known_hosts),
        )
        yield DirectoryWorld(folder / "there", block.connect)


class VaultWorld(World):
    """OpenBao with a policy of its own for each credential."""

    def __init__(self, server: VaultServer, *, approle: bool = False) -> None:
        self.server = server
        self.port = server.port
        policy = 'path "secret/data/apps/*" { capabilities = ["create", "read", "update"] }'
        server.api("PUT", "sys/policies/acl/deliver", policy=policy)
        made = server.api("POST", "auth/token/create", policies=["deliver"])
        token = made["auth"]["client_token"]
        self.fields: dict[str, Any] = {
            "url": server.url,
            "prefix": "apps",
            "token": SecretStr(token),
        }
        wrong: dict[str, Any] = {"token": SecretStr("s.wrong-token-of-nobody")}
        self.secrets = (token, "s.wrong-token-of-nobody")
        if approle:
            server.api("POST", "sys/auth/approle", type="approle")
            server.api("POST", "auth/approle/role/deliver", token_policies=["deliver"])
            role = server.api("GET", "auth/approle/role/deliver/role-id")["data"]["role_id"]
            secret = server.api("POST", "auth/approle/role/deliver/secret-id", metadata="{}")
            self.fields |= {
                "token": None,
                "role_id": role,
                "secret_id": SecretStr(secret["data"]["secret_id"]),
            }
            wrong = {"secret_id": SecretStr("00000000-wrong-secret-id")}
            self.secrets = (secret["data"]["secret_id"], "00000000-wrong-secret-id")
        self.open = VaultKv(**self.fields).connect
        self.intruder = VaultKv(**{**self.fields, **wrong}).connect

    def at(self, port: int) -> Open:
        return VaultKv(**{**self.fields, "url": f"http://127.0.0.1:{port}", "timeout": 2}).connect

    def writes(self, method: str, path: str) -> bool:
        return method == "POST" and "/data/" in path

    def read(self, site: Site) -> Bundle:
        found = self.server.api("GET", f"secret/data/apps/{site.id}")
        if not found:
            raise NotFound(site.id)
        fields = found["data"]["data"]
        return Bundle(
            Chain.from_pem(fields["fullchain"]), PrivateKeyPem(fields["private_key"].encode())
        )

    def snapshot(self) -> object:
        names = self.server.api("GET", "secret/metadata/apps?list=true")
        return {
            name: self.server.api("GET", f"secret/metadata/apps/{name}")["data"]["versions"]
            for name in names.get("data", {}).get("keys", ())
        }

    def tamper(self, site: Site, bundle: Bundle) -> None:
        self.server.api("POST", f"secret/data/apps/{site.id}", data=fields_of(bundle))


@contextmanager
def _vault(folder: Path) -> Iterator[World]:
    with vault_server(folder) as server:
        yield VaultWorld(server)


@contextmanager
def _vault_approle(folder: Path) -> Iterator[World]:
    with vault_server(folder) as server:
        yield VaultWorld(server, approle=True)


class WebDavWorld(World):
    """Apache with mod_dav."""

    def __init__(self, server: WebDav) -> None:
        self.server = server
        self.port = server.port
        self.fields: dict[str, Any] = {
            "url": server.url,
            "username": server.username,
            "password": SecretStr(server.password),
        }
        self.secrets = (server.password, "lab-wrong-password")
        self.open = HttpPut(**self.fields).connect
        self.intruder = HttpPut(
            **{**self.fields, "password": SecretStr("lab-wrong-password")}
        ).connect

    def at(self, port: int) -> Open:
        url = f"http://127.0.0.1:{port}/certs"
        return HttpPut(**{**self.fields, "url": url, "timeout": 2}).connect

    def writes(self, method: str, path: str) -> bool:
        return method == "PUT"

    def read(self, site: Site) -> Bundle:
        return bundle_of((self.server.folder / site.id).read_bytes())

    def snapshot(self) -> object:
        return {path.name: path.stat().st_mtime_ns for path in self.server.folder.glob("shop*")}

    def rest(self, site: Site) -> None:
        # Apache calls the tag of a file weak while it is younger than a second.
        os.utime(self.server.folder / site.id, (1_700_000_000, 1_700_000_000))

    def tamper(self, site: Site, bundle: Bundle) -> None:
        assert bundle.key
        path = self.server.folder / site.id
        beside = path.with_name(f".{path.name}")
        beside.write_bytes(bundle.chain.text.encode() + bundle.key.reveal())
        beside.chmod(0o666)
        beside.rename(path)


@contextmanager
def _webdav(folder: Path) -> Iterator[World]:
    with webdav_server(folder) as server:
        yield WebDavWorld(server)


class S3World(World):
    """A bucket in moto."""

    def __init__(self, server: Aws) -> None:
        self.port = server.port
        self._admin = server.client("s3")
        self._admin.create_bucket(
            Bucket="certs", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        user, secret = server.user("deliverer", "s3:GetObject", "s3:PutObject", "s3:ListBucket")
        server.enforce()
        self.fields: dict[str, Any] = {
            "bucket": "certs",
            "prefix": "tls/",
            "region": REGION,
            "endpoint_url": server.url,
            "access_key_id": user,
            "secret_access_key": SecretStr(secret),
        }
        wrong = {"access_key_id": "AKIAWRONGEXAMPLE0000"}
        self.secrets = (secret,)
        self.open = S3Bucket(**self.fields).connect
        self.intruder = S3Bucket(**{**self.fields, **wrong}).connect

    def at(self, port: int) -> Open:
        url = f"http://127.0.0.1:{port}"
        return S3Bucket(**{**self.fields, "endpoint_url": url, "timeout": 2}).connect

    def writes(self, method: str, path: str) -> bool:
        return method == "PUT"

    def read(self, site: Site) -> Bundle:
        found = self._admin.get_object(Bucket="certs", Key=f"tls/{site.id}")
        return bundle_of(found["Body"].read())

    def snapshot(self) -> object:
        found = self._admin.list_objects_v2(Bucket="certs").get("Contents", [])
        return {one["Key"]: (one["ETag"], one["LastModified"]) for one in found}

    def tamper(self, site: Site, bundle: Bundle) -> None:
        assert bundle.key
        body = bundle.chain.text.encode() + bundle.key.reveal()
        self._admin.put_object(Bucket="certs", Key=f"tls/{site.id}", Body=body)


@contextmanager
def _s3(folder: Path) -> Iterator[World]:
    with aws(folder) as server:
        yield S3World(server)


class SecretsManagerWorld(World):
    """Secrets Manager in moto."""

    def __init__(self, server: Aws) -> None:
        self.port = server.port
        self._admin = server.client("secretsmanager")
        user, secret = server.user(
            "deliverer",
            "secretsmanager:CreateSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
        )
        server.enforce()
        self.fields: dict[str, Any] = {
            "prefix": "tls/",
            "region": REGION,
            "endpoint_url": server.url,
            "access_key_id": user,
            "secret_access_key": SecretStr(secret),
        }
        wrong = {"access_key_id": "AKIAWRONGEXAMPLE0000"}
        self.secrets = (secret,)
        self.open = AwsSecretsManager(**self.fields).connect
        self.intruder = AwsSecretsManager(**{**self.fields, **wrong}).connect

    def at(self, port: int) -> Open:
        url = f"http://127.0.0.1:{port}"
        return AwsSecretsManager(**{**self.fields, "endpoint_url": url, "timeout": 2}).connect

    def writes(self, method: str, path: str) -> bool:
        return path.endswith(("CreateSecret", "UpdateSecretVersionStage"))

    def read(self, site: Site) -> Bundle:
        found = self._admin.get_secret_value(SecretId=f"tls/{site.id}", VersionStage="AWSCURRENT")
        fields = json.loads(found["SecretString"])
        return Bundle(
            Chain.from_pem(fields["fullchain"]), PrivateKeyPem(fields["private_key"].encode())
        )

    def snapshot(self) -> object:
        found = self._admin.list_secrets()["SecretList"]
        return {one["Name"]: one["SecretVersionsToStages"] for one in found}

    def tamper(self, site: Site, bundle: Bundle) -> None:
        text = json.dumps(fields_of(bundle))
        name = f"tls/{site.id}"
        if name in {one["Name"] for one in self._admin.list_secrets()["SecretList"]}:
            self._admin.put_secret_value(SecretId=name, SecretString=text)
        else:
            self._admin.create_secret(Name=name, SecretString=text)


@contextmanager
def _secrets_manager(folder: Path) -> Iterator[World]:
    with aws(folder) as server:
        yield SecretsManagerWorld(server)


class KubernetesWorld(World):
    """A strict fake of the Kubernetes API."""

    def __init__(self, api: Kubernetes) -> None:
        self._api = api
        self.port = api.port
        self.fields: dict[str, Any] = {
            "url": api.url,
            "namespace": "web",
            "token": SecretStr(api.token),
        }
        self.secrets = (api.token, "lab-token-of-nobody")
        self.open = KubernetesSecret(**self.fields).connect
        wrong = {"token": SecretStr("lab-token-of-nobody")}
        self.intruder = KubernetesSecret(**{**self.fields, **wrong}).connect

    def at(self, port: int) -> Open:
        url = f"http://127.0.0.1:{port}"
        return KubernetesSecret(**{**self.fields, "url": url, "timeout": 2}).connect

    def writes(self, method: str, path: str) -> bool:
        return method in ("POST", "PATCH")

    def read(self, site: Site) -> Bundle:
        data = self._api.secrets["web", site.id]["data"]
        return Bundle(
            Chain.from_pem(base64.b64decode(data["tls.crt"]).decode()),
            PrivateKeyPem(base64.b64decode(data["tls.key"])),
        )

    def snapshot(self) -> object:
        return dict(self._api.secrets)

    def tamper(self, site: Site, bundle: Bundle) -> None:
        assert bundle.key
        data = {"tls.crt": bundle.chain.text.encode(), "tls.key": bundle.key.reveal()}
        encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
        self._api.put("web", site.id, encoded)


@contextmanager
def _kubernetes(_: Path) -> Iterator[World]:
    with served(Kubernetes()) as api:
        yield KubernetesWorld(api)


class KeyVaultWorld(World):
    """A strict fake of Azure Key Vault and its authority."""

    def __init__(self, api: KeyVault, server: Mapping[str, Any]) -> None:
        self._api = api
        self._server = server
        self.port = api.port
        self.fields: dict[str, Any] = {
            "vault_url": api.url,
            "authority_url": api.url,
            "tenant_id": "12345678-1234-1234-1234-123456789012",
            "client_id": "87654321-1234-1234-1234-123456789012",
            "client_secret": SecretStr(api.client_secret),
        }
        self.secrets = (api.client_secret, "lab-wrong-client-secret")
        self.open = AzureKeyVault(**self.fields).connect
        wrong = {"client_secret": SecretStr("lab-wrong-client-secret")}
        self.intruder = AzureKeyVault(**{**self.fields, **wrong}).connect

    def settings(self, name: str) -> Mapping[str, Any]:
        return self._server

    def at(self, port: int) -> Open:
        url = f"http://127.0.0.1:{port}"
        there = {"vault_url": url, "authority_url": url, "timeout": 2}
        return AzureKeyVault(**{**self.fields, **there}).connect

    def writes(self, method: str, path: str) -> bool:
        return method == "POST" and "/import" in path

    def read(self, site: Site) -> Bundle:
        found = self._api.versions[site.id][-1]
        key = found["key"].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Bundle(Chain.of(found["chain"]), PrivateKeyPem(key))

    def snapshot(self) -> object:
        return {name: [v["shown"]["id"] for v in all] for name, all in self._api.versions.items()}

    def tamper(self, site: Site, bundle: Bundle) -> None:
        with AzureKeyVault(**self.fields).connect() as target:
            target.deliver(site, bundle)


@contextmanager
def _key_vault(_: Path) -> Iterator[World]:
    with served(KeyVault()) as api:
        yield KeyVaultWorld(api, {})


@contextmanager
def _key_vault_pem(_: Path) -> Iterator[World]:
    with served(KeyVault()) as api:
        yield KeyVaultWorld(api, {"format": "pem", "exportable": False})


def fields_of(bundle: Bundle) -> dict[str, str]:
    """Return the usual fields of a secret."""
    assert bundle.key
    return {
        "certificate": bundle.chain.pems[0],
        "chain": "".join(bundle.chain.pems[1:]),
        "fullchain": bundle.chain.text,
        "private_key": bundle.key.reveal().decode(),
    }


def bundle_of(text: bytes) -> Bundle:
    """Return what a consumer reads out of one PEM text."""
    start = text.index(b"-----BEGIN PRIVATE KEY-----")
    return Bundle(Chain.from_pem(text.decode()), PrivateKeyPem(text[start:]))


class ReferenceTarget(DeliveryTarget):
    """A store in memory that keeps every promise."""

    def __init__(self, world: ReferenceWorld, *, known: bool = True) -> None:
        self.world = world
        self._known = known

    def check(self) -> str:
        """Say that it works."""
        self.enter()
        return "the memory works"

    def delivered(self, site: Site) -> Fingerprint | None:
        """Look it up."""
        self.enter()
        found = self.world.stored.get(site.id)
        return found[-1].chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        """Add a version."""
        bundle.must_match()
        if site.settings:
            raise InvalidRequest("nothing can be set", remedy="Leave it out.")
        if self.delivered(site) != bundle.chain.fingerprint:
            self.put(site, bundle)
        return "stored in memory"

    def put(self, site: Site, bundle: Bundle) -> None:
        """Store it in one step."""
        self.world.stored[site.id] = (*self.world.stored.get(site.id, ()), bundle)

    def enter(self) -> None:
        """Refuse whom the memory does not know."""
        if not self._known:
            raise AuthenticationFailed("the memory does not know you")


class ReferenceWorld(World):
    """Versions in memory, reached through *target*."""

    def __init__(self, target: type[ReferenceTarget] = ReferenceTarget) -> None:
        self.stored: dict[str, tuple[Bundle, ...]] = {}
        self._target = target
        self.open = lambda: self._made(known=True)
        self.intruder = lambda: self._made(known=False)

    @contextmanager
    def _made(self, *, known: bool) -> Iterator[DeliveryTarget]:
        yield self._target(self, known=known)

    def read(self, site: Site) -> Bundle:
        if site.id not in self.stored:
            raise NotFound(site.id)
        return self.stored[site.id][-1]

    def snapshot(self) -> object:
        return dict(self.stored)

    def tamper(self, site: Site, bundle: Bundle) -> None:
        self.stored[site.id] = (*self.stored.get(site.id, ()), bundle)


@contextmanager
def _reference(_: Path) -> Iterator[World]:
    yield ReferenceWorld()


def _echo(request: bytes) -> bytes:
    return http_reply(400, body=b"cannot do " + request)


_NOT_JSON: tuple[Script, ...] = (
    http_reply(200, body="<html>Welcome to nginx!</html>"),
    http_reply(200, body='{"surprise": []}'),
    http_reply(204),
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
)

CASES: tuple[Case, ...] = (
    Case("directory-local", None, _local_directory, lacks=GAPS),
    Case("directory-ssh", None, _ssh_directory, lacks=GAPS),
    Case(
        "vault-kv",
        VaultKv,
        _vault,
        nonsense=_NOT_JSON,
        throttled=http_reply(429, {"Retry-After": "7"}, '{"errors":["rate limit"]}'),
        echo=_echo,
    ),
    Case(
        "vault-kv-approle",
        VaultKv,
        _vault_approle,
        nonsense=_NOT_JSON,
        throttled=http_reply(429, {"Retry-After": "7"}, '{"errors":["rate limit"]}'),
        echo=_echo,
    ),
    Case(
        "http-put",
        HttpPut,
        _webdav,
        nonsense=(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", http_reply(302, {"Location": "/login"})),
        throttled=http_reply(429, {"Retry-After": "7"}),
        echo=_echo,
    ),
    Case(
        "s3",
        S3Bucket,
        _s3,
        # The SDK takes a page instead of XML for a passing fault of S3.
        nonsense=_NOT_JSON[2:],
        throttled=http_reply(
            503,
            {"Retry-After": "7", "Content-Type": "application/xml"},
            "<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>",
        ),
        echo=_echo,
    ),
    Case(
        "aws-secrets-manager",
        AwsSecretsManager,
        _secrets_manager,
        nonsense=_NOT_JSON,
        throttled=http_reply(400, {"Retry-After": "7"}, '{"__type": "ThrottlingException"}'),
        echo=_echo,
    ),
    Case(
        "kubernetes",
        KubernetesSecret,
        _kubernetes,
        nonsense=_NOT_JSON,
        throttled=http_reply(429, {"Retry-After": "7"}, '{"kind": "Status"}'),
        echo=_echo,
    ),
    *(
        Case(
            name,
            AzureKeyVault,
            world,
            nonsense=_NOT_JSON,
            throttled=http_reply(429, {"Retry-After": "7"}, '{"error": {"code": "Throttled"}}'),
            echo=_echo,
            lacks=frozenset({"race"}),
        )
        for name, world in (("azure-keyvault", _key_vault), ("azure-keyvault-pem", _key_vault_pem))
    ),
)

REFERENCE = Case("reference", None, _reference, lacks=frozenset({"network", "race"}))
