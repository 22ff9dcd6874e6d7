"""Keys that a NetScaler makes itself (on a fake of its documented API)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr, ValidationError

from blocks.targets.netscaler import KeyOnNetScalerTarget
from blocks.targets.netscaler import NetScaler as NetScalerBlock
from certrail.errors import Conflict, InvalidRequest
from certrail.model import Bundle, KeyAlgorithm, Site, SubjectSpec
from tests.support import netscaler_api
from tests.support.device import SITE
from tests.support.netscaler_api import NetScaler

PAIR = Site(netscaler_api.PAIR)
RSA = SubjectSpec((SITE,), KeyAlgorithm.RSA_2048)


@pytest.fixture
def adc() -> Iterator[NetScaler]:
    """A NetScaler."""
    with NetScaler().running() as device:
        yield device


@contextmanager
def own_key(device: NetScaler) -> Iterator[KeyOnNetScalerTarget]:
    """Open the block as a worker would."""
    block = NetScalerBlock(
        url=device.url,
        username=netscaler_api.USER,
        password=SecretStr(netscaler_api.PASSWORD),
        ca_bundle=device.roots,
        key_on_device=True,
        country="de",
        state="Berlin",
        organization="Example",
    )
    with block.connect() as opened:
        assert isinstance(opened, KeyOnNetScalerTarget)
        yield opened


def test_its_own_key_is_made_once_and_never_read(adc: NetScaler) -> None:
    """A step that ran twice gets the same request; what is left of it goes with the next."""
    with own_key(adc) as one:
        first, again = one.generate_csr(PAIR, RSA), one.generate_csr(PAIR, RSA)
        staged = one.stage(PAIR, Bundle(adc.ca.signed(first, SITE), None), None)
        one.activate(staged)
        one.discard(staged)
        second = one.generate_csr(PAIR, RSA)

    assert (first, adc.made) == (again, 2)
    assert second.public_key_der() != first.public_key_der()
    shown = {each.value for each in first.parsed.subject}
    assert shown == {"DE", "Berlin", "Example", SITE}
    read = [call for call in adc.given_out if call.endswith(".key")]
    assert read == []
    assert len([name for name in adc.files if name.endswith(".csr")]) == 1


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (SubjectSpec((SITE, f"x.{SITE}"), KeyAlgorithm.RSA_2048), "one DNS name"),
        (SubjectSpec(("192.0.2.1",), KeyAlgorithm.RSA_2048), "one DNS name"),
        (SubjectSpec((SITE,), KeyAlgorithm.ECDSA_P256), "ecdsa-p256"),
    ],
)
def test_a_request_that_it_cannot_write(adc: NetScaler, subject: SubjectSpec, told: str) -> None:
    """Refused before the appliance makes anything."""
    with own_key(adc) as one, pytest.raises(InvalidRequest, match=told) as caught:
        one.generate_csr(PAIR, subject)

    assert caught.value.remedy
    assert adc.made == 0


def test_a_key_that_waits_for_something_else_stays(adc: NetScaler) -> None:
    """Somebody may have a certificate on the way for it."""
    with own_key(adc) as one:
        one.generate_csr(PAIR, RSA)
        other = SubjectSpec((f"x.{SITE}",), KeyAlgorithm.RSA_2048)
        with pytest.raises(Conflict) as caught:
            one.generate_csr(PAIR, other)

    assert ".csr of /nsconfig/ssl" in caught.value.remedy
    assert adc.made == 1


def test_a_certificate_for_a_key_that_is_gone(adc: NetScaler) -> None:
    """Somebody cleaned up meanwhile: said before anything is uploaded."""
    with own_key(adc) as one:
        bundle = Bundle(adc.ca.signed(one.generate_csr(PAIR, RSA), SITE), None)
        for name in [name for name in adc.files if name.endswith(".csr")]:
            del adc.files[name]
        before = adc.snapshot()
        with pytest.raises(InvalidRequest, match="no longer has the key") as caught:
            one.stage(PAIR, bundle, None)
        with pytest.raises(InvalidRequest, match="has another one"):
            one.stage(PAIR, adc.ca.bundle(SITE), None)

    assert "reissue" in caught.value.remedy
    assert before == adc.snapshot()


def test_a_key_of_its_own_needs_a_subject(adc: NetScaler) -> None:
    """The appliance writes no request without country, state and organization."""
    settings = {"url": adc.url, "username": "u", "password": SecretStr("p"), "key_on_device": True}
    with pytest.raises(ValidationError, match="needs country, state and organization"):
        NetScalerBlock(**settings, country="DE", state="Berlin")
