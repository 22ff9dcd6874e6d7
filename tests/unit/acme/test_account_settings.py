"""Contacts, external account credentials and account keys."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from certrail.acme.account import ExternalAccount, StoredAccount, parse_contacts
from certrail.acme.signing import new_account_key, signer_of
from certrail.errors import InvalidRequest
from certrail.private_key import PrivateKeyPem


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ()),
        ("ops@a.test", ("mailto:ops@a.test",)),
        ("mailto:ops@a.test", ("mailto:ops@a.test",)),
        ("ops@a.test, web@a.test", ("mailto:ops@a.test", "mailto:web@a.test")),
        (["ops@a.test"], ("mailto:ops@a.test",)),
    ],
)
def test_contacts_become_mailto_urls(given: str | list[str], expected: tuple[str, ...]) -> None:
    """People type addresses; the CA wants URLs (RFC 8555 section 7.3)."""
    assert parse_contacts(given) == expected


@pytest.mark.parametrize(
    "given", ["ops", "ops@a@b", "ops@a.test?cc=x@b.test", "Ops <ops@a.test>", "öps@a.test"]
)
def test_what_no_ca_accepts_as_contact_is_refused(given: str) -> None:
    """Section 7.3 forbids header fields and several addresses in one URL."""
    with pytest.raises(InvalidRequest):
        parse_contacts(given)


@pytest.mark.parametrize("text", ["-_8-_w", "+/8+/w", "+/8+/w==", " -_8-_w\n"])
def test_hmac_keys_are_read_in_both_alphabets(text: str) -> None:
    """CAs show base64url; what people paste has been through other tools."""
    external = ExternalAccount.parse("kid", text)

    assert external is not None
    assert external.hmac_key == base64.b64decode("+/8+/w==")


@pytest.mark.parametrize(("kid", "key"), [("kid", ""), ("", "c2VjcmV0"), ("kid", "s3cr3t!!x")])
def test_half_or_broken_credentials_are_refused_without_showing_them(kid: str, key: str) -> None:
    """A message with the HMAC key in it would end up in logs."""
    with pytest.raises(InvalidRequest) as caught:
        ExternalAccount.parse(kid, key)

    assert not key or key not in f"{caught.value}{caught.value.remedy}"


def test_no_credentials_are_no_external_account() -> None:
    """Most CAs ask for none."""
    assert ExternalAccount.parse("", "") is None


def test_secrets_do_not_print() -> None:
    """An account in a traceback or log must not give its key away."""
    external = ExternalAccount.parse("kid", "c2VjcmV0")
    stored = StoredAccount("https://ca/1", new_account_key())

    assert "secret" not in repr(external)
    assert "c2VjcmV0" not in repr(external)
    assert "PRIVATE KEY" not in repr(stored)
    assert "PRIVATE" not in repr(signer_of(stored.key))


def pem(key: PrivateKeyTypes) -> PrivateKeyPem:
    """Return *key* as stored."""
    return PrivateKeyPem(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), "ES256", id="P-256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), "ES384", id="P-384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), "ES512", id="P-521"),
        pytest.param(rsa.generate_private_key(65537, 2048), "RS256", id="RSA"),
    ],
)
def test_each_kind_of_account_key_signs_with_its_algorithm(
    key: PrivateKeyTypes, algorithm: str
) -> None:
    """Accounts taken over from other clients bring keys of other kinds."""
    assert signer_of(pem(key)).algorithm.name == algorithm


@pytest.mark.parametrize(
    "key", [pem(ed25519.Ed25519PrivateKey.generate()), PrivateKeyPem(b"not a key")]
)
def test_a_key_that_cannot_sign_is_refused(key: PrivateKeyPem) -> None:
    """Rather a clear word than a failure deep inside the library."""
    with pytest.raises(InvalidRequest):
        signer_of(key)
