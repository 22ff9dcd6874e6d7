"""Keys that a BIG-IP makes itself (on a fake of its documented API)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr, ValidationError

from blocks.targets.bigip import BigIp as BigIpBlock
from blocks.targets.bigip import KeyOnBigIpTarget
from certrail.errors import Busy, CertrailError, Conflict, InvalidRequest, UnexpectedReply
from certrail.model import Bundle, KeyAlgorithm, Site, SubjectSpec
from certrail.x509.csr import read_csr
from tests.support import bigip_api
from tests.support.bigip_api import BigIp
from tests.support.device import SITE, Reply

PROFILE = Site(bigip_api.PROFILE)
P256 = SubjectSpec((SITE,), KeyAlgorithm.ECDSA_P256)


@pytest.fixture
def f5() -> Iterator[BigIp]:
    """A BIG-IP."""
    with BigIp().running() as device:
        yield device


@contextmanager
def own_key(device: BigIp, sync_group: str = "pair") -> Iterator[KeyOnBigIpTarget]:
    """Open the block as a worker would."""
    block = BigIpBlock(
        url=device.url,
        username=bigip_api.USER,
        password=SecretStr(bigip_api.PASSWORD),
        ca_bundle=device.roots,
        sync_group=sync_group,
        key_on_device=True,
    )
    with block.connect() as opened:
        assert isinstance(opened, KeyOnBigIpTarget)
        yield opened


def made(device: BigIp) -> int:
    """Return how many keys the device was asked to make."""
    return device.calls.count("POST /mgmt/tm/sys/crypto/key")


def test_its_own_key_is_made_once_and_stays(f5: BigIp) -> None:
    """A step that ran twice gets the same request; what is left of it goes with the next."""
    with own_key(f5) as one:
        first, again = one.generate_csr(PROFILE, P256), one.generate_csr(PROFILE, P256)
        staged = one.stage(PROFILE, Bundle(f5.ca.signed(first, SITE), None), None)
        one.activate(staged)
        one.discard(staged)
        second = one.generate_csr(PROFILE, P256)
        renewed = one.stage(PROFILE, Bundle(f5.ca.signed(second, SITE), None), None)
        one.activate(renewed)
        one.discard(renewed)

    assert (first, made(f5)) == (again, 2)
    assert second.public_key_der() != first.public_key_der()
    assert f5.served() == renewed.fingerprint
    assert set(f5.state.keys) == {"/Common/old.key", str(renewed.data["key"])}
    assert [f"/Common/{name}" for name in f5.state.requests] == [
        str(renewed.data["key"]).replace(".key", ".csr")
    ]
    assert f5.saved.keys == f5.synced.keys == f5.state.keys
    uploads = [call for call in f5.calls if "/uploads/" in call]
    assert uploads
    assert not [call for call in uploads if call.endswith(".key")]


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.ECDSA_P384])
def test_what_the_request_says(f5: BigIp, algorithm: KeyAlgorithm) -> None:
    """Several names, a wildcard and an address; the kind of key that was ordered."""
    names = ("x" * 60 + ".example.test", f"*.{SITE}", SITE, "192.0.2.1")
    with own_key(f5) as one:
        content = read_csr(one.generate_csr(PROFILE, SubjectSpec(names, algorithm)))

    assert set(content.names) == set(names)
    assert (content.common_name, content.algorithm) == (f"*.{SITE}", algorithm)


def test_other_names_for_the_key_that_waits(f5: BigIp) -> None:
    """A certificate on its way for the same key can still be installed."""
    with own_key(f5) as one:
        first = one.generate_csr(PROFILE, P256)
        more = SubjectSpec((SITE, f"x.{SITE}"), KeyAlgorithm.ECDSA_P256)
        second = one.generate_csr(PROFILE, more)
        one.activate(one.stage(PROFILE, Bundle(f5.ca.signed(first, SITE), None), None))

    assert first.public_key_der() == second.public_key_der()
    assert set(read_csr(second).names) == set(more.names)
    assert made(f5) == 1


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (SubjectSpec((SITE,), KeyAlgorithm.RSA_3072), "rsa-3072"),
        (SubjectSpec(("x" * 60 + ".example.test",), KeyAlgorithm.ECDSA_P256), "too long"),
    ],
)
def test_a_request_that_it_cannot_write(f5: BigIp, subject: SubjectSpec, told: str) -> None:
    """Refused before the device makes anything."""
    with own_key(f5) as one, pytest.raises(InvalidRequest, match=told) as caught:
        one.generate_csr(PROFILE, subject)

    assert caught.value.remedy
    assert made(f5) == 0


def test_a_key_of_another_kind_that_waits_stays(f5: BigIp) -> None:
    """Somebody may have a certificate on the way for it."""
    with own_key(f5) as one:
        one.generate_csr(PROFILE, P256)
        before = f5.snapshot()
        with pytest.raises(Conflict) as caught:
            one.generate_csr(PROFILE, SubjectSpec((SITE,), KeyAlgorithm.ECDSA_P384))

    assert ".key" in caught.value.remedy
    assert before == f5.snapshot()


def test_a_certificate_for_a_key_that_is_gone(f5: BigIp) -> None:
    """Somebody cleaned up meanwhile: said before anything is uploaded."""
    with own_key(f5) as one:
        bundle = Bundle(f5.ca.signed(one.generate_csr(PROFILE, P256), SITE), None)
        for name in set(f5.state.keys) - {"/Common/old.key"}:
            del f5.state.keys[name]
        f5.synced = f5.state.copy()
        before = f5.snapshot()
        with pytest.raises(InvalidRequest, match="no longer has the key") as caught:
            one.stage(PROFILE, bundle, None)
        with pytest.raises(InvalidRequest, match="has another one"):
            one.stage(PROFILE, f5.ca.bundle(SITE), None)
        assert before == f5.snapshot()
        # The request that is left is for the key that is gone.
        one.generate_csr(PROFILE, P256)
        with pytest.raises(InvalidRequest, match="no longer has the key"):
            one.stage(PROFILE, bundle, None)

    assert "reissue" in caught.value.remedy


def test_the_peer_took_over_without_the_request(f5: BigIp) -> None:
    """It has the key, and checks itself that the certificate is for it."""
    with own_key(f5) as one:
        bundle = Bundle(f5.ca.signed(one.generate_csr(PROFILE, P256), SITE), None)
        f5.state.requests.clear()
        f5.synced = f5.state.copy()
        one.activate(one.stage(PROFILE, bundle, None))

    assert f5.served() == bundle.chain.fingerprint


def test_a_reply_that_is_lost_costs_no_second_key(f5: BigIp) -> None:
    """The key that was made is saved and synchronised, and the next run takes it."""
    f5.fault("POST", "/crypto/csr$", reply=Reply(503, {}))
    with own_key(f5) as one:
        with pytest.raises(CertrailError, match="503"):
            one.generate_csr(PROFILE, P256)
        assert f5.saved.keys == f5.synced.keys == f5.state.keys
        csr = one.generate_csr(PROFILE, P256)

    assert read_csr(csr).names == (SITE,)
    assert made(f5) == 1


def test_no_shell(f5: BigIp) -> None:
    """In Appliance mode nobody can read the request."""
    f5.no_shell = True
    with own_key(f5) as one, pytest.raises(UnexpectedReply, match="does not show") as caught:
        one.generate_csr(PROFILE, P256)

    assert "Appliance mode" in caught.value.remedy


def test_somebody_elses_changes_wait(f5: BigIp) -> None:
    """A key is a change, too: theirs would be synchronised with it."""
    f5.state.certs["/Common/theirs.crt"] = f5.state.certs["/Common/old.crt"]
    with own_key(f5) as one, pytest.raises(Busy):
        one.generate_csr(PROFILE, P256)

    assert made(f5) == 0


def test_a_key_of_its_own_is_in_common(f5: BigIp) -> None:
    """How requests of another partition are named is not documented."""
    settings = {"url": f5.url, "username": "u", "password": SecretStr("p"), "key_on_device": True}
    with pytest.raises(ValidationError, match="partition Common"):
        BigIpBlock(**settings, partition="Web")
