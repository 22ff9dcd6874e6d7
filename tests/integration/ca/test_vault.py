"""OpenBao's PKI engine: logins, policies, roles, namespaces, sealing."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from pydantic import ValidationError

from blocks.ca.vault import VaultCa
from certrail.errors import (
    AuthenticationFailed,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
    Unreachable,
)
from certrail.model import RevocationReason, serial_text, subject_names
from tests.integration.ca.issuing import csr_for, issue, spec
from tests.support.acme_servers import OpenBao, openbao_ca

NAME = "www.example.test"
ROLE = {"allowed_domains": ["example.test"], "allow_subdomains": True, "key_type": "any"}


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with openbao_ca(tmp_path_factory.mktemp("bao"), dns="127.0.0.1:53") as server:
        server.api("POST", "pki/roles/web", **ROLE)
        server.api("POST", "sys/auth/approle", type="approle")
        yield server


def block(bao: OpenBao, **settings: Any) -> VaultCa:
    login = {} if "role_id" in settings or "token" in settings else {"token": bao.token}
    return VaultCa(**{"url": bao.url, "role": "web", **login, **settings})


def policy(bao: OpenBao, name: str, *paths: str) -> str:
    rules = "".join(f'path "{path}" {{ capabilities = ["update"] }}\n' for path in paths)
    bao.api("POST", f"sys/policies/acl/{name}", policy=rules)
    return name


def approle(bao: OpenBao, name: str, *paths: str) -> dict[str, str]:
    policy(bao, name, *paths)
    bao.api("POST", f"auth/approle/role/{name}", token_policies=[name], token_ttl="5m")
    role = bao.api("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
    secret = bao.api("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
    return {"role_id": role, "secret_id": secret}


def test_an_approle_logs_in_and_leaves_no_token(bao: OpenBao) -> None:
    """Thousands of requests must not leave thousands of tokens on the server."""
    login = approle(bao, "issuer", "pki/sign/web", "pki/revoke")
    before = len(bao.api("LIST", "auth/token/accessors")["data"]["keys"])
    with block(bao, **login).connect() as ca:
        assert "pki/sign/web" in ca.check()
        chain = issue(ca, NAME)
        ca.revoke(chain, RevocationReason.SUPERSEDED)

    assert len(bao.api("LIST", "auth/token/accessors")["data"]["keys"]) == before
    assert bao.api("GET", f"pki/cert/{serial_text(chain.leaf)}")["data"]["revocation_time"]


def test_a_wrong_secret_id_is_an_authentication_failure(bao: OpenBao) -> None:
    """The server says 400 to it, like to a wrong parameter."""
    login = approle(bao, "issuer2", "pki/sign/web") | {"secret_id": "not-the-secret-id"}
    with block(bao, **login).connect() as ca, pytest.raises(AuthenticationFailed) as caught:
        ca.check()

    assert "not-the-secret-id" not in str(caught.value)
    assert "secret_id" in caught.value.remedy


def test_a_missing_policy_is_named_as_one_writes_it(bao: OpenBao) -> None:
    """The server only says "permission denied", also for a wrong token."""
    policy(bao, "nothing", "pki/sign/other")
    token = bao.api("POST", "auth/token/create", policies=["nothing"])["auth"]["client_token"]
    with block(bao, token=token).connect() as ca:
        order = ca.open_order(spec(NAME))
        for call in (ca.check, lambda: ca.finalize(order, csr_for(NAME))):
            with pytest.raises(PermissionRefused) as caught:
                call()
            assert 'path "pki/sign/web" { capabilities = ["update"] }' in caught.value.remedy


@pytest.mark.parametrize("where", [{"role": "nope"}, {"mount": "pkix"}], ids=str)
def test_a_wrong_role_or_mount_is_not_found(bao: OpenBao, where: dict[str, str]) -> None:
    """The server says 400 to the one and 404 to the other."""
    with block(bao, **where).connect() as ca, pytest.raises(NotFound) as caught:
        ca.finalize(ca.open_order(spec(NAME)), csr_for(NAME))

    assert "role" in caught.value.remedy


def test_a_profile_names_another_role(bao: OpenBao) -> None:
    """One connector serves profiles with different rules."""
    bao.api("POST", "pki/roles/short", **ROLE, max_ttl="2h")
    with block(bao, ttl_hours=100).connect() as ca:
        chain = issue(ca, NAME, profile="short")

    assert chain.leaf.not_valid_after_utc <= datetime.now(UTC) + timedelta(hours=2, minutes=1)


def test_the_validity_asked_for_is_used(bao: OpenBao) -> None:
    """Without it, the mount's default counts."""
    with block(bao, ttl_hours=3).connect() as ca:
        chain = issue(ca, NAME)

    left = chain.leaf.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(hours=2, minutes=58) < left <= timedelta(hours=3)


def test_addresses_and_wildcards_are_issued(bao: OpenBao) -> None:
    """They go to the server in fields of their own."""
    names = (NAME, "*.example.test", "127.0.0.1", "2001:db8::1")
    with block(bao).connect() as ca:
        chain = issue(ca, *names)

    assert set(subject_names(chain.leaf)) == set(names)


def test_a_csr_without_the_names_is_noticed(bao: OpenBao) -> None:
    """The role takes names from the CSR by itself; the wrong certificate is not installed."""
    with block(bao).connect() as ca, pytest.raises(UnexpectedReply, match=r"other\.example\.test"):
        ca.finalize(ca.open_order(spec(NAME)), csr_for("other.example.test"))


def test_a_role_that_takes_names_from_us(bao: OpenBao) -> None:
    """Devices make CSRs without names; then the role has to listen to us."""
    bao.api("POST", "pki/roles/ours", **ROLE, use_csr_sans=False, use_csr_common_name=False)
    with block(bao, role="ours").connect() as ca:
        order = ca.finalize(ca.open_order(spec(NAME)), csr_for("device.example.test"))

    assert order.data["names"] == [NAME]


def test_the_chain_below_a_root_has_the_intermediate_and_not_the_root(bao: OpenBao) -> None:
    """The server sends the root along where it is asked for the whole chain."""
    bao.api("POST", "sys/mounts/sub", type="pki", config={"max_lease_ttl": "8760h"})
    asked = bao.api("POST", "sub/intermediate/generate/internal", common_name="Lab Sub")["data"]
    fields = {"csr": asked["csr"], "common_name": "Lab Sub", "ttl": "4000h"}
    signed = bao.api("POST", "pki/root/sign-intermediate", **fields)["data"]
    pem = signed["certificate"] + "\n" + bao.root
    bao.api("POST", "sub/intermediate/set-signed", certificate=pem)
    bao.api("POST", "sub/roles/web", **ROLE)

    with block(bao, mount="sub").connect() as ca:
        chain = issue(ca, NAME)

    assert len(chain.pems) == 2
    root = x509.load_pem_x509_certificate(bao.root.encode())
    chain.certificates[1].verify_directly_issued_by(root)


def test_what_was_not_stored_is_revoked_by_itself(bao: OpenBao) -> None:
    """Roles with no_store are how the engine issues by the thousand."""
    bao.api("POST", "pki/roles/unstored", **ROLE, no_store=True)
    with block(bao, role="unstored").connect() as ca:
        chain = issue(ca, NAME)
        ca.revoke(chain, RevocationReason.KEY_COMPROMISE)

    crl = x509.load_pem_x509_crl(bao_pem(bao, "pki/crl/pem"))
    assert crl.get_revoked_certificate_by_serial_number(chain.leaf.serial_number) is not None


def bao_pem(bao: OpenBao, path: str) -> bytes:
    with urllib.request.urlopen(f"{bao.url}/v1/{path}", timeout=20) as reply:
        return bytes(reply.read())


def test_a_strangers_certificate_is_not_found(bao: OpenBao) -> None:
    """Revoking at the wrong mount must not look like success."""
    bao.api("POST", "sys/mounts/far", type="pki")
    bao.api("POST", "far/root/generate/internal", common_name="Far Root")
    bao.api("POST", "far/roles/web", **ROLE, max_ttl="24h")
    with block(bao, mount="far").connect() as ca:
        chain = issue(ca, NAME)
    with block(bao).connect() as ca, pytest.raises(NotFound):
        ca.revoke(chain, RevocationReason.SUPERSEDED)


def test_a_namespace_has_mounts_of_its_own(bao: OpenBao) -> None:
    """Teams share a server and see nothing of each other."""
    bao.api("POST", "sys/namespaces/team")
    for path, fields in (
        ("team/sys/mounts/pki", {"type": "pki"}),
        ("team/pki/root/generate/internal", {"common_name": "Team Root"}),
        ("team/pki/roles/web", {**ROLE, "max_ttl": "24h"}),
    ):
        bao.api("POST", path, **fields)

    with block(bao, namespace="team").connect() as ca:
        chain = issue(ca, NAME)

    assert "Team Root" in chain.leaf.issuer.rfc4514_string()


def test_a_refusal_says_what_the_role_does_not_allow(bao: OpenBao) -> None:
    """The server's own words name the domain."""
    with block(bao).connect() as ca, pytest.raises(Rejected, match=r"foreign\.test"):
        ca.finalize(ca.open_order(spec("www.foreign.test")), csr_for("www.foreign.test"))


def test_a_sealed_server_is_worth_another_try(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Somebody unseals it, and requests go on by themselves."""
    with openbao_ca(tmp_path_factory.mktemp("sealed"), dns="127.0.0.1:53") as bao:
        bao.api("POST", "pki/roles/web", **ROLE)
        bao.api("PUT", "sys/seal")
        with block(bao).connect() as ca, pytest.raises(Unreachable, match="sealed") as caught:
            ca.check()

    assert caught.value.retryable
    assert "Unseal" in caught.value.remedy


@pytest.mark.parametrize(
    "login",
    [{}, {"token": "t", "role_id": "r", "secret_id": "s"}, {"role_id": "r"}, {"secret_id": "s"}],
    ids=str,
)
def test_exactly_one_way_to_log_in(login: dict[str, str]) -> None:
    """Half a credential would fail at the first renewal."""
    with pytest.raises(ValidationError, match=r"AppRole|either"):
        VaultCa(url="https://bao.example.test", role="web", **login)
