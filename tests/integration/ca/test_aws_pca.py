"""AWS Private CA: what moto does not do, from replies as AWS documents them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.ca.aws_pca import AwsPca
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
)
from certrail.model import Chain, Order, OrderKey, OrderStatus, RevocationReason
from certrail.wait import Pending
from tests.integration.ca.issuing import csr_for, spec
from tests.support.rest_server import Answer, Call, RestService, route, serving
from tests.support.scripted import http_reply, scripted
from tests.support.signing_ca import SigningCa

NAME = "www.example.test"
ARN = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/0b20"
SECRET = "the-secret-access-key"


def block(port: int, **settings: Any) -> AwsPca:
    return AwsPca(
        **{
            "ca_arn": ARN,
            "access_key_id": "AKIAEXAMPLE",
            "secret_access_key": SECRET,
            "endpoint_url": f"http://127.0.0.1:{port}",
            "timeout": 2,
            **settings,
        }
    )


def json_reply(body: dict[str, Any], status: int = 200) -> bytes:
    return http_reply(status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(body))


def refusal(code: str, status: int = 400) -> bytes:
    return json_reply({"__type": code, "message": f"no: {SECRET}"}, status)


def described(algorithm: str) -> dict[str, Any]:
    configuration = {"KeyAlgorithm": algorithm, "Subject": {"CommonName": "Inside"}}
    return {
        "CertificateAuthority": {
            "Status": "ACTIVE",
            "CertificateAuthorityConfiguration": configuration,
        }
    }


def placed() -> Order:
    data = {"names": [NAME], "template": "t", "key": "k"}
    return Order(OrderKey("ref-1"), f"{ARN}/certificate/1", OrderStatus.PROCESSING, data=data)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refusal("UnrecognizedClientException"), AuthenticationFailed),
        (refusal("InvalidSignatureException"), AuthenticationFailed),
        (refusal("ExpiredTokenException"), AuthenticationFailed),
        (refusal("AccessDeniedException"), PermissionRefused),
        (refusal("ResourceNotFoundException"), NotFound),
        (refusal("InvalidStateException"), Rejected),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refusals_are_told_apart(reply: bytes, error: type[CertrailError]) -> None:
    """Operators act on the error's type; AWS answers 400 to most."""
    with (
        scripted(reply) as server,
        block(server.port).connect() as ca,
        pytest.raises(error) as caught,
    ):
        ca.check()

    assert SECRET not in str(caught.value)


def test_a_certificate_in_the_making_is_pending() -> None:
    """Issuing takes a moment, and asking too early is an error for AWS."""
    with (
        scripted(refusal("RequestInProgressException")) as server,
        block(server.port).connect() as ca,
    ):
        assert isinstance(ca.collect(placed()), Pending)


def test_a_failed_certificate_is_rejected() -> None:
    """It never comes; a retry has to issue another."""
    with (
        scripted(refusal("RequestFailedException")) as server,
        block(server.port).connect() as ca,
        pytest.raises(Rejected) as caught,
    ):
        ca.collect(placed())

    assert caught.value.code == "RequestFailedException"


def test_revoked_already_is_success() -> None:
    """AWS refuses the second time."""
    authority = SigningCa("Inside")
    chain = Chain.of([authority.sign(csr_for(NAME).pem, [NAME])])
    reply = refusal("RequestAlreadyProcessedException")
    with scripted(reply) as server, block(server.port).connect() as ca:
        ca.revoke(chain, RevocationReason.SUPERSEDED)


@pytest.mark.parametrize(
    ("algorithm", "signing"),
    [
        ("EC_prime256v1", "SHA256WITHECDSA"),
        ("EC_secp384r1", "SHA384WITHECDSA"),
        ("RSA_2048", "SHA256WITHRSA"),
        ("RSA_4096", "SHA256WITHRSA"),
    ],
)
def test_the_signing_algorithm_fits_the_cas_key(algorithm: str, signing: str) -> None:
    """AWS refuses one of another family."""
    sent = _issue_twice(algorithm)

    assert {body["SigningAlgorithm"] for body in sent} == {signing}


def test_issuing_again_has_the_same_token() -> None:
    """Within five minutes AWS then makes one certificate of two requests."""
    first, second = _issue_twice("RSA_2048")

    assert first["IdempotencyToken"] == second["IdempotencyToken"]
    assert len(first["IdempotencyToken"]) <= 36
    assert first["Validity"] == {"Value": 90, "Type": "DAYS"}


def test_a_csr_with_other_names_is_refused_before_anything_is_sent() -> None:
    """AWS takes the names from it."""
    with scripted(b"") as server, block(server.port).connect() as ca:
        with pytest.raises(InvalidRequest, match=r"other\.example\.test"):
            ca.finalize(ca.open_order(spec(NAME)), csr_for("other.example.test"))

        assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ca_arn": "arn:aws:acm:eu-central-1:1:certificate/1"}, "ca_arn"),
        ({"secret_access_key": None}, "belong together"),
        ({"access_key_id": ""}, "belong together"),
    ],
    ids=str,
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    """Half a key would be mixed with the worker's own."""
    with pytest.raises(ValidationError, match=message):
        block(1, **settings)


class _Aws(RestService):
    """A CA with a key of *algorithm* that notes what it is asked to issue."""

    def __init__(self, algorithm: str) -> None:
        super().__init__()
        self.issued: list[dict[str, Any]] = []
        self._algorithm = algorithm

    @route("POST", "/")
    def call(self, call: Call) -> Answer:
        """Answer by the name of the call."""
        if call.headers["x-amz-target"] == "ACMPrivateCA.DescribeCertificateAuthority":
            return Answer(200, described(self._algorithm))
        self.issued.append(call.body)
        return Answer(200, {"CertificateArn": f"{ARN}/certificate/1"})


def _issue_twice(algorithm: str) -> list[dict[str, Any]]:
    """Finalize one order twice; return the bodies of the two requests."""
    service = _Aws(algorithm)
    with serving(service), block(service.port).connect() as ca:
        order, csr = ca.open_order(spec(NAME)), csr_for(NAME)
        for _ in range(2):
            ca.finalize(order, csr)
    return service.issued
