"""Certificate signing requests."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from certrail.errors import InvalidRequest
from certrail.keys.generate import generate
from certrail.model import Csr, KeyAlgorithm, SubjectSpec
from certrail.private_key import PrivateKeyPem
from certrail.x509.csr import build_csr, read_csr

KEY = generate(KeyAlgorithm.ECDSA_P256)
LONG = "a" * 60 + ".example.test"


@pytest.mark.parametrize(
    ("names", "common_name"),
    [
        pytest.param(("a.test", "b.test"), "a.test", id="first name"),
        pytest.param((LONG, "b.test"), "b.test", id="first is too long for the field"),
        pytest.param((LONG,), "", id="all too long"),
        pytest.param(("*.a.test",), "*.a.test", id="wildcard"),
        pytest.param(("192.0.2.1", "a.test"), "a.test", id="address first"),
        pytest.param(("192.0.2.1", "2001:db8::1"), "", id="addresses only"),
    ],
)
def test_the_common_name_is_the_first_dns_name_that_fits(
    names: tuple[str, ...], common_name: str
) -> None:
    """RFC 5280 allows 64 octets; CAs refuse addresses there."""
    content = read_csr(build_csr(SubjectSpec(names), KEY))

    assert content.common_name == common_name
    assert set(content.names) == set(names)
    assert content.signature_valid


@pytest.mark.parametrize(("names", "critical"), [(("a.test",), False), (("192.0.2.1",), True)])
def test_names_are_critical_only_beside_an_empty_subject(
    names: tuple[str, ...], critical: bool
) -> None:
    """RFC 5280 section 4.2.1.6; verifiers refuse certificates that differ."""
    parsed = build_csr(SubjectSpec(names), KEY).parsed
    extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)

    assert extension.critical is critical


def test_organization_fields_are_taken_over() -> None:
    """Private CAs put them into the certificate."""
    attributes = {"O": "Example", "ou": "Web", "C": "NL", "CN": "192.0.2.1"}

    content = read_csr(build_csr(SubjectSpec(("192.0.2.1",), attributes=attributes), KEY))

    assert content.subject == "CN=192.0.2.1,OU=Web,O=Example,C=NL"


@pytest.mark.parametrize(
    ("names", "attributes"),
    [
        pytest.param((), {}, id="no names"),
        pytest.param(("not a name",), {}, id="bad name"),
        pytest.param(("a.test",), {"X": "y"}, id="unknown attribute"),
        pytest.param(("a.test",), {"C": "Netherlands"}, id="country that is no code"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    names: tuple[str, ...], attributes: dict[str, str]
) -> None:
    """Before an order is made, not by the CA after it."""
    with pytest.raises(InvalidRequest):
        build_csr(SubjectSpec(names, attributes=attributes), KEY)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P384, KeyAlgorithm.RSA_2048])
def test_other_keys_sign_too(algorithm: KeyAlgorithm) -> None:
    """Profiles choose among these."""
    assert read_csr(build_csr(SubjectSpec(("a.test",)), generate(algorithm))).signature_valid


def test_unusable_keys_are_refused_without_showing_them() -> None:
    """A message must not quote key material."""
    ed = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for key in (ed, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(InvalidRequest) as caught:
            build_csr(SubjectSpec(("a.test",)), PrivateKeyPem(key))
        assert "c2VjcmV0" not in str(caught.value)


def test_something_else_than_a_csr_is_refused() -> None:
    """Devices answer with HTML pages as well."""
    with pytest.raises(InvalidRequest):
        read_csr(Csr("<html>"))
