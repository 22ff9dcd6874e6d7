"""DigiCert ONE: profiles, waiting, formats (against our imitation of it)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from blocks.ca.digicert_one import DigicertOne
from certrail.connectors import CertificateAuthority
from certrail.errors import (
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.model import Chain, OrderStatus, RevocationReason
from certrail.wait import Pending
from tests.integration.ca.issuing import collect, csr_for, issue, spec
from tests.support.digicert_one_api import DigicertOneApi, digicert_one_api
from tests.support.signing_ca import PEM

NAME = "www.example.test"


@pytest.fixture
def api() -> Iterator[DigicertOneApi]:
    with digicert_one_api("example.test") as service:
        yield service


@contextmanager
def opened(api: DigicertOneApi, **settings: Any) -> Iterator[CertificateAuthority]:
    given = {"url": api.url, "api_key": api.key, "profile_id": api.profile, **settings}
    with DigicertOne(**given).connect() as ca:
        yield ca


def test_a_request_that_waits_is_picked_up(api: DigicertOneApi) -> None:
    """Profiles may want an approval, or have an issuing CA elsewhere."""
    with opened(api) as ca:
        order = ca.finalize(ca.open_order(spec(NAME, profile=api.slow_profile)), csr_for(NAME))
        assert order.status is OrderStatus.PROCESSING
        assert isinstance(ca.collect(order), Pending)
        assert collect(ca, order).pems


def test_a_refused_request_is_dead(api: DigicertOneApi) -> None:
    """An approver said no."""
    with opened(api, profile_id=api.slow_profile) as ca:
        order = ca.finalize(ca.open_order(spec(NAME)), csr_for(NAME))
        api.entries[0].refused = True
        with pytest.raises(Rejected) as caught:
            ca.collect(order)

    assert caught.value.code == "REJECTED"


def test_a_request_for_another_key_is_not_handed_out(api: DigicertOneApi) -> None:
    """The key decides, whatever the request's number says."""
    with opened(api, profile_id=api.slow_profile) as ca:
        order = ca.finalize(ca.open_order(spec(NAME)), csr_for(NAME))
        api.entries[0].csr = csr_for(NAME).pem
        ca.collect(order)
        with pytest.raises(UnexpectedReply, match="another key"):
            ca.collect(order)


@pytest.mark.parametrize(("status", "error"), [(403, PermissionRefused), (404, NotFound)])
def test_a_wrong_profile_is_told(
    api: DigicertOneApi, status: int, error: type[ConnectorError]
) -> None:
    """The id is easily mistyped; the service answers as if it were somebody else's."""
    api.unknown_profile = status
    with opened(api, profile_id=str(uuid4())) as ca:
        for call in (ca.check, lambda: issue(ca, NAME)):
            with pytest.raises(error) as caught:
                call()
            assert "profile" in caught.value.remedy


def test_addresses_are_refused_before_anything_is_sent(api: DigicertOneApi) -> None:
    """How the API wants them could not be verified."""
    with opened(api) as ca, pytest.raises(InvalidRequest, match=r"192\.0\.2\.1"):
        ca.open_order(spec(NAME, "192.0.2.1"))

    assert api.calls == []


def test_missing_intermediates_are_added(api: DigicertOneApi) -> None:
    """Some profiles deliver the leaf alone."""
    api.form = "leaf"
    with opened(api, issuers=api.ca.intermediate.public_bytes(PEM).decode()) as ca:
        chain = issue(ca, NAME)

    assert chain.certificates[1] == api.ca.intermediate


def test_pkcs7_is_read_as_well(api: DigicertOneApi) -> None:
    """The delivery format belongs to the profile."""
    api.form = "pkcs7"
    with opened(api) as ca:
        chain = issue(ca, NAME)

    assert chain.certificates[1:] == [api.ca.intermediate]


def test_a_strangers_certificate_cannot_be_revoked(api: DigicertOneApi) -> None:
    """Success would be a lie."""
    with opened(api) as ca:
        chain = Chain.of([api.ca.sign(csr_for(NAME).pem, [NAME])])
        with pytest.raises(NotFound):
            ca.revoke(chain, RevocationReason.SUPERSEDED)


@pytest.mark.parametrize(("seat", "sent"), [("", NAME), ("seat-7", "seat-7")])
def test_the_seat_is_the_one_configured(api: DigicertOneApi, seat: str, sent: str) -> None:
    """Seats are what is paid for."""
    with opened(api, seat_id=seat, validity_days=30) as ca:
        issue(ca, NAME)

    assert api.bodies[-1]["seat"] == {"seat_id": sent}
    assert api.bodies[-1]["validity"] == {"unit": "days", "duration": 30}


def test_an_unreadable_certificate_of_the_same_name_is_passed_over(
    api: DigicertOneApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates from anywhere can be imported; they must not stop the next order."""
    with opened(api) as ca:
        issue(ca, NAME)
        described = api._details
        monkeypatch.setattr(api, "_details", lambda e: {**described(e), "certificate": "AAAA"})
        issue(ca, NAME)

    assert api.issued(NAME) == 2
