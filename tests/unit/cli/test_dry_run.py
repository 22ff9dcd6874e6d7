"""The certificate that stands for one that is not there yet."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certrail.cli._specimen import specimen
from certrail.model import KeyAlgorithm, subject_names
from certrail.x509.chain import must_be_installable


def test_a_specimen_has_what_decides_the_change() -> None:
    """Names and kind of key say which directive is replaced, and a target must not refuse it."""
    names = ("www.example.test", "*.example.test", "192.0.2.1")

    elliptic = specimen(names, KeyAlgorithm.ECDSA_P256)
    other = specimen(names, KeyAlgorithm.RSA_2048)

    must_be_installable(elliptic)
    must_be_installable(other)
    assert set(subject_names(elliptic.chain.leaf)) >= set(names[:2])
    assert isinstance(elliptic.chain.leaf.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(other.chain.leaf.public_key(), rsa.RSAPublicKey)


def test_a_long_name_does_not_matter() -> None:
    """A common name has 64 characters at most, a DNS name more."""
    name = f"{'a' * 60}.{'b' * 60}.example.test"

    assert name in subject_names(specimen([name], KeyAlgorithm.ECDSA_P256).chain.leaf)
