"""Account keys, and requests signed with them (RFC 8555 section 6.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from acme import jws
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from josepy.b64 import b64encode
from josepy.jwa import ES256, ES384, ES512, RS256
from josepy.jwk import JWKEC, JWKRSA

from certrail.errors import InvalidRequest
from certrail.private_key import PrivateKeyPem

_CURVES = {256: ES256, 384: ES384, 521: ES512}


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: an account key, and the account's URL once there is one."""

    key: Any
    algorithm: Any
    account: str = ""

    @property
    def public_key(self) -> Any:
        """The public half, as a JWK."""
        return self.key.public_key()

    @property
    def thumbprint(self) -> str:
        """The key's thumbprint (RFC 7638), as key authorizations carry it."""
        return b64encode(self.key.thumbprint()).decode()

    def sign(self, url: str, payload: bytes, nonce: bytes) -> bytes:
        """Return the signed request body (RFC 8555 section 6.2)."""
        signed = jws.JWS.sign(
            payload,
            key=self.key,
            alg=self.algorithm,
            nonce=nonce,
            url=url,
            kid=self.account or None,
        )
        return json.dumps(signed.to_json(), separators=(",", ":")).encode()


def new_account_key() -> PrivateKeyPem:
    """Make an account key: ECDSA P-256, which every CA takes (RFC 8555 section 6.2)."""
    return PrivateKeyPem(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def signer_of(key: PrivateKeyPem, url: str = "") -> Signer:
    """Return what signs requests with *key*, as the account *url* if there is one.

    Raises:
        InvalidRequest: a key that ACME has no signature for.
    """
    try:
        loaded = serialization.load_pem_private_key(key.reveal(), password=None)
    except (ValueError, TypeError):
        raise InvalidRequest(
            "the stored account key cannot be read",
            remedy="Remove it with `certrail connector forget-account`; a new one is made.",
        ) from None
    if isinstance(loaded, ec.EllipticCurvePrivateKey) and loaded.key_size in _CURVES:
        return Signer(JWKEC(key=loaded), _CURVES[loaded.key_size], url)
    if isinstance(loaded, rsa.RSAPrivateKey):
        return Signer(JWKRSA(key=loaded), RS256, url)
    raise InvalidRequest(
        f"an account key of the kind {type(loaded).__name__} cannot be used with ACME",
        remedy="Use an ECDSA P-256, P-384, P-521 or RSA key.",
    )
