"""What install targets share, and what their settings promise."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from blocks._base import TargetBlock
from blocks._target import (
    algorithm_of,
    is_loopback,
    is_ours,
    must_be_https,
    must_replace,
    must_take,
    object_name,
)
from blocks.targets.a10 import A10
from blocks.targets.bigip import BigIp
from blocks.targets.caddy import CaddyAdmin
from blocks.targets.haproxy import HaproxyRuntime
from blocks.targets.iis import Iis
from blocks.targets.netscaler import NetScaler
from blocks.targets.redis_server import RedisServer
from certrail.connectors import Traits
from certrail.errors import Conflict, InvalidRequest
from certrail.model import Bundle, Fingerprint, KeyAlgorithm
from certrail.private_key import PrivateKeyPem
from tests.support.bundles import new_bundle
from tests.support.nginx import TestCa

PRINT = Fingerprint("0123456789abcdef" * 4)
OTHER = Fingerprint("fedcba9876543210" * 4)
BLOCKS = [A10, BigIp, CaddyAdmin, HaproxyRuntime, Iis, NetScaler, RedisServer]
SECRET = "correct-horse-battery"


@given(site=st.text(max_size=300), longest=st.integers(min_value=40, max_value=255))
def test_object_names_are_legal_whatever_the_site(site: str, longest: int) -> None:
    """Every vendor takes letters, digits, and `_.-`; each has another limit."""
    name = object_name(site, PRINT, longest)

    assert len(name) <= longest
    assert name.isascii()
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert is_ours(name)
    assert is_ours(f"/Common/{name}")


def test_object_names_differ_by_version_and_are_readable() -> None:
    """Two versions live side by side for a moment."""
    assert object_name("/Common/www_ssl", PRINT, 63) == "certrail_www_ssl_0123456789abcdef"
    assert object_name("*.example.test", OTHER, 63).startswith("certrail_wildcard.example.test_")


@pytest.mark.parametrize("name", ["old", "certrail_x", "my_certrail_x_0123456789abcdef", ""])
def test_what_others_made_is_not_ours(name: str) -> None:
    """It is never deleted."""
    assert not is_ours(name)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), KeyAlgorithm.ECDSA_P256),
        (ec.generate_private_key(ec.SECP521R1()), None),
        (rsa.generate_private_key(65537, 2048), KeyAlgorithm.RSA_2048),
    ],
)
def test_kinds_of_keys(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: KeyAlgorithm | None
) -> None:
    """Named as in a profile."""
    ca = TestCa()
    leaf = ca.bundle("a.example.test").chain.leaf
    builder = x509.CertificateBuilder(
        issuer_name=leaf.issuer,
        subject_name=leaf.subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=leaf.not_valid_before_utc,
        not_valid_after=leaf.not_valid_after_utc,
    )
    assert algorithm_of(builder.sign(key, hashes.SHA256())) == algorithm


def test_a_key_that_the_target_does_not_take_is_refused_before_upload() -> None:
    """Told with what it takes."""
    traits = Traits(key_algorithms=frozenset({KeyAlgorithm.RSA_2048}))

    with pytest.raises(InvalidRequest, match="takes rsa-2048") as caught:
        must_take(new_bundle("a.example.test"), traits, "the device")

    assert "key.algorithm" in caught.value.remedy
    assert must_take(new_bundle("a.example.test", with_rsa=True), traits, "the device")


def test_without_a_key_nothing_can_be_installed() -> None:
    """None of these makes keys itself."""
    with pytest.raises(InvalidRequest, match="without one"):
        must_take(Bundle(new_bundle("a.example.test").chain, None), Traits(), "the device")


def test_a_pair_that_does_not_match_is_refused() -> None:
    """Several of these notice only when handshakes fail."""
    other = new_bundle("b.example.test").key
    assert other is not None
    with pytest.raises(InvalidRequest):
        must_take(
            Bundle(new_bundle("a.example.test").chain, PrivateKeyPem(other.reveal())),
            Traits(),
            "the device",
        )


def test_what_may_be_replaced() -> None:
    """What was there at the start, or the new one already; nothing else."""
    must_replace(PRINT, PRINT, OTHER, "x", "c")
    must_replace(OTHER, PRINT, OTHER, "x", "c")
    must_replace(PRINT, None, OTHER, "x", "c")
    for present in (None, Fingerprint("00" * 32)):
        with pytest.raises(Conflict):
            must_replace(present, PRINT, OTHER, "x", "c")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_addresses_of_this_machine(host: str) -> None:
    """Nothing leaves it there."""
    assert is_loopback(host)


@pytest.mark.parametrize("url", ["http://lb.example.test", "ftp://x", "lb.example.test", ""])
def test_passwords_go_only_over_https(url: str) -> None:
    """Keys as well."""
    with pytest.raises(InvalidRequest):
        must_be_https(url, "the device")


@pytest.mark.parametrize("block", BLOCKS)
def test_settings_are_described_and_typos_refused(block: type[TargetBlock]) -> None:
    """The description is the documentation that people see in Prefect."""
    assert [name for name, one in block.model_fields.items() if not one.description] == []
    assert (block.__doc__ or "").strip()
    with pytest.raises(ValidationError, match="unknown field"):
        block(pasword="x")


@pytest.mark.parametrize("block", [A10, BigIp, Iis, NetScaler])
def test_no_password_in_a_repr(block: type[A10 | BigIp | Iis | NetScaler]) -> None:
    """Blocks are logged and shown."""
    one = block(url="https://lb.example.test", username="u", password=SecretStr(SECRET))

    assert SECRET not in repr(one) + str(one) + one.model_dump_json()


def test_no_password_in_a_repr_of_redis() -> None:
    """The same, with its other fields."""
    one = RedisServer(address="cache", host="host-local/here", password=SecretStr(SECRET))

    assert SECRET not in repr(one) + str(one) + one.model_dump_json()
