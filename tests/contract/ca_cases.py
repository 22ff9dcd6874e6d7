"""The CAs under contract, and a reference that shows what the contract means.

A case knows how to start the other side and how to make the block talk to it.
A new CA adds a ``Case`` to :data:`CASES`; the promises are in ``test_ca.py``.
"""

from __future__ import annotations

import base64
import itertools
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from blocks._base import CaBlock
from blocks.ca.acme import AcmeCa
from blocks.ca.aws_pca import AwsPca
from blocks.ca.certcentral import CertCentral
from blocks.ca.command import CommandCa
from blocks.ca.digicert_one import DigicertOne
from blocks.ca.local import LocalAuthority
from blocks.ca.vault import VaultCa
from certrail.acme import ca as acme
from certrail.connectors import CertificateAuthority, FindsOrders
from certrail.errors import AuthenticationFailed, NotFound, Rejected
from certrail.model import (
    Chain,
    Challenge,
    Csr,
    Order,
    OrderKey,
    OrderSpec,
    OrderStatus,
    RevocationReason,
    serial_text,
    subject_names,
)
from certrail.wait import Pending
from certrail.x509.csr import read_csr
from tests.support import ca_program
from tests.support.acme_client import FileKeeper
from tests.support.acme_servers import OpenBao, openbao_ca
from tests.support.certcentral_api import CertCentralApi, certcentral_api
from tests.support.digicert_one_api import DigicertOneApi, digicert_one_api
from tests.support.http_relay import Relay, relay
from tests.support.moto_server import Aws, aws
from tests.support.pebble import EAB_KEYS, ChallengeServer, Pebble, challenge_server, pebble
from tests.support.scripted import Script, http_reply

ZONE = "example.test"
REFUSED = "www.foreign.test"
GAPS = frozenset(
    {
        *("network", "stall", "throttling", "retry-date", "credential", "refusal", "relay"),
        *("orders", "remembers", "finding", "validation"),
    }
)
"""What a case may lack.

* ``network``: there is none under it.
* ``stall``: its deadline cannot be set; its own tests have one with a shorter name.
* ``throttling``: it has no way to say "come back later".
* ``retry-date``: its "come back later" is never a date.
* ``credential``: the server of the tests does not answer a wrong one as the service does;
  the CA's own tests say what the service would.
* ``refusal``: it issues for any name.
* ``relay``: its replies cannot be taken away on the way.
* ``orders``: it has no orders that it could forget.
* ``remembers``: it can be asked for a certificate by serial number only, so one whose
  reply was lost stays unused.
* ``finding``: it cannot find an order by our reference.
* ``validation``: it asks for no proof that a name is ours.
"""

_numbers = itertools.count(1)


class Opens(Protocol):
    """Anything that opens a CA; every CA block does."""

    def connect(self) -> AbstractContextManager[CertificateAuthority]:
        """Open it."""
        ...


class World(ABC):
    """A running CA that issues below :data:`ZONE` and not for :data:`REFUSED`.

    Attributes:
        block: good settings.
        intruder: the same with a wrong credential.
        secrets: texts that may never be seen.
        root: what its certificates chain to.
    """

    block: Opens
    intruder: Opens
    secrets: tuple[str, ...] = ()
    root: x509.Certificate

    def name(self) -> str:
        """Return a name that nobody used before."""
        return f"n{next(_numbers)}.{ZONE}"

    @abstractmethod
    def issued(self, name: str) -> int:
        """Return how many certificates for *name* the CA made, asked on its own side."""

    @abstractmethod
    def is_revoked(self, chain: Chain) -> bool:
        """Return whether the CA counts the leaf as revoked, asked on its own side."""

    @abstractmethod
    def snapshot(self) -> object:
        """Return something that changes when the CA does anything."""

    def prove(self, challenge: Challenge) -> None:
        """Publish a proof where the CA looks for it."""
        raise AssertionError("this CA wants no proof")

    def at(self, port: int) -> Opens:
        """Return the block pointing at another port of this machine, with a deadline of 1 s."""
        raise AssertionError("declare that the network is lacking")

    @contextmanager
    def losing(self, reply: bytes) -> Iterator[Opens]:
        """Open the CA so that the reply to the next issuance is *reply* instead of its own."""
        raise AssertionError("declare that the relay is lacking")
        yield


@dataclass(frozen=True)
class Case:
    """A CA under contract.

    Attributes:
        block: the block class, None for a reference.
        world: starts the other side in a folder.
        settings: the least that the block wants, for tests of its settings.
        nonsense: replies outside the protocol.
        throttled: makes a reply with this Retry-After.
        lacks: declared gaps, of :data:`GAPS`.
    """

    name: str
    block: type[CaBlock] | None
    world: Callable[[Path], AbstractContextManager[World]]
    settings: dict[str, Any] = field(default_factory=dict)
    nonsense: Sequence[Script] = ()
    throttled: Callable[[str], Script] | None = None
    lacks: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Opener:
    """Opens a CA that is made by a function."""

    make: Callable[[], CertificateAuthority]

    @contextmanager
    def connect(self) -> Iterator[CertificateAuthority]:
        """Open it."""
        yield self.make()


class _AcmeWorld(World):
    """Pebble that wants an external account; a client without one is the intruder."""

    def __init__(self, folder: Path, server: Pebble, answers: ChallengeServer) -> None:
        self._folder = folder
        self._server = server
        self._answers = answers
        self.secrets = (EAB_KEYS["kid-1"],)
        self.block = Opener(lambda: self._open(eab_kid="kid-1", eab_hmac_key=EAB_KEYS["kid-1"]))
        self.intruder = Opener(lambda: self._open(account="nobody"))
        self.root = x509.load_pem_x509_certificate(server.roots()[0].encode())

    def _open(self, url: str = "", account: str = "ours", **settings: Any) -> acme.AcmeCa:
        return acme.AcmeCa(
            url or self._server.directory_url,
            keeper=FileKeeper(self._folder / account),
            ca_bundle="" if url else str(self._server.ca_bundle),
            label=f"acme-{account}{url}",
            **settings,
        )

    def issued(self, name: str) -> int:
        # Pebble's log has no names; nothing else is issued while a test looks.
        return self._server.certificate_count()

    def is_revoked(self, chain: Chain) -> bool:
        return self._server.certificate_status(chain.leaf.serial_number)[0] == "Revoked"

    def snapshot(self) -> object:
        return self._server.order_count(), self._server.certificate_count()

    def prove(self, challenge: Challenge) -> None:
        self._answers.set_txt(challenge.record_name, challenge.txt_value)

    def at(self, port: int) -> Opens:
        return Opener(lambda: self._open(f"http://127.0.0.1:{port}/dir"))


@contextmanager
def _acme_world(folder: Path) -> Iterator[World]:
    with (
        challenge_server(folder) as answers,
        pebble(
            folder, answers=answers, authz_reuse=100, eab_keys=EAB_KEYS, blocklist=["foreign.test"]
        ) as server,
    ):
        yield _AcmeWorld(folder, server, answers)


class _LocalWorld(World):
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "ca"
        settings: dict[str, Any] = {"ca_dir": str(self._folder), "permitted_names": [ZONE]}
        self.block = LocalAuthority(**settings, key_password="correct horse")
        self.intruder = LocalAuthority(**settings, key_password="battery staple")
        self.secrets = ("correct horse", "battery staple")
        with self.block.connect() as ca:
            self.root = x509.load_pem_x509_certificate(ca.trust_anchor().encode())

    def issued(self, name: str) -> int:
        records = [json.loads(each.read_text()) for each in self._folder.glob("orders/*/*.json")]
        return sum(name in each["names"] and "chain" in each for each in records)

    def is_revoked(self, chain: Chain) -> bool:
        crl = x509.load_pem_x509_crl((self._folder / "crl.pem").read_bytes())
        return crl.get_revoked_certificate_by_serial_number(chain.leaf.serial_number) is not None

    def snapshot(self) -> object:
        return {p: p.stat().st_mtime_ns for p in self._folder.rglob("*") if p.name != "lock"}


@contextmanager
def _local_world(folder: Path) -> Iterator[World]:
    yield _LocalWorld(folder)


class _VaultWorld(World):
    def __init__(self, server: OpenBao, between: Relay) -> None:
        self._server = server
        self._between = between
        server.api(
            "POST",
            "pki/roles/web",
            allowed_domains=[ZONE],
            allow_subdomains=True,
            key_type="any",
            max_ttl="720h",
        )
        self._settings: dict[str, Any] = {
            "url": server.url,
            "role": "web",
            "token": server.token,
        }
        self.block = VaultCa(**self._settings)
        self.intruder = VaultCa(**{**self._settings, "token": "s.not-a-token-at-all"})
        self.secrets = (server.token, "s.not-a-token-at-all")
        self.root = x509.load_pem_x509_certificate(server.root.encode())

    def issued(self, name: str) -> int:
        listed = self._server.api("LIST", "pki/certs/detailed")["data"]["key_info"]
        return sum(name in (each.get("dns_names") or ()) for each in listed.values())

    def is_revoked(self, chain: Chain) -> bool:
        found = self._server.api("GET", f"pki/cert/{serial_text(chain.leaf)}")["data"]
        return bool(found["revocation_time"])

    def snapshot(self) -> object:
        return self._server.api("LIST", "pki/certs")["data"]["keys"]

    def at(self, port: int) -> Opens:
        return VaultCa(**{**self._settings, "url": f"http://127.0.0.1:{port}", "timeout": 1})

    @contextmanager
    def losing(self, reply: bytes) -> Iterator[Opens]:
        self._between.lose("POST", "/sign/", reply)
        yield VaultCa(**{**self._settings, "url": f"http://127.0.0.1:{self._between.port}"})


@contextmanager
def _vault_world(folder: Path) -> Iterator[World]:
    with (
        openbao_ca(folder, dns="127.0.0.1:53") as server,
        relay(int(server.url.rsplit(":", 1)[1])) as between,
    ):
        yield _VaultWorld(server, between)


class _CommandWorld(World):
    """A program of ours that is as slow, and adds the root, as programs do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ca_program.make_ca(folder)
        (folder / "secret").write_text("open-sesame")
        settings: dict[str, Any] = {
            "command": [sys.executable, str(Path(ca_program.__file__)), str(folder)]
        }
        self.block = CommandCa(**settings, secret="open-sesame")
        self.intruder = CommandCa(**settings, secret="open-barley")
        self.secrets = ("open-sesame", "open-barley")
        self.root = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())

    def issued(self, name: str) -> int:
        orders = [path for path in self._folder.glob("orders/*") if not path.suffix]
        return sum(name in json.loads(path.read_text())["names"] for path in orders)

    def is_revoked(self, chain: Chain) -> bool:
        return f"{chain.leaf.serial_number:x} " in (self._folder / "revoked").read_text()

    def snapshot(self) -> object:
        return sorted(self._folder.glob("orders/*"))


@contextmanager
def _command_world(folder: Path) -> Iterator[World]:
    yield _CommandWorld(folder)


class _CertCentralWorld(World):
    def __init__(self, api: CertCentralApi, between: Relay, txt: dict[str, set[str]]) -> None:
        self._api = api
        self._between = between
        self._txt = txt
        self._settings: dict[str, Any] = {
            "url": api.base,
            "api_key": api.key,
            "organization_id": api.organization,
            "poll_interval": 0.02,
        }
        self.block = CertCentral(**self._settings)
        self.intruder = CertCentral(**{**self._settings, "api_key": "no-such-key-at-all"})
        self.secrets = (api.key, "no-such-key-at-all")
        self.root = api.ca.root

    def issued(self, name: str) -> int:
        return self._api.issued(name)

    def is_revoked(self, chain: Chain) -> bool:
        return bool(self._api.by_serial(f"{chain.leaf.serial_number:X}")[1].revoked)

    def snapshot(self) -> object:
        return list(self._api.orders), list(self._api.domains)

    def prove(self, challenge: Challenge) -> None:
        self._txt.setdefault(challenge.record_name, set()).add(challenge.txt_value)

    def at(self, port: int) -> Opens:
        url = f"http://127.0.0.1:{port}"
        return CertCentral(**{**self._settings, "url": url, "timeout": 1})

    @contextmanager
    def losing(self, reply: bytes) -> Iterator[Opens]:
        self._between.lose("POST", "/order/certificate/", reply)
        url = f"http://127.0.0.1:{self._between.port}{self._api.prefix}"
        yield CertCentral(**{**self._settings, "url": url})


@contextmanager
def _certcentral_world(_: Path) -> Iterator[World]:
    txt: dict[str, set[str]] = {}
    with (
        certcentral_api(lambda name: txt.get(name, set())) as api,
        relay(api.port) as between,
    ):
        yield _CertCentralWorld(api, between, txt)


class _DigicertOneWorld(World):
    def __init__(self, api: DigicertOneApi, between: Relay) -> None:
        self._api = api
        self._between = between
        self._settings: dict[str, Any] = {
            "url": api.url,
            "api_key": api.key,
            "profile_id": api.profile,
        }
        self.block = DigicertOne(**self._settings)
        self.intruder = DigicertOne(**{**self._settings, "api_key": "no-such-key-at-all"})
        self.secrets = (api.key, "no-such-key-at-all")
        self.root = api.ca.root

    def issued(self, name: str) -> int:
        return self._api.issued(name)

    def is_revoked(self, chain: Chain) -> bool:
        return bool(self._api.by_serial(serial_text(chain.leaf).replace(":", "")).revoked)

    def snapshot(self) -> object:
        return len(self._api.entries)

    def at(self, port: int) -> Opens:
        url = f"http://127.0.0.1:{port}"
        return DigicertOne(**{**self._settings, "url": url, "timeout": 1})

    @contextmanager
    def losing(self, reply: bytes) -> Iterator[Opens]:
        self._between.lose("POST", "/v1/certificate", reply)
        yield DigicertOne(**{**self._settings, "url": f"http://127.0.0.1:{self._between.port}"})


@contextmanager
def _digicert_one_world(_: Path) -> Iterator[World]:
    with digicert_one_api(ZONE) as api, relay(api.port) as between:
        yield _DigicertOneWorld(api, between)


class _AwsPcaWorld(World):
    """moto, seen through a relay: it lists no certificates, so we count what it was asked for."""

    def __init__(self, server: Aws, between: Relay) -> None:
        self._between = between
        client = server.client("acm-pca")
        configuration = {
            "KeyAlgorithm": "EC_prime256v1",
            "SigningAlgorithm": "SHA256WITHECDSA",
            "Subject": {"CommonName": "Imitated AWS CA"},
        }
        arn = client.create_certificate_authority(
            CertificateAuthorityConfiguration=configuration, CertificateAuthorityType="ROOT"
        )["CertificateAuthorityArn"]
        issued = client.issue_certificate(
            CertificateAuthorityArn=arn,
            Csr=client.get_certificate_authority_csr(CertificateAuthorityArn=arn)["Csr"].encode(),
            SigningAlgorithm="SHA256WITHECDSA",
            TemplateArn="arn:aws:acm-pca:::template/RootCACertificate/V1",
            Validity={"Value": 10, "Type": "YEARS"},
        )["CertificateArn"]
        root = client.get_certificate(CertificateAuthorityArn=arn, CertificateArn=issued)
        client.import_certificate_authority_certificate(
            CertificateAuthorityArn=arn, Certificate=root["Certificate"].encode()
        )
        self.root = x509.load_pem_x509_certificate(root["Certificate"].encode())
        self._settings: dict[str, Any] = {
            "ca_arn": arn,
            "access_key_id": server.access_key_id,
            "secret_access_key": server.secret_access_key,
            "endpoint_url": f"http://127.0.0.1:{between.port}",
        }
        self.block = AwsPca(**self._settings)
        self.intruder = self.block
        self.secrets = (server.secret_access_key,)

    def issued(self, name: str) -> int:
        csrs = [base64.b64decode(json.loads(body)["Csr"]) for body in self._bodies("Issue")]
        listed = [read_csr(Csr(each.decode())).names for each in csrs]
        return sum(name in each for each in listed)

    def is_revoked(self, chain: Chain) -> bool:
        serial = serial_text(chain.leaf)
        return any(json.loads(b)["CertificateSerial"] == serial for b in self._bodies("Revoke"))

    def snapshot(self) -> object:
        return len(self._bodies("Issue"))

    def at(self, port: int) -> Opens:
        url = f"http://127.0.0.1:{port}"
        return AwsPca(**{**self._settings, "endpoint_url": url, "timeout": 1})

    @contextmanager
    def losing(self, reply: bytes) -> Iterator[Opens]:
        self._between.lose("POST", "IssueCertificate", reply)
        yield self.block

    def _bodies(self, call: str) -> list[bytes]:
        wanted = f"/#ACMPrivateCA.{call}Certificate"
        return [body for _, path, body in self._between.requests if path == wanted]


@contextmanager
def _aws_pca_world(folder: Path) -> Iterator[World]:
    with aws(folder) as server, relay(server.port) as between:
        yield _AwsPcaWorld(server, between)


class ReferenceCa(CertificateAuthority, FindsOrders):
    """The contract in memory, as short as it can be."""

    def __init__(self, world: ReferenceWorld, *, known: bool = True) -> None:
        self._world = world
        self._known = known

    def check(self) -> str:
        """Answer for the memory."""
        self._enter()
        return "the memory answers"

    def open_order(self, spec: OrderSpec) -> Order:
        """Keep the names."""
        self._enter()
        if REFUSED in spec.names:
            raise Rejected("not ours", code="foreign")
        self._world.orders[spec.key] = spec.names
        return Order(spec.key, f"memory-{spec.key}", OrderStatus.READY)

    def find_order(self, key: OrderKey) -> Order | None:
        """Look it up."""
        self._enter()
        if key not in self._world.orders:
            return None
        return Order(key, f"memory-{key}", self._status(key))

    def reopen(self, order: Order) -> Order:
        """Look it up by its id."""
        key = OrderKey(order.remote_id.removeprefix("memory-"))
        found = self.find_order(key)
        if found is None:
            raise NotFound("no such order")
        return found

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Sign once."""
        order = self.reopen(order)
        if order.key not in self._world.chains:
            self.sign(order, csr)
        return self.reopen(order)

    def sign(self, order: Order, csr: Csr) -> None:
        """Keep a chain for *order*."""
        names = self._world.orders[order.key]
        self._world.chains[order.key] = self._world.make(csr, names)

    def collect(self, order: Order) -> Chain | Pending:
        """Return what was signed."""
        self._enter()
        return self._world.chains.get(self.reopen(order).key, Pending())

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        """Remember the serial."""
        self._enter()
        self._world.revoked.add(chain.leaf.serial_number)

    def _status(self, key: OrderKey) -> OrderStatus:
        return OrderStatus.VALID if key in self._world.chains else OrderStatus.READY

    def _enter(self) -> None:
        if not self._known:
            raise AuthenticationFailed("the memory does not know you")


class ReferenceWorld(World):
    """A CA in memory, reached through *kind*."""

    def __init__(self, kind: type[ReferenceCa] = ReferenceCa) -> None:
        self.orders: dict[OrderKey, tuple[str, ...]] = {}
        self.chains: dict[OrderKey, Chain] = {}
        self.revoked: set[int] = set()
        self.made: list[x509.Certificate] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Memory")])
        self.root = self._certificate(self._name, self._key.public_key(), None)
        self.block = Opener(lambda: kind(self))
        self.intruder = Opener(lambda: kind(self, known=False))

    def make(self, csr: Csr, names: Sequence[str]) -> Chain:
        """Issue."""
        leaf = self._certificate(x509.Name([]), csr.parsed.public_key(), names)
        self.made.append(leaf)
        return Chain.of([leaf])

    def _certificate(
        self, subject: x509.Name, key: Any, names: Sequence[str] | None
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        if names is not None:
            listed = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(listed, critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def issued(self, name: str) -> int:
        """Count."""
        return sum(name in subject_names(each) for each in self.made)

    def is_revoked(self, chain: Chain) -> bool:
        """Look it up."""
        return chain.leaf.serial_number in self.revoked

    def snapshot(self) -> object:
        """All of it."""
        return dict(self.orders), dict(self.chains)


@contextmanager
def _reference_world(_: Path) -> Iterator[World]:
    yield ReferenceWorld()


JSON_NONSENSE = (
    http_reply(200, body="<html>Welcome to nginx!</html>"),
    http_reply(200, body='{"surprise": []}'),
    http_reply(200, body='["', headers={"Content-Type": "application/json"}),
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
)


def too_many(wait: str) -> Script:
    """Return a plain 429."""
    return http_reply(429, {"Retry-After": wait}, '{"errors": ["slow down"]}')


def _aws_too_many(wait: str) -> Script:
    return http_reply(
        400,
        {"Retry-After": wait, "Content-Type": "application/x-amz-json-1.1"},
        '{"__type": "ThrottlingException", "message": "Rate exceeded"}',
    )


CASES = (
    Case(
        "ca-acme",
        AcmeCa,
        _acme_world,
        settings={"directory_url": "https://ca.example.test/dir"},
        # What is not HTTP at all counts as a broken connection there.
        nonsense=JSON_NONSENSE[:-1],
        throttled=too_many,
        # Its lost replies are in tests/integration/acme and tests/e2e.
        lacks=frozenset({"stall", "relay", "finding"}),
    ),
    Case(
        "ca-local",
        LocalAuthority,
        _local_world,
        settings={"ca_dir": "/var/lib/ca"},
        lacks=frozenset({"network", "throttling", "relay", "validation"}),
    ),
    Case(
        "ca-vault",
        VaultCa,
        _vault_world,
        settings={"url": "https://vault.example.test", "role": "web", "token": "s.token"},
        nonsense=JSON_NONSENSE,
        throttled=too_many,
        lacks=frozenset({"orders", "remembers", "finding", "validation"}),
    ),
    Case(
        "ca-command",
        CommandCa,
        _command_world,
        settings={"command": ["/usr/local/bin/issue"]},
        lacks=frozenset({"network", "throttling", "relay", "orders", "finding", "validation"}),
    ),
    Case(
        "ca-certcentral",
        CertCentral,
        _certcentral_world,
        settings={"api_key": "key", "organization_id": 1},
        nonsense=JSON_NONSENSE,
        throttled=too_many,
        # It looks for its order by the CSR itself, before it places one.
        lacks=frozenset({"finding"}),
    ),
    Case(
        "ca-digicert-one",
        DigicertOne,
        _digicert_one_world,
        settings={"api_key": "key", "profile_id": "a1b2"},
        nonsense=JSON_NONSENSE,
        throttled=too_many,
        lacks=frozenset({"orders", "finding", "validation"}),
    ),
    Case(
        "ca-aws-pca",
        AwsPca,
        _aws_pca_world,
        settings={"ca_arn": "arn:aws:acm-pca:eu-central-1:1:certificate-authority/1"},
        nonsense=JSON_NONSENSE[:-1],
        throttled=_aws_too_many,
        # moto knows no idempotency tokens.
        lacks=frozenset(
            {"retry-date", "credential", "refusal", "orders", "remembers", "finding", "validation"}
        ),
    ),
)

REFERENCE = Case(
    "reference",
    None,
    _reference_world,
    lacks=frozenset({"network", "throttling", "relay", "validation"}),
)
