"""Certificates with their keys, as a request would deliver them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certrail.model import Bundle, Chain
from certrail.private_key import PrivateKeyPem
from tests.support.tls_servers import Authority

_ROOT = Authority.root()
_INTERMEDIATE = _ROOT.intermediate()
_RSA = rsa.generate_private_key(65537, 2048)


def new_bundle(*names: str, with_rsa: bool = False, intermediates: bool = True) -> Bundle:
    """Return a fresh certificate for *names*: EC with a fresh key, or RSA."""
    key = _RSA if with_rsa else ec.generate_private_key(ec.SECP256R1())
    issuer = _INTERMEDIATE if intermediates else _ROOT
    issued = issuer.issue(*(names or ("shop.example.test",)), key=key)
    return Bundle(Chain.of(list(issued.chain)), PrivateKeyPem(issued.key_pem().encode()))
