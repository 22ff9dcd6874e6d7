"""Caddy, step-ca, OpenBao and acme2certifier: each has a habit that Pebble has not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from certrail.acme.ca import AcmeCa
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    ConnectorError,
    InvalidRequest,
    NotFound,
    Unreachable,
)
from certrail.model import (
    Authorization,
    AuthorizationStatus,
    Chain,
    ChallengeKind,
    Order,
    RevocationReason,
    subject_names,
)
from certrail.wait import Pending, until
from tests.integration.acme.conftest import Connect
from tests.support.acme_client import (
    PATIENCE,
    TICK,
    FileKeeper,
    Publisher,
    collect,
    finalize,
    issue,
    spec,
    validate,
)
from tests.support.acme_servers import AcmeServer, acme2certifier, caddy_ca, openbao_ca, step_ca
from tests.support.pebble import ChallengeServer

PROFILES = {"internal": "https://ca.test/internal", "short": "six days"}


@pytest.fixture(scope="module")
def caddy(
    tmp_path_factory: pytest.TempPathFactory, answers: ChallengeServer
) -> Iterator[AcmeServer]:
    """Caddy as CA."""
    with caddy_ca(tmp_path_factory.mktemp("caddy"), dns=answers.dns) as server:
        yield server


@pytest.fixture(scope="module")
def step(
    tmp_path_factory: pytest.TempPathFactory, answers: ChallengeServer
) -> Iterator[AcmeServer]:
    """smallstep's step-ca, with its defaults."""
    with step_ca(tmp_path_factory.mktemp("step"), dns=answers.dns) as server:
        yield server


@pytest.fixture(scope="module")
def ari_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeServer]:
    """acme2certifier, with profiles."""
    with acme2certifier(tmp_path_factory.mktemp("a2c"), profiles=PROFILES) as server:
        yield server


def issued_by(chain: Chain, root: str) -> bool:
    """Return whether the topmost certificate of *chain* is signed by *root* and is not it."""
    authority = x509.load_pem_x509_certificate(root.encode())
    top = chain.certificates[-1]
    top.verify_directly_issued_by(authority)
    return top != authority


# --- Caddy ---------------------------------------------------------------------------------------


def test_caddy_issues(caddy: AcmeServer, connect: Connect, dns: Publisher, name: str) -> None:
    """Apex and wildcard, with a chain that leads to its root."""
    ca = connect(url=caddy.directory_url, ca_bundle=caddy.ca_bundle)

    chain = issue(ca, [name, f"*.{name}"], dns)

    assert set(subject_names(chain.leaf)) == {name, f"*.{name}"}
    assert issued_by(chain, caddy.root)


def test_caddy_takes_a_lifetime(
    caddy: AcmeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """By `notAfter` of the order; the code that decides is step-ca's, which Caddy is built on."""
    ca = connect(url=caddy.directory_url, ca_bundle=caddy.ca_bundle, lifetime=timedelta(minutes=40))

    leaf = issue(ca, [name], dns).leaf

    left = leaf.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(minutes=20) < left <= timedelta(minutes=40)  # two hours unless told


def test_caddy_refuses_a_lifetime_past_its_own(
    caddy: AcmeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """With what to change, since the order can never be fulfilled."""
    ca = connect(url=caddy.directory_url, ca_bundle=caddy.ca_bundle, lifetime=timedelta(days=400))

    with pytest.raises(CertrailError) as caught:
        issue(ca, [name], dns)

    assert "9600 hours (`lifetime_hours`" in caught.value.remedy


def test_caddy_takes_many_orders_of_one_account_at_once(
    caddy: AcmeServer, connect: Connect, name: str
) -> None:
    """Unguarded, a quarter of these end in status 500: its store conflicts with itself."""

    def order(number: int) -> str:
        # Each has its own connector, as in separate tasks; the account's lock is what they share.
        ca = connect(url=caddy.directory_url, ca_bundle=caddy.ca_bundle)
        return ca.open_order(spec(f"{number}.{name}", key=str(number))).remote_id

    connect(url=caddy.directory_url, ca_bundle=caddy.ca_bundle).ensure_account()
    with ThreadPoolExecutor(16) as threads:
        urls = set(threads.map(order, range(40)))

    assert len(urls) == 40


def test_a_failure_that_caddy_leaves_pending_is_seen(
    caddy: AcmeServer, connect: Connect, answers: ChallengeServer, name: str
) -> None:
    """Its authorization stays "pending"; only the challenge's error tells."""
    ca = connect(url=caddy.directory_url, ca_bundle=caddy.ca_bundle)
    order = ca.open_order(spec(name))
    (authorization,) = ca.authorizations(order)
    challenge = authorization.challenges[0]
    answers.set_txt(challenge.record_name, "wrong")

    ca.respond(order, challenge)
    failed = until(
        lambda: problem_of(ca, order),
        timeout=PATIENCE,
        interval=TICK,
        late=lambda: AssertionError("no problem was seen"),
    )

    assert failed.status is AuthorizationStatus.PENDING
    assert failed.problem
    assert failed.problem_code.startswith("urn:ietf:params:acme:error:")


def problem_of(ca: AcmeCa, order: Order) -> Authorization | Pending:
    """Return the first authorization with a problem."""
    return next((each for each in ca.authorizations(order) if each.problem), Pending())


def test_an_order_that_caddy_does_not_know(caddy: AcmeServer, connect: Connect, name: str) -> None:
    """It says "malformed" instead of "not found"."""
    ca = connect(url=caddy.directory_url, ca_bundle=caddy.ca_bundle)
    order = ca.open_order(spec(name))

    with pytest.raises(NotFound):
        ca.reopen(replace(order, remote_id=order.remote_id[:-4] + "AAAA"))


# --- step-ca -------------------------------------------------------------------------------------


def test_step_ca_issues(step: AcmeServer, connect: Connect, dns: Publisher, name: str) -> None:
    """Apex and wildcard, for a day that began a minute ago, with a chain to its root."""
    ca = connect(url=step.directory_url, ca_bundle=step.ca_bundle)

    chain = issue(ca, [name, f"*.{name}"], dns)

    leaf = chain.leaf
    assert set(subject_names(leaf)) == {name, f"*.{name}"}
    assert issued_by(chain, step.root)
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime == timedelta(days=1, minutes=1)


def test_step_ca_takes_a_lifetime(
    step: AcmeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """Between its shortest and longest, five minutes and a day unless it is told otherwise."""
    ca = connect(url=step.directory_url, ca_bundle=step.ca_bundle, lifetime=timedelta(minutes=40))

    leaf = issue(ca, [name], dns).leaf

    left = leaf.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(minutes=20) < left <= timedelta(minutes=40)


def test_step_ca_refuses_a_lifetime_past_its_own(
    step: AcmeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """With status 500 at the end of the order, which nothing but another wish helps."""
    ca = connect(url=step.directory_url, ca_bundle=step.ca_bundle, lifetime=timedelta(days=2))

    with pytest.raises(CertrailError) as caught:
        issue(ca, [name], dns)

    assert "48 hours (`lifetime_hours`" in caught.value.remedy


def test_step_ca_revokes(step: AcmeServer, connect: Connect, dns: Publisher, name: str) -> None:
    """Once: the second time is quiet, as with every CA."""
    ca = connect(url=step.directory_url, ca_bundle=step.ca_bundle)
    chain = issue(ca, [name], dns)

    ca.revoke(chain, RevocationReason.SUPERSEDED)
    ca.revoke(chain, RevocationReason.SUPERSEDED)


# --- OpenBao -------------------------------------------------------------------------------------


def test_openbao_with_external_account_binding(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """Over plain HTTP on loopback; its chain carries the root; it takes no reasons to revoke."""
    with openbao_ca(tmp_path, dns=answers.dns, eab_required=True) as bao:
        kid, key = bao.new_eab()
        wrong: dict[type[ConnectorError], list[dict[str, str]]] = {
            AuthenticationFailed: [{}, {"eab_kid": "unknown", "eab_hmac_key": key}],
            Unreachable: [{"eab_kid": kid, "eab_hmac_key": "d3Jvbmc"}],  # it answers 500
        }
        for kind, cases in wrong.items():
            for settings in cases:
                with pytest.raises(kind) as caught:
                    connect(url=bao.directory_url, account="other", **settings).ensure_account()
                assert "eab_kid" in caught.value.remedy
        kid, key = bao.new_eab()
        ca = connect(url=bao.directory_url, eab_kid=kid, eab_hmac_key=key)

        created = [ca.ensure_account().created for _ in range(2)]
        chain = issue(ca, [name, f"*.{name}"], dns)
        ca.revoke(chain, RevocationReason.SUPERSEDED)
        ca.revoke(chain, RevocationReason.SUPERSEDED)
        order = ca.open_order(spec(f"b.{name}"))
        unknown = "00000000-0000-0000-0000-000000000000"
        with pytest.raises(NotFound):
            ca.reopen(replace(order, remote_id=order.remote_id.rpartition("/")[0] + "/" + unknown))

    assert created == [True, False]
    assert len(chain.pems) == 1
    assert issued_by(chain, bao.root)


# --- acme2certifier ------------------------------------------------------------------------------


def test_renewal_information_profile_and_predecessor(
    ari_server: AcmeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """The window is what the server was set to, for the certificate that we mean."""
    ca = connect(url=ari_server.directory_url, contact="ops@example.com")
    order = ca.open_order(spec(name, profile="internal"))
    validate(ca, order, dns, ChallengeKind.DNS_01)
    order, _ = finalize(ca, order, [name])
    chain = collect(ca, order)

    info = ca.renewal_info(chain)
    successor = ca.open_order(spec(name, key="2", profile="short", replaces=ca.replaces_id(chain)))

    leaf = chain.leaf
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert info is not None
    assert abs(info.end - leaf.not_valid_after_utc) < timedelta(minutes=1)
    assert abs(info.start - (leaf.not_valid_before_utc + lifetime * 0.66)) < timedelta(minutes=1)
    assert info.start > datetime.now(UTC)
    assert info.retry_after == timedelta(days=1)
    assert successor.replaces == ca.replaces_id(chain)
    assert "profiles internal, short and renewal information" in ca.check()


def test_a_profile_that_is_not_offered(ari_server: AcmeServer, connect: Connect, name: str) -> None:
    """The message lists what is."""
    ca = connect(url=ari_server.directory_url, contact="ops@example.com")

    with pytest.raises(InvalidRequest, match="internal, short"):
        ca.open_order(spec(name, profile="classic"))


def test_the_identifier_is_the_one_that_the_server_looks_up(
    ari_server: AcmeServer, connect: Connect, dns: Publisher, name: str
) -> None:
    """A stranger's certificate has no window here."""
    ca = connect(url=ari_server.directory_url, contact="ops@example.com")
    ours = issue(ca, [name], dns)
    ca.revoke(ours, RevocationReason.SUPERSEDED)
    ca.revoke(ours, RevocationReason.SUPERSEDED)

    authority, _, _ = ca.replaces_id(ours).partition(".")
    issuer = x509.load_pem_x509_certificate(ari_server.root.encode())
    extension = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert authority == base64url(extension.value.digest)


def base64url(octets: bytes) -> str:
    """Return *octets* as identifiers carry them."""
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def test_an_order_that_acme2certifier_does_not_know(
    ari_server: AcmeServer, connect: Connect, keeper: FileKeeper, name: str
) -> None:
    """It says "not ready" instead of "not found"."""
    ca = connect(url=ari_server.directory_url, contact="ops@example.com")
    order = ca.open_order(spec(name))

    with pytest.raises(NotFound):
        ca.reopen(replace(order, remote_id=order.remote_id[:-4] + "AAAA"))
    assert keeper.load() is not None
