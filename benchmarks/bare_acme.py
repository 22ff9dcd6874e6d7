"""Orders by certbot's ``acme`` library as its example does them, but polled every 20 ms."""

from __future__ import annotations

import threading
import time

from acme import challenges, client, crypto_util, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy import jwa, jwk

_POLL = 0.02


class Orders:
    """One account, a client for each thread."""

    def __init__(self, directory_url: str, ca_bundle: str) -> None:
        self._directory_url = directory_url
        self._ca_bundle = ca_bundle
        self._key = jwk.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
        self._local = threading.local()
        first = self._connect(None)
        self._account = first.new_account(
            messages.NewRegistration.from_data(terms_of_service_agreed=True)
        )

    def one(self, name: str) -> bool:
        """Order, validate by http-01, finalize and download one certificate."""
        acme = self._client()
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        order = acme.new_order(crypto_util.make_csr(pem, domains=[name]))
        for authorization in order.authorizations:
            if authorization.body.status == messages.STATUS_VALID:
                continue
            for challenge in authorization.body.challenges:
                if isinstance(challenge.chall, challenges.HTTP01):
                    acme.answer_challenge(challenge, challenge.response(self._key))
        while True:
            polled = [acme.poll(authorization)[0] for authorization in order.authorizations]
            if all(one.body.status == messages.STATUS_VALID for one in polled):
                break
            time.sleep(_POLL)
        order = acme.begin_finalization(order)
        while True:
            body = messages.Order.from_json(acme._post_as_get(order.uri).json())
            if body.status == messages.STATUS_VALID:
                break
            time.sleep(_POLL)
        return "BEGIN CERTIFICATE" in acme._post_as_get(body.certificate).text

    def _client(self) -> client.ClientV2:
        if not hasattr(self._local, "client"):
            self._local.client = self._connect(self._account)
        connected: client.ClientV2 = self._local.client
        return connected

    def _connect(self, account: messages.RegistrationResource | None) -> client.ClientV2:
        net = client.ClientNetwork(
            self._key,
            account=account,
            alg=jwa.ES256,
            verify_ssl=self._ca_bundle,  # type: ignore[arg-type]  # requests takes a path too
        )
        directory = client.ClientV2.get_directory(self._directory_url, net)
        return client.ClientV2(directory, net)
